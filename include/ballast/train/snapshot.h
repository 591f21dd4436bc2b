#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "ballast/nn/params.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/optimizer.h"

namespace ballast {

/// Everything that training changes: the state, the parameters and buffers, the moments.
struct Snapshot {
    TrainerState state;
    std::vector<std::vector<float>> arrays; ///< parameters and buffers, then each moment

    void take(const TrainerState& now, const ParamTable& table, std::span<const Moment> moments);
    /// Whether it is of a model and an optimizer of these sizes.
    bool fits(const ParamTable& table, std::span<const Moment> moments) const;
    /// Puts parameters, buffers and moments back; the state is there to be copied. It must fit.
    void restore(ParamTable& table, std::span<const Moment> moments) const;
};

/// The newest snapshots of a run, in memory. Their number is fixed, and the memory of the oldest serves the newest.
class Snapshots {
public:
    explicit Snapshots(std::size_t keep) : keep_(keep) {}

    void take(const TrainerState& state, const ParamTable& table, std::span<const Moment> moments);

    /// The newest snapshot of step `step` or before; otherwise the oldest; null when there is none.
    const Snapshot* before(std::int64_t step) const;

    /// Forgets those of later steps than `step`.
    void drop_after(std::int64_t step);

    const std::deque<Snapshot>& all() const { return snapshots_; } ///< oldest first

private:
    std::size_t keep_;
    std::deque<Snapshot> snapshots_;
};

} // namespace ballast
