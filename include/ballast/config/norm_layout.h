#pragma once

#include "ballast/config/config.h"

#include <string>
#include <string_view>
#include <vector>

// What `model.norm` and the keys beside it come to: for every place of the network, the norm that stands there. The one
// place that knows; the model is built from it, `explain` describes it, and a key that makes no difference to it is a
// mistake.

namespace ballast {

/// What a kind of norm has and needs.
struct NormTraits {
    NormKind kind;
    std::string_view title; ///< in equations
    bool eps;
    bool gain;
    bool bias;
    bool own_bias; ///< `bias: auto` means on; otherwise off, or what `model.bias` says for a layernorm
    bool rows;     ///< statistics of one row: a positive factor on the row's input is lost
};

inline constexpr auto kNormTraits = std::to_array<NormTraits>({
    // kind,              title,       eps,   gain,  bias,  own,   rows
    {NormKind::none, "", false, false, false, false, false},
    {NormKind::layernorm, "LayerNorm", true, true, true, false, true},
    {NormKind::rmsnorm, "RMSNorm", true, true, false, false, true},
    {NormKind::batchnorm, "BatchNorm", true, true, true, true, false},
    {NormKind::scalenorm, "ScaleNorm", true, true, false, false, true},
    {NormKind::dyt, "DyT", false, true, true, true, false},
    {NormKind::derf, "Derf", false, true, true, true, false},
});

constexpr const NormTraits& norm_traits(NormKind kind) { return kNormTraits[static_cast<std::size_t>(kind)]; }

/// One norm. What its kind does not use has the value below, so equal norms compute the same.
struct NormSpec {
    NormKind kind = NormKind::none; ///< none: the identity
    double eps = 0;
    bool gain = false;
    bool bias = false;
    bool unit_offset = false;
    double partial = 1;
    double momentum = 0;
    double alpha = 0;
    double shift = 0;

    explicit operator bool() const { return kind != NormKind::none; }
    bool operator==(const NormSpec&) const = default;
};

/// The residual wrapper of one sublayer f:
///
///     y = post(skip_scale * x + branch * out(f(pre_scale * pre(x))))
///
/// where `branch` is what `model.residual` says.
struct SublayerNorms {
    Placement placement{};
    NormSpec pre, out, post;
    double pre_scale = 1; ///< 1 without a pre-norm
    double skip_scale = 1;

    /// Whether the same norms stand in the same slots, with the same scales, whatever the placement is called.
    bool same_as(const SublayerNorms& other) const {
        return pre == other.pre && out == other.out && post == other.post && pre_scale == other.pre_scale &&
               skip_scale == other.skip_scale;
    }
};

struct BlockNorms {
    SublayerNorms attention, ffn;

    bool same_as(const BlockNorms& other) const { return attention.same_as(other.attention) && ffn.same_as(other.ffn); }
};

/// All norms of a model.
struct NormLayout {
    NormSpec embedding;
    std::vector<BlockNorms> blocks;
    NormSpec final;
    NormSpec qk, v, inner;       ///< of every block
    double layerscale_start = 0; ///< of every branch; 0 for other residuals

    bool same_as(const NormLayout& other) const;
    /// Every norm, from the embedding to the output; identities left out.
    std::vector<NormSpec> norms() const;
};

/// `model` is resolved (load.h), and its keys go together.
NormLayout norm_layout(const ModelConfig& model);

/// Whether the last block leaves the stream without a norm, in a model that has norms: what `final_norm: auto` means.
bool wants_final_norm(const ModelConfig& model);

/// The norms of `to` whose eps is another than that of `from` in the same place, as "pre from 1e-05 to 0.001"; empty
/// when there are none. Both models are resolved. Places that only one of them has are left out, as are those where eps
/// is the least length in one (scalenorm) and added to a variance in the other.
std::string eps_changes(const ModelConfig& from, const ModelConfig& to);

/// Blocks, from the first, that entry `index` of `model.norm.layers` and those before it cover.
std::int64_t blocks_until(const ModelConfig& model, std::size_t index);

} // namespace ballast
