#include "ballast/config/norm_layout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "ballast/base/text.h"

namespace ballast {

namespace {

bool is_on(Switch own, bool above) { return own == Switch::automatic ? above : own == Switch::on; }

/// The bias of norms whose config leaves it to their kind.
bool automatic_bias(const ModelConfig& model, NormKind kind) {
    return norm_traits(kind).own_bias || (kind == NormKind::layernorm && model.bias);
}

NormSpec norm_spec(const ModelConfig& model, const OwnNormConfig& own, bool in_attention = false) {
    const NormConfig& norm = model.norm;
    const bool same_kind = own.kind == OwnNormKind::automatic;
    NormSpec spec;
    spec.kind = same_kind ? norm.kind : static_cast<NormKind>(own.kind);
    const NormTraits& traits = norm_traits(spec.kind);
    const bool bias = same_kind ? is_on(norm.bias, automatic_bias(model, spec.kind)) : automatic_bias(model, spec.kind);
    if (traits.eps) spec.eps = own.eps > 0 ? own.eps : norm.eps;
    spec.gain = traits.gain && (spec.kind == NormKind::scalenorm || is_on(own.gain, norm.gain));
    spec.bias = traits.bias && is_on(own.bias, bias);
    if (spec.kind == NormKind::rmsnorm) {
        spec.unit_offset = spec.gain && norm.unit_offset;
        spec.partial = norm.partial;
    }
    if (spec.kind == NormKind::batchnorm) spec.momentum = norm.momentum;
    if (spec.kind == NormKind::dyt || spec.kind == NormKind::derf)
        spec.alpha = in_attention && norm.attention_alpha > 0 ? norm.attention_alpha : norm.alpha;
    if (spec.kind == NormKind::derf) spec.shift = norm.shift;
    return spec;
}

SublayerNorms sublayer_norms(const ModelConfig& model, Placement placement, std::int64_t block, bool attention) {
    const PlacementRow& row = placement_row(placement);
    SublayerNorms norms;
    norms.placement = placement;
    if (row.pre) norms.pre = norm_spec(model, model.norm.pre, attention);
    if (row.out) norms.out = norm_spec(model, model.norm.out, attention);
    if (row.post) norms.post = norm_spec(model, model.norm.post, attention);
    if (norms.pre && model.norm.depth_scale == DepthScale::inv_sqrt)
        norms.pre_scale = 1 / std::sqrt(static_cast<double>(block + 1));
    if (norms.pre || norms.out || norms.post) norms.skip_scale = row.skip.at(model.layers);
    return norms;
}

/// CaiT, 2103.17239, section 2.
double layerscale_start(const ModelConfig& model) {
    if (model.residual != ResidualKind::layerscale) return 0;
    if (model.layerscale_init > 0) return model.layerscale_init;
    return model.layers <= 18 ? 0.1 : model.layers <= 24 ? 1e-5 : 1e-6;
}

std::vector<BlockNorms> block_norms(const ModelConfig& model) {
    const NormConfig& norm = model.norm;
    const Placement attn = placement_or(norm.attn, norm.placement), ffn = placement_or(norm.ffn, norm.placement);
    std::vector<BlockNorms> blocks;
    std::size_t entry = 0;
    for (std::int64_t block = 0; block < model.layers; ++block) {
        while (entry < norm.layers.size() && block >= blocks_until(model, entry))
            ++entry;
        Placement attn_here = attn, ffn_here = ffn;
        if (entry < norm.layers.size()) {
            const DepthPlacementConfig& here = norm.layers[entry];
            attn_here = placement_or(here.attn, placement_or(here.placement, attn));
            ffn_here = placement_or(here.ffn, placement_or(here.placement, ffn));
        }
        blocks.push_back(
            {sublayer_norms(model, attn_here, block, true), sublayer_norms(model, ffn_here, block, false)});
    }
    return blocks;
}

bool leaves_stream_bare(const std::vector<BlockNorms>& blocks) {
    if (blocks.back().ffn.post) return false;
    return std::any_of(blocks.begin(), blocks.end(), [](const BlockNorms& block) {
        const auto wants = [](const SublayerNorms& norms) {
            return (norms.pre || norms.out) && placement_row(norms.placement).final_norm;
        };
        return wants(block.attention) || wants(block.ffn);
    });
}

} // namespace

bool NormLayout::same_as(const NormLayout& other) const {
    const auto same = [](const BlockNorms& a, const BlockNorms& b) { return a.same_as(b); };
    return embedding == other.embedding && final == other.final && qk == other.qk && v == other.v &&
           inner == other.inner && layerscale_start == other.layerscale_start &&
           std::equal(blocks.begin(), blocks.end(), other.blocks.begin(), other.blocks.end(), same);
}

std::vector<NormSpec> NormLayout::norms() const {
    std::vector<NormSpec> all = {embedding};
    for (const BlockNorms& block : blocks)
        for (const NormSpec& norm : {block.attention.pre, qk, qk, v, block.attention.out, block.attention.post,
                                     block.ffn.pre, inner, block.ffn.out, block.ffn.post})
            all.push_back(norm);
    all.push_back(final);
    std::erase_if(all, [](const NormSpec& norm) { return !norm; });
    return all;
}

namespace {
/// One norm for each place, by the name that the place has in `model.norm`; an identity where there is none. All blocks
/// that have a norm in a place have the same eps there.
std::array<std::pair<std::string_view, NormSpec>, 8> norms_by_place(const NormLayout& layout) {
    NormSpec pre, out, post;
    for (const BlockNorms& block : layout.blocks)
        for (const SublayerNorms* norms : {&block.attention, &block.ffn}) {
            if (norms->pre) pre = norms->pre;
            if (norms->out) out = norms->out;
            if (norms->post) post = norms->post;
        }
    return {{{"pre", pre},
             {"out", out},
             {"post", post},
             {"final", layout.final},
             {"embedding", layout.embedding},
             {"qk", layout.qk},
             {"v", layout.v},
             {"inner", layout.inner}}};
}
} // namespace

std::string eps_changes(const ModelConfig& from, const ModelConfig& to) {
    const auto before = norms_by_place(norm_layout(from)), after = norms_by_place(norm_layout(to));
    std::string text;
    for (std::size_t i = 0; i < before.size(); ++i) {
        const NormSpec &a = before[i].second, &b = after[i].second;
        const bool comparable = norm_traits(a.kind).eps && norm_traits(b.kind).eps &&
                                (a.kind == NormKind::scalenorm) == (b.kind == NormKind::scalenorm);
        if (!comparable || a.eps == b.eps) continue;
        text += (text.empty() ? "" : ", ") + std::string(before[i].first) + " from " + number_text(a.eps) + " to " +
                number_text(b.eps);
    }
    return text;
}

std::int64_t blocks_until(const ModelConfig& model, std::size_t index) {
    // The share of a depth that it divides may come out a rounding below the whole number.
    constexpr double kRounding = 1e-9;
    return static_cast<std::int64_t>(
        std::floor(model.norm.layers[index].until * static_cast<double>(model.layers) + kRounding));
}

bool wants_final_norm(const ModelConfig& model) { return leaves_stream_bare(block_norms(model)); }

NormLayout norm_layout(const ModelConfig& model) {
    NormLayout layout;
    layout.blocks = block_norms(model);
    if (model.embedding.norm) layout.embedding = norm_spec(model, model.norm.embedding);
    const bool final = is_on(model.final_norm, leaves_stream_bare(layout.blocks));
    if (final) layout.final = norm_spec(model, model.norm.final);
    if (model.qk_norm != HeadNorm::none) layout.qk = norm_spec(model, model.norm.qk, true);
    if (model.v_norm != HeadNorm::none) layout.v = norm_spec(model, model.norm.v, true);
    if (model.ffn.inner_norm) layout.inner = norm_spec(model, model.norm.inner);
    layout.layerscale_start = layerscale_start(model);
    return layout;
}

} // namespace ballast
