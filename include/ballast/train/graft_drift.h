#pragma once

#include <cstdint>
#include <vector>

#include "ballast/data/dataset.h"
#include "ballast/nn/transformer.h"

namespace ballast {

/// How far the residual stream behind a block has moved.
struct BlockDrift {
    double change = 0; ///< ||new - old|| / ||old|| over all tokens
    double cosine = 0; ///< of a token's two vectors, the mean over tokens
    double rms_before = 0;
    double rms_after = 0;
};

/// What two models make of the same tokens. Not finite where a model is not.
struct GraftDrift {
    std::int64_t tokens = 0; ///< that were compared
    double mean_logit = 0;   ///< mean |new - old| over all logits
    double max_logit = 0;
    double kl = 0; ///< mean over tokens of KL(old || new), nats
    double loss_before = 0;
    double loss_after = 0;
    std::vector<BlockDrift> blocks; ///< those that both models have, by their number

    /// Whether the two give the same logits, to the bit.
    bool is_zero() const { return mean_logit == 0 && max_logit == 0; }
};

struct DriftBatches {
    std::int64_t batch;   ///< sequences at once
    std::int64_t batches; ///< spread over the validation split, or the training split where there is none
    std::int64_t time;    ///< tokens in a sequence; at most either model's context
};

/// Runs both models, in eval mode, on the same batches. Their vocabularies are of one size.
GraftDrift measure_drift(const Transformer& before, const Transformer& after, const Dataset& data,
                         const DriftBatches& batches);

} // namespace ballast
