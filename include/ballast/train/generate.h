#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "ballast/nn/transformer.h"

namespace ballast {

struct SampleOptions {
    double temperature = 1; ///< logits are divided by it; 0 takes the likeliest token
    std::int64_t top_k = 0; ///< only the k likeliest tokens; 0: all
    double top_p = 1;       ///< only the likeliest tokens that together have this probability (Holtzman, 1904.09751)
    std::uint64_t seed = 1; ///< the text is a function of model, prompt and seed
};

/// Draws `count` tokens after `prompt` (at least one token; the model sees the last `context` of all) and calls
/// `emit(token)` for each as soon as it is known; stops early when emit returns false. Throws UsageError for an empty
/// prompt or options out of range, DataError for ids outside the vocabulary, Error when the logits are not finite.
///
/// Up to the context's length a token costs one row of the model, as the others are kept; beyond it every token moves
/// all others to other positions, and costs a whole pass. The text is the same as if every token did.
void generate(Tape& tape, const Transformer& model, std::span<const std::int32_t> prompt, std::int64_t count,
              const SampleOptions& options, const std::function<bool(std::int32_t)>& emit);

} // namespace ballast
