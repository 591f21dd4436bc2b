#pragma once

#include <cstdint>

#include "ballast/base/rng.h"
#include "ballast/data/tokens.h"

namespace ballast {

/// Cuts windows out of a split. There is no state: a batch is a function of (seed, step) alone, so that runs which
/// share a seed see the same batches whatever else differs, and a resumed run needs nothing restored. Row r of a step
/// is the same for every batch size.
///
/// A window is `context` inputs and the `context` tokens that follow each of them; `inputs` and `targets` are
/// [batch, context] row-major, written whole.
class Sampler {
public:
    /// `tokens` must outlive the sampler.
    Sampler(TokenView tokens, std::uint64_t seed) : tokens_(tokens), starts_(seed, "batches") {}

    /// Windows that start anywhere in the split, uniformly. `step` below 2^40, `batch` at most 2^24. Throws DataError
    /// where the split is not longer than `context`.
    void batch(std::int64_t step, std::int64_t batch, std::int64_t context, std::int32_t* inputs,
               std::int32_t* targets) const;

    /// Batch `index` of `batches` for evaluation: the batch × batches windows are spread evenly over the split, the
    /// first at its start and the last at its end, the same in every run and for every seed. They do not overlap when
    /// batch × batches is at most windows(context). Throws DataError as batch() does.
    void evaluation_batch(std::int64_t index, std::int64_t batches, std::int64_t batch, std::int64_t context,
                          std::int32_t* inputs, std::int32_t* targets) const;

    /// Windows side by side that fit into the split.
    std::int64_t windows(std::int64_t context) const { return (tokens_.size() - 1) / context; }

private:
    std::int64_t last_start(std::int64_t context) const;
    void copy_window(std::int64_t start, std::int64_t context, std::int32_t* inputs, std::int32_t* targets) const;

    TokenView tokens_;
    RandomStream starts_;
};

} // namespace ballast
