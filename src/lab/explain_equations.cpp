#include <algorithm>
#include <array>
#include <cmath>

#include "ballast/base/text.h"
#include "ballast/config/norm_layout.h"
#include "ballast/lab/explain.h"
#include "explain_text.h"

namespace ballast {

std::string rounded_number(double value) {
    const double scale = value == 0 ? 1 : std::pow(10.0, 3 - std::floor(std::log10(std::abs(value))));
    const double rounded = std::isfinite(scale) ? std::round(value * scale) / scale : value;
    std::string text = number_text(rounded);
    const std::size_t exponent = text.find('e');
    if (exponent != std::string::npos && text.size() == exponent + 4 && text[exponent + 2] == '0')
        text.erase(exponent + 2, 1);
    return text;
}

namespace {

/// "LayerNorm(x; eps=1e-5)"; `what` alone for the identity.
std::string normed(const NormSpec& norm, const std::string& what) {
    if (!norm) return what;
    std::string values;
    const auto add = [&](const std::string& value) { values += (values.empty() ? "; " : ", ") + value; };
    if (norm_traits(norm.kind).eps) add("eps=" + rounded_number(norm.eps));
    if (norm.kind == NormKind::dyt || norm.kind == NormKind::derf) add("α=" + rounded_number(norm.alpha));
    if (norm.kind == NormKind::derf) add("s=" + rounded_number(norm.shift));
    if (norm.partial != 1) add("p=" + rounded_number(norm.partial));
    return std::string(norm_traits(norm.kind).title) + "(" + what + values + ")";
}

std::string dropped(const ModelConfig& model, const std::string& what) {
    return model.dropout > 0 ? "dropout(" + what + "; p=" + rounded_number(model.dropout) + ")" : what;
}

/// What a branch is multiplied with, with the sign behind it.
std::string branch_factor(const ModelConfig& model) {
    switch (model.residual) {
    case ResidualKind::rezero:
    case ResidualKind::skipinit: return "a · ";
    case ResidualKind::layerscale: return "a ∘ ";
    case ResidualKind::plain:
    case ResidualKind::fixup: break;
    }
    return "";
}

/// One sublayer in its residual wrapper.
std::string residual_equation(const ModelConfig& model, const SublayerNorms& norms, const std::string& sublayer) {
    const bool scaled = norms.pre && model.norm.depth_scale == DepthScale::inv_sqrt;
    const std::string in = normed(norms.pre, "x") + (scaled ? " / √l" : "");
    const std::string branch = branch_factor(model) + dropped(model, normed(norms.out, sublayer + "(" + in + ")"));
    const std::string stream = norms.skip_scale == 1 ? "x" : rounded_number(norms.skip_scale) + " x";
    return "x ← " + normed(norms.post, stream + " + " + branch);
}

std::string embedding_equation(const ModelConfig& model, const NormLayout& layout) {
    std::string sum =
        model.embedding.scale == EmbeddingScale::sqrt_width ? "√" + std::to_string(model.width) + " " : "";
    sum += "E[token]";
    if (model.position == PositionKind::learned) sum += " + P[position]";
    if (model.position == PositionKind::sinusoidal) sum += " + sinusoids[position]";
    return "x = " + dropped(model, normed(layout.embedding, sum));
}

std::string rows_text(HeadNorm rows) { return rows == HeadNorm::head ? ", head by head" : ", all heads together"; }

std::string attention_meaning(const ModelConfig& model, const NormLayout& layout) {
    const std::int64_t head_width = model.width / model.heads;
    std::string logits = "Q Kᵀ / √" + std::to_string(head_width);
    if (model.logit_softcap > 0) {
        const std::string cap = rounded_number(model.logit_softcap);
        logits = cap + " tanh(" + logits + " / " + cap + ")";
    }
    std::string text = "Attention: causal softmax(" + logits + ") V, " + std::to_string(model.heads) +
                       " heads of width " + std::to_string(head_width);
    if (model.kv_heads != model.heads) text += ", " + std::to_string(model.kv_heads) + " key and value heads";
    if (layout.qk) text += "; Q ← " + normed(layout.qk, "Q") + " and K likewise" + rows_text(model.qk_norm);
    if (layout.v) text += "; V ← " + normed(layout.v, "V") + rows_text(model.v_norm);
    if (model.position == PositionKind::rope)
        text += "; Q and K rotated (RoPE, theta " + rounded_number(model.rope.theta) + ")";
    if (model.position == PositionKind::alibi) text += "; a penalty linear in the distance (ALiBi)";
    if (model.head_scale) text += "; each head's output times a learned scalar, 1 at the start";
    return text;
}

std::string ffn_meaning(const ModelConfig& model, const NormLayout& layout) {
    const bool gated = model.ffn.kind == FfnKind::swiglu || model.ffn.kind == FfnKind::geglu;
    const std::string activation = model.ffn.kind == FfnKind::swiglu  ? "silu"
                                   : model.ffn.kind == FfnKind::geglu ? "gelu"
                                                                      : std::string(to_string(model.ffn.kind));
    const std::string hidden = gated ? activation + "(x Gᵀ) ∘ x Uᵀ" : activation + "(x Uᵀ)";
    const std::string in = layout.inner ? normed(layout.inner, hidden) : gated ? "(" + hidden + ")" : hidden;
    return "FFN: " + in + " Wᵀ, hidden width " + std::to_string(model.ffn.width);
}

std::string residual_meaning(const ModelConfig& model, const NormLayout& layout) {
    switch (model.residual) {
    case ResidualKind::rezero: return "a: a learned scalar for both branches of a block, 0 at the start (ReZero)";
    case ResidualKind::skipinit: return "a: a learned scalar for every branch, 0 at the start (SkipInit)";
    case ResidualKind::layerscale:
        return "a: a learned vector for every branch, " + rounded_number(layout.layerscale_start) +
               " at the start (LayerScale)";
    case ResidualKind::fixup:
        return "Fixup: the last matrix of every branch is 0 at the start, the one before scaled by depth";
    case ResidualKind::plain: break;
    }
    return "";
}

std::string formula(const NormSpec& norm) {
    switch (norm.kind) {
    case NormKind::layernorm: return "(x - mean) / √(variance + eps), per token";
    case NormKind::rmsnorm:
        return norm.partial == 1 ? "x / √(mean(x²) + eps), per token"
                                 : "x / √(mean(x²) + eps), per token, the mean over the first p of the features";
    case NormKind::batchnorm:
        return "(x - mean) / √(variance + eps), per feature, over batch and time in training and from running "
               "statistics in evaluation";
    case NormKind::scalenorm: return "g x / max(|x|, eps), per token, g one learned scalar";
    case NormKind::dyt: return "tanh(α x), α a learned scalar with this start";
    case NormKind::derf: return "erf(α x + s), α and s learned scalars with this start";
    case NormKind::none: break;
    }
    return "";
}

std::string norm_meaning(const NormSpec& norm) {
    const char* gain = norm.kind == NormKind::scalenorm || !norm.gain ? "" : ", times a gain";
    return std::string(norm_traits(norm.kind).title) + ": " + formula(norm) +
           (norm.unit_offset ? ", times 1 + a gain" : gain) + (norm.bias ? ", plus a bias" : "");
}

std::vector<std::string> norm_meanings(const NormLayout& layout) {
    std::vector<std::string> out;
    for (const NormSpec& norm : layout.norms()) {
        std::string meaning = norm_meaning(norm);
        if (std::find(out.begin(), out.end(), meaning) == out.end()) out.push_back(std::move(meaning));
    }
    return out;
}

/// The equations of one block.
struct BlockText {
    std::string attention, ffn;
    bool operator==(const BlockText&) const = default;
};

/// Those of block `block`, counted from 1; empty beyond the depth.
BlockText block_text(const Equations& equations, std::int64_t block) {
    for (const BlockEquations& group : equations.blocks)
        if (block >= group.first && block <= group.last) return {group.attention, group.ffn};
    return {};
}

std::string name_of(const std::string& meaning) { return meaning.substr(0, meaning.find(':')); }

/// The meanings of one name, joined: norms of one kind may come with and without a gain.
std::string meaning_of(const Equations& equations, const std::string& name) {
    std::string text;
    for (const std::string& meaning : equations.meanings)
        if (name_of(meaning) == name) text += (text.empty() ? "" : "; ") + meaning;
    return text;
}

void add_block_differences(const Equations& a, const Equations& b, std::vector<EquationDifference>& out) {
    const std::int64_t depth = std::max(a.blocks.back().last, b.blocks.back().last);
    for (std::int64_t first = 1, last = 1; first <= depth; first = last + 1) {
        const BlockText in_a = block_text(a, first), in_b = block_text(b, first);
        for (last = first; last < depth; ++last)
            if (block_text(a, last + 1) != in_a || block_text(b, last + 1) != in_b) break;
        const std::string blocks = first == last ? "block " + std::to_string(first)
                                                 : "blocks " + std::to_string(first) + " to " + std::to_string(last);
        if (in_a.attention != in_b.attention) out.push_back({blocks + ", attention", in_a.attention, in_b.attention});
        if (in_a.ffn != in_b.ffn) out.push_back({blocks + ", ffn", in_a.ffn, in_b.ffn});
    }
}

} // namespace

Equations equations_of(const ModelConfig& model) {
    const NormLayout layout = norm_layout(model);
    Equations out;
    out.embedding = embedding_equation(model, layout);
    for (std::size_t i = 0; i < layout.blocks.size(); ++i) {
        const auto number = static_cast<std::int64_t>(i) + 1;
        BlockEquations block{number, number, residual_equation(model, layout.blocks[i].attention, "Attention"),
                             residual_equation(model, layout.blocks[i].ffn, "FFN")};
        const bool same =
            !out.blocks.empty() && out.blocks.back().attention == block.attention && out.blocks.back().ffn == block.ffn;
        if (same)
            out.blocks.back().last = number;
        else
            out.blocks.push_back(std::move(block));
    }
    out.output = "logits = " + normed(layout.final, "x") + (model.tie_embeddings ? " Eᵀ" : " Hᵀ");
    out.meanings = {attention_meaning(model, layout), ffn_meaning(model, layout)};
    for (std::string& meaning : norm_meanings(layout))
        out.meanings.push_back(std::move(meaning));
    if (std::string meaning = residual_meaning(model, layout); !meaning.empty()) out.meanings.push_back(meaning);
    if (model.norm.depth_scale == DepthScale::inv_sqrt) out.meanings.emplace_back("l: the number of the block, from 1");
    return out;
}

Comparison compare_configs(const Config& a, const Config& b) {
    Comparison out;
    out.keys = diff(a, b);
    const Equations in_a = equations_of(a.model), in_b = equations_of(b.model);
    const auto add = [&](const std::string& where, const std::string& text_a, const std::string& text_b) {
        if (text_a != text_b) out.equations.push_back({where, text_a, text_b});
    };
    add("embedding", in_a.embedding, in_b.embedding);
    add_block_differences(in_a, in_b, out.equations);
    add("output", in_a.output, in_b.output);
    std::vector<std::string> names;
    for (const Equations* equations : {&in_a, &in_b})
        for (const std::string& meaning : equations->meanings)
            if (std::find(names.begin(), names.end(), name_of(meaning)) == names.end())
                names.push_back(name_of(meaning));
    for (const std::string& name : names)
        add(name, meaning_of(in_a, name), meaning_of(in_b, name));

    const std::vector<NormWarning> of_a = norm_warnings(a), of_b = norm_warnings(b);
    const auto missing = [](const std::vector<NormWarning>& list, const std::vector<NormWarning>& other) {
        std::vector<NormWarning> only;
        for (const NormWarning& warning : list)
            if (std::find(other.begin(), other.end(), warning) == other.end()) only.push_back(warning);
        return only;
    };
    out.only_a = missing(of_a, of_b);
    out.only_b = missing(of_b, of_a);
    return out;
}

} // namespace ballast
