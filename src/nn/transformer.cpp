#include "ballast/nn/transformer.h"

#include <cmath>
#include <string>

#include "ballast/base/error.h"

namespace ballast::inline BALLAST_PRECISION {

std::vector<real> sinusoidal_positions(std::int64_t time, std::int64_t width) {
    std::vector<real> table(static_cast<std::size_t>(time * width));
    for (std::int64_t t = 0; t < time; ++t)
        for (std::int64_t i = 0; i < width; ++i) {
            const double angle = static_cast<double>(t) *
                                 std::pow(10000.0, -static_cast<double>(i - i % 2) / static_cast<double>(width));
            table[static_cast<std::size_t>(t * width + i)] =
                static_cast<real>(i % 2 == 0 ? std::sin(angle) : std::cos(angle));
        }
    return table;
}

Transformer::Transformer(ParamTable& table, const ModelConfig& config, std::int64_t vocabulary)
    : vocabulary_(vocabulary), context_(config.context), width_(config.width), dropout_(config.dropout),
      embedding_scale_(
          config.embedding.scale == EmbeddingScale::sqrt_width ? std::sqrt(static_cast<double>(config.width)) : 1),
      rope_(config.position == PositionKind::rope) {
    const InitRules init(config);
    const NormLayout norms = norm_layout(config);
    tokens_ = table.add("embedding.tokens", {vocabulary, width_}, init.embedding(), DecayGroup::decay);
    if (config.position == PositionKind::learned)
        positions_ = table.add("embedding.positions", {context_, width_}, init.embedding(), DecayGroup::decay);
    if (config.position == PositionKind::sinusoidal) fixed_positions_ = sinusoidal_positions(context_, width_);
    if (rope_) {
        const std::int64_t head_width = width_ / config.heads;
        rope_table_.resize(static_cast<std::size_t>(context_ * head_width));
        rope_table(rope_table_.data(), context_, head_width, config.rope.theta);
    }
    embedding_norm_ = Norm(table, "embedding_norm", width_, norms.embedding);
    for (std::int64_t layer = 0; layer < config.layers; ++layer)
        blocks_.emplace_back(table, "blocks." + std::to_string(layer), config, norms, layer);
    final_norm_ = Norm(table, "final_norm", width_, norms.final);
    head_ = config.tie_embeddings
                ? table.tie("head.weight", tokens_)
                : table.add("head.weight", {vocabulary, width_}, init.matrix(width_, vocabulary), DecayGroup::decay);
}

TokenCache::TokenCache(const Transformer& model)
    : layer_size_(model.context_ * model.blocks_.front().attention.qkv.weight.param().shape[0]),
      rows_(memory_.allocate<real>(static_cast<std::int64_t>(model.blocks_.size()) * layer_size_)) {}

Var Transformer::stream(Tape& tape, const TokenBatch& batch, const TokenCache* cache) const {
    const std::int64_t start = cache != nullptr ? cache->length() : 0;
    if (start + batch.shape.time > context_)
        throw ShapeError("a sequence of " + std::to_string(start + batch.shape.time) +
                         " tokens is longer than the context of " + std::to_string(context_));
    // Tables of positions, from that of the first token on.
    const auto from_start = [&](const real* table, std::int64_t width) {
        return tape.constant({context_ - start, width}, table + start * width);
    };
    Var positions = positions_(tape);
    if (start > 0 && positions) positions = from_start(tape.data(positions), width_);
    if (!fixed_positions_.empty()) positions = from_start(fixed_positions_.data(), width_);
    const Var angles =
        rope_ ? from_start(rope_table_.data(), static_cast<std::int64_t>(rope_table_.size()) / context_) : Var{};

    Var x;
    {
        const Tape::Site site(tape, "embedding");
        x = ops::embedding(tape, tokens_(tape), positions, batch.tokens, batch.shape.time, embedding_scale_);
        x = ops::dropout(tape, embedding_norm_(tape, x), dropout_);
    }
    for (std::size_t i = 0; i < blocks_.size(); ++i)
        x = blocks_[i](tape, x, batch.shape, angles,
                       cache != nullptr ? cache->layer(static_cast<std::int64_t>(i)) : PastTokens{});
    return x;
}

Var Transformer::logits(Tape& tape, Var x) const {
    x = final_norm_(tape, x);
    const Tape::Site site(tape, "head");
    return ops::linear(tape, x, head_(tape));
}

Var Transformer::operator()(Tape& tape, const TokenBatch& batch) const {
    return logits(tape, stream(tape, batch, nullptr));
}

Var Transformer::operator()(Tape& tape, std::span<const std::int32_t> tokens, TokenCache& cache) const {
    const auto count = static_cast<std::int64_t>(tokens.size());
    const Var x = stream(tape, {tokens, {1, count}}, &cache);
    cache.length_ += count;
    return logits(tape, ops::slice(tape, x, {count - 1, 1, 0, width_}));
}

} // namespace ballast::inline BALLAST_PRECISION
