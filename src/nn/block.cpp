#include "ballast/nn/block.h"

#include <algorithm>

#include "ballast/base/error.h"

namespace ballast::inline BALLAST_PRECISION {

Residual::Residual(ParamTable& table, const std::string& name, const SublayerNorms& norms, Parameter branch_scale,
                   const ModelConfig& config)
    : pre(table, name + ".pre_norm", config.width, norms.pre), out(table, name + ".out_norm", config.width, norms.out),
      post(table, name + ".post_norm", config.width, norms.post), pre_scale(norms.pre_scale),
      skip_scale(norms.skip_scale), scale(branch_scale), dropout(config.dropout) {}

namespace {
/// A norm of `count` heads' queries, keys or values.
Norm head_norm(ParamTable& table, const std::string& name, const NormSpec& spec, HeadNorm rows, std::int64_t count,
               std::int64_t head_width) {
    return {table, name, rows == HeadNorm::full ? count * head_width : head_width, spec};
}
} // namespace

Attention::Attention(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
                     const InitRules& init)
    : qk_rows(config.qk_norm), v_rows(config.v_norm), heads(config.heads), kv_heads(config.kv_heads),
      head_width(config.width / config.heads), logit_softcap(config.logit_softcap),
      rope(config.position == PositionKind::rope), alibi(config.position == PositionKind::alibi) {
    const std::int64_t queries_and_keys = (heads + kv_heads) * head_width;
    qkv = Linear(table, name + ".qkv", config.width, queries_and_keys + kv_heads * head_width,
                 init.qkv(queries_and_keys * config.width), config.bias);
    q_norm = head_norm(table, name + ".q_norm", norms.qk, qk_rows, heads, head_width);
    k_norm = head_norm(table, name + ".k_norm", norms.qk, qk_rows, kv_heads, head_width);
    v_norm = head_norm(table, name + ".v_norm", norms.v, v_rows, kv_heads, head_width);
    if (config.head_scale)
        head_scale = table.add(name + ".head_scale", {heads}, ParamInit::constant(1), DecayGroup::no_decay);
    output = Linear(table, name + ".output", config.width, config.width, init.branch_output(config.width, config.width),
                    config.bias);
}

Var Attention::normalized(Tape& tape, Var packed) const {
    const auto part = [&](const Norm& norm, HeadNorm rows, std::int64_t first_head, std::int64_t count) {
        const Var x = ops::columns(tape, packed, first_head * head_width, count * head_width);
        if (!norm.spec || rows != HeadNorm::head) return norm(tape, x);
        const std::int64_t tokens = tape.shape(x).rows();
        const Var y = norm(tape, ops::reshape(tape, x, {tokens * count, head_width}));
        return ops::reshape(tape, y, {tokens, count * head_width});
    };
    const Var q = part(q_norm, qk_rows, 0, heads);
    const Var k = part(k_norm, qk_rows, heads, kv_heads);
    const Var v = part(v_norm, v_rows, heads + kv_heads, kv_heads);
    return ops::concat_columns(tape, {q, k, v});
}

Var Attention::operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table,
                          const PastTokens& past) const {
    AttentionShape shape{sequences.batch, sequences.time, heads, kv_heads, head_width, alibi, logit_softcap};
    Var packed = qkv(tape, x);
    if (q_norm.spec || v_norm.spec) packed = normalized(tape, packed);
    if (rope) packed = ops::rope(tape, packed, rope_table, shape);
    if (past.packed != nullptr) {
        if (tape.mode() != Mode::eval || sequences.batch != 1)
            throw Error("a past of tokens is for one sequence on a tape in eval mode");
        const std::int64_t width = shape.packed_width();
        std::copy_n(tape.data(packed), sequences.time * width, past.packed + past.length * width);
        shape.queries = sequences.time;
        shape.time = past.length + sequences.time;
        packed = tape.constant({shape.time, width}, past.packed);
    }
    Var mixed = ops::attention(tape, packed, shape);
    if (head_scale) mixed = ops::head_scale(tape, mixed, head_scale(tape));
    return output(tape, mixed);
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

Ffn::Ffn(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
         const InitRules& init)
    : activation(form_of(config.ffn.kind).activation), gated(form_of(config.ffn.kind).gated) {
    const std::int64_t hidden = config.ffn.width;
    input = Linear(table, name + ".input", config.width, gated ? 2 * hidden : hidden, init.ffn_input(hidden, gated),
                   config.bias, gated ? Activation::identity : activation);
    inner_norm = Norm(table, name + ".inner_norm", hidden, norms.inner);
    output =
        Linear(table, name + ".output", hidden, config.width, init.branch_output(hidden, config.width), config.bias);
}

Var Ffn::operator()(Tape& tape, Var x) const {
    Var hidden = input(tape, x);
    if (gated) hidden = ops::glu(tape, hidden, activation);
    return output(tape, inner_norm(tape, hidden));
}

namespace {
/// The factor of a branch as a parameter of its own; none for residuals that have none.
Parameter branch_scale(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms) {
    const auto add = [&](std::int64_t size, double value) {
        return table.add(name + ".branch_scale", {size}, ParamInit::constant(value), DecayGroup::no_decay);
    };
    if (config.residual == ResidualKind::skipinit) return add(1, 0);
    if (config.residual == ResidualKind::layerscale) return add(config.width, norms.layerscale_start);
    return {};
}
} // namespace

Block::Block(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
             std::int64_t index) {
    const BlockNorms& here = norms.blocks.at(static_cast<std::size_t>(index));
    const InitRules init(config, index);
    Parameter shared;
    if (config.residual == ResidualKind::rezero)
        shared = table.add(name + ".residual_scale", {1}, ParamInit::constant(0), DecayGroup::no_decay);
    const auto scale_of = [&](const std::string& sublayer) {
        return shared ? shared : branch_scale(table, sublayer, config, norms);
    };
    attention_residual = Residual(table, name + ".attention", here.attention, scale_of(name + ".attention"), config);
    attention = Attention(table, name + ".attention", config, norms, init);
    ffn_residual = Residual(table, name + ".ffn", here.ffn, scale_of(name + ".ffn"), config);
    ffn = Ffn(table, name + ".ffn", config, norms, init);
}

Var Block::operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table, const PastTokens& past) const {
    x = attention_residual(tape, x, [&](Tape& t, Var in) { return attention(t, in, sequences, rope_table, past); });
    return ffn_residual(tape, x, ffn);
}

} // namespace ballast::inline BALLAST_PRECISION
