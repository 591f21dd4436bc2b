#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ballast/base/rng.h"

namespace ballast {

/// The target of a token for which nothing is to be predicted; cross_entropy leaves it out.
inline constexpr std::int32_t kNoTarget = -1;

enum class Task : std::uint8_t { majority, copy, induction, modular_addition };

struct TaskOptions {
    Task task = Task::majority;
    std::int64_t symbols = 20;
    std::int64_t context = 1;  ///< tokens in a sequence, all of them used
    double val_fraction = 0.1; ///< modular_addition: share of the sums that is never trained on
};

/// Sequences of a synthetic task, each of `context` inputs, with targets where something is asked and kNoTarget
/// elsewhere. Written for n symbols and a context of T:
///
/// | task             | T          | inputs                                | targets                  | vocabulary |
/// |------------------|------------|---------------------------------------|--------------------------|------------|
/// | majority         | 3 or more  | T - 1 symbols, then `?` (id n)        | at `?`: the symbol that  | n + 1      |
/// |                  |            |                                       | is there most often      |            |
/// | copy             | even       | T/2 symbols, `=` (id n), the symbols  | from `=` on: the T/2     | n + 1      |
/// |                  |            | once more but for the last            | symbols                  |            |
/// | induction        | 4 pairs,   | pairs of a key (ids 0 to n - 1, each  | at each key of the       | 2 n        |
/// |                  | 2 <= pairs | once) and a value (ids n to 2n - 1),  | second half: its value   |            |
/// |                  | <= n       | then the same pairs in another order  |                          |            |
/// | modular_addition | 3          | a, b, `=` (id n)                      | at `=`: a + b modulo n   | n + 1      |
///
/// Symbols are drawn uniformly; a majority that is a tie is drawn again. Every answer is certain, so the best possible
/// loss is 0; it is uniform over n symbols where the question is not looked at, so chance is ln n.
///
/// A sequence of training is a function of (seed, step, row) alone, as Sampler's windows are; one of validation of its
/// index alone. The sums of modular_addition are split once and for all, for every seed: those that are validated on
/// are never trained on. The other tasks have so many sequences that a repetition is no concern from a length of about
/// ten symbols on.
///
/// Sources: majority: Brody et al., 2305.02582; copy: Graves et al., 1410.5401, section 4.1; induction:
/// Olsson et al., 2209.11895; modular addition: Power et al., 2201.02177.
class SyntheticTask {
public:
    /// Throws DataError when the context does not fit the task, or a split is empty.
    explicit SyntheticTask(const TaskOptions& options);

    /// Sequences of training step `step`, below 2^40; `batch` is at most 2^24. `inputs` and `targets` are
    /// [batch, context], written whole.
    void batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int32_t* inputs,
               std::int32_t* targets) const;
    /// Batch `index` of validation, the same for every seed. modular_addition goes through all its held-out sums before
    /// it repeats one.
    void evaluation_batch(std::int64_t index, std::int64_t batch, std::int32_t* inputs, std::int32_t* targets) const;

    std::string_view name() const;
    std::int64_t vocab_size() const;
    std::int64_t context() const { return options_.context; }
    std::int64_t targets_per_sequence() const;
    double chance_loss() const; ///< nats per target
    /// Equal for tasks that are the same in every option.
    std::uint64_t fingerprint() const;
    /// Sums of modular_addition that are kept for validation; 0 for other tasks.
    std::int64_t held_out() const { return held_out_; }

private:
    void write(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const;
    void write_majority(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const;
    void write_copy(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const;
    void write_induction(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const;
    void write_sum(std::int64_t sum, std::int32_t* inputs, std::int32_t* targets) const;

    TaskOptions options_;
    std::vector<std::int32_t> sums_; ///< a * symbols + b of every sum, in a random order; the held-out ones come first
    std::int64_t held_out_ = 0;
};

} // namespace ballast
