#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/base/arena.h"
#include "ballast/config/config.h"
#include "ballast/kernels/update.h"
#include "ballast/nn/params.h"

namespace ballast {

/// State that an optimizer keeps for every parameter: an array with the offsets of ParamTable::values().
struct Moment {
    std::string_view name; ///< "m": as it is called in a checkpoint, "<parameter>.m"
    float* values;
};

/// Updates all parameters of a table from its gradients.
class Optimizer {
public:
    /// `table` is allocated, gradients too, and outlives the optimizer. Moments start at zero.
    Optimizer(const OptimizerConfig& config, const ParamTable& table);

    /// Makes parameters learn at a rate of their own: at step s, `scale` times that of the others, and, with a warm-up,
    /// times s / `warmup` up to 1. Only the learning rate is scaled; throws Error for a parameter that decays.
    void set_own_rate(std::span<const std::string> parameters, double scale, std::int64_t warmup);

    /// One update. `step` counts from 1; `factor` is the schedule's (schedule.h); gradients are multiplied by
    /// `gradient_scale` (the clip coefficient) on the way in. Returns what it did, summed over all parameters.
    UpdateStats step(std::int64_t step, double factor, double gradient_scale);

    /// For checkpoints; empty when the rule keeps nothing.
    std::span<const Moment> moments() const { return moments_; }

private:
    OptimizerConfig config_;
    const ParamTable& table_;
    Arena permanent_;
    std::vector<Moment> moments_;

    /// Neighbours in the table that share a rate.
    struct RateRange {
        std::int64_t begin, end;
        bool own;
    };
    std::vector<RateRange> undecayed_; ///< what does not decay, in order
    double own_scale_ = 1;
    std::int64_t own_warmup_ = 0;
};

/// Number of moment arrays that an optimizer keeps, for memory estimates.
std::size_t moment_count(const OptimizerConfig& config);

} // namespace ballast
