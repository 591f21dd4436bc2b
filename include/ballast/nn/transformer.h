#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/nn/block.h"

namespace ballast::inline BALLAST_PRECISION {

/// Token ids of `shape.batch` sequences of `shape.time` tokens each, one sequence after the other.
struct TokenBatch {
    std::span<const std::int32_t> tokens;
    SequenceShape shape;
};

class Transformer;

/// What a model keeps of the tokens of one sequence, to go on with the next without computing them again. Memory for
/// `context` tokens, which the system provides as they come.
class TokenCache {
public:
    explicit TokenCache(const Transformer& model);

    /// Number of tokens seen.
    std::int64_t length() const { return length_; }
    void clear() { length_ = 0; }

private:
    friend class Transformer;
    PastTokens layer(std::int64_t index) const { return {rows_ + index * layer_size_, length_}; }

    Arena memory_;
    std::int64_t layer_size_;
    std::int64_t length_ = 0;
    real* rows_; ///< [layers, context, packed queries, keys and values]
};

/// A decoder-only language model: embedding, blocks, final norm, output layer. Parameters are called
/// embedding.tokens [vocabulary, width], embedding.positions [context, width] (position `learned`), embedding_norm.*,
/// blocks.I.*, final_norm.* and head.weight [vocabulary, width], which is a second name of embedding.tokens when tied.
class Transformer {
public:
    /// Adds the parameters to `table`, which must outlive the model. `config` is resolved (config/load.h).
    Transformer(ParamTable& table, const ModelConfig& config, std::int64_t vocabulary);

    /// Logits [batch * time, vocabulary]. Throws ShapeError for sequences longer than the context.
    Var operator()(Tape& tape, const TokenBatch& batch) const;

    /// Logits [1, vocabulary] after the last of `tokens`, which follow those that `cache` has seen, and are seen then:
    /// to the bit what a pass over all of them gives for its last row. On a tape in eval mode. Throws ShapeError when
    /// the cache's tokens and these are more than the context.
    Var operator()(Tape& tape, std::span<const std::int32_t> tokens, TokenCache& cache) const;

    std::int64_t vocabulary() const { return vocabulary_; }
    std::int64_t context() const { return context_; }

private:
    friend class TokenCache;
    /// The residual stream behind the last block. `cache` may be null.
    Var stream(Tape& tape, const TokenBatch& batch, const TokenCache* cache) const;

    std::int64_t vocabulary_;
    std::int64_t context_;
    std::int64_t width_;
    double dropout_;
    double embedding_scale_;
    bool rope_;
    Parameter tokens_;
    Parameter positions_;
    std::vector<real> fixed_positions_; ///< sinusoids [context, width]
    std::vector<real> rope_table_;      ///< [context, head width]
    Norm embedding_norm_;
    std::vector<Block> blocks_;
    Norm final_norm_;
    Parameter head_;
};

/// Sines at even columns and cosines at odd ones, of position * 10000^(-2i/width) (Vaswani et al. 2017, section 3.5):
/// [time, width].
std::vector<real> sinusoidal_positions(std::int64_t time, std::int64_t width);

} // namespace ballast::inline BALLAST_PRECISION
