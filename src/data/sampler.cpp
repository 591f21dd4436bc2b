#include "ballast/data/sampler.h"

#include <string>

#include "ballast/base/error.h"

namespace ballast {

namespace {
constexpr std::uint64_t kRowBits = 24; // of the index of a random number; the step has the others
}

std::int64_t Sampler::last_start(std::int64_t context) const {
    const std::int64_t last = tokens_.size() - context - 1;
    if (last < 0)
        throw DataError("a split of " + std::to_string(tokens_.size()) + " tokens is too short for a context of " +
                        std::to_string(context) + "; expected at least " + std::to_string(context + 1));
    return last;
}

void Sampler::copy_window(std::int64_t start, std::int64_t context, std::int32_t* inputs, std::int32_t* targets) const {
    for (std::int64_t i = 0; i < context; ++i) {
        inputs[i] = tokens_[start + i];
        targets[i] = tokens_[start + i + 1];
    }
}

void Sampler::batch(std::int64_t step, std::int64_t batch, std::int64_t context, std::int32_t* inputs,
                    std::int32_t* targets) const {
    const auto starts = static_cast<std::uint64_t>(last_start(context)) + 1;
    for (std::int64_t row = 0; row < batch; ++row) {
        const std::uint64_t index = (static_cast<std::uint64_t>(step) << kRowBits) | static_cast<std::uint64_t>(row);
        const auto start = static_cast<std::int64_t>(starts_.below(index, starts));
        copy_window(start, context, inputs + row * context, targets + row * context);
    }
}

void Sampler::evaluation_batch(std::int64_t index, std::int64_t batches, std::int64_t batch, std::int64_t context,
                               std::int32_t* inputs, std::int32_t* targets) const {
    const std::int64_t last = last_start(context);
    const std::int64_t gaps = batches * batch - 1;
    for (std::int64_t row = 0; row < batch; ++row) {
        const std::int64_t window = index * batch + row;
        // last × window / gaps, split so that no product exceeds 64 bits
        const std::int64_t start = gaps == 0 ? 0 : last / gaps * window + last % gaps * window / gaps;
        copy_window(start, context, inputs + row * context, targets + row * context);
    }
}

} // namespace ballast
