#include "ballast/nn/block.h"

#include "ballast/config/placement.h"

namespace ballast::inline BALLAST_PRECISION {

Residual::Residual(ParamTable& table, const std::string& name, const ModelConfig& config)
    : name(name), dropout(config.dropout) {
    const PlacementRow& slots = placement_row(config.norm.placement);
    if (slots.pre) pre = Norm(table, name + ".pre_norm", config.width, config.norm);
    if (slots.out) out = Norm(table, name + ".out_norm", config.width, config.norm);
    if (slots.post) post = Norm(table, name + ".post_norm", config.width, config.norm);
}

Attention::Attention(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init)
    : heads(config.heads), kv_heads(config.kv_heads), head_width(config.width / config.heads),
      rope(config.position == PositionKind::rope), alibi(config.position == PositionKind::alibi) {
    const std::int64_t packed = (heads + 2 * kv_heads) * head_width;
    qkv = Linear(table, name + ".qkv", config.width, packed, init.matrix(config.width, config.width), config.bias);
    output = Linear(table, name + ".output", config.width, config.width, init.branch_output(config.width, config.width),
                    config.bias);
}

Var Attention::operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table) const {
    const AttentionShape shape{sequences.batch, sequences.time, heads, kv_heads, head_width, alibi};
    Var packed = qkv(tape, x);
    if (rope) packed = ops::rope(tape, packed, rope_table, shape);
    return output(tape, ops::attention(tape, packed, shape));
}

namespace {
struct FfnForm {
    Activation activation;
    bool gated;
};

FfnForm form_of(FfnKind kind) {
    switch (kind) {
    case FfnKind::gelu: return {Activation::gelu, false};
    case FfnKind::gelu_tanh: return {Activation::gelu_tanh, false};
    case FfnKind::relu: return {Activation::relu, false};
    case FfnKind::relu2: return {Activation::relu2, false};
    case FfnKind::silu: return {Activation::silu, false};
    case FfnKind::swiglu: return {Activation::silu, true};
    case FfnKind::geglu: return {Activation::gelu, true};
    }
    return {};
}
} // namespace

Ffn::Ffn(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init)
    : activation(form_of(config.ffn.kind).activation), gated(form_of(config.ffn.kind).gated) {
    const std::int64_t hidden = config.ffn.width;
    input = Linear(table, name + ".input", config.width, gated ? 2 * hidden : hidden, init.matrix(config.width, hidden),
                   config.bias, gated ? Activation::identity : activation);
    output =
        Linear(table, name + ".output", hidden, config.width, init.branch_output(hidden, config.width), config.bias);
}

Var Ffn::operator()(Tape& tape, Var x) const {
    Var hidden = input(tape, x);
    if (gated) hidden = ops::glu(tape, hidden, activation);
    return output(tape, hidden);
}

Block::Block(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init)
    : attention_residual(table, name + ".attention", config), attention(table, name + ".attention", config, init),
      ffn_residual(table, name + ".ffn", config), ffn(table, name + ".ffn", config, init) {}

Var Block::operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table) const {
    x = attention_residual(tape, x, [&](Tape& t, Var in) { return attention(t, in, sequences, rope_table); });
    return ffn_residual(tape, x, ffn);
}

} // namespace ballast::inline BALLAST_PRECISION
