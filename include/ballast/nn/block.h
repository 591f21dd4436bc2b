#pragma once

#include <string>

#include "ballast/config/config.h"
#include "ballast/nn/init.h"
#include "ballast/nn/linear.h"
#include "ballast/nn/norm.h"

namespace ballast::inline BALLAST_PRECISION {

/// Extents of the activations of one pass: `batch` sequences of `time` tokens, one row of a matrix per token.
struct SequenceShape {
    std::int64_t batch;
    std::int64_t time;
};

/// What the attention of one layer has seen of a sequence before this pass: the packed queries, keys and values of
/// `length` tokens, in memory with room for those of this pass, which are added. No memory: a pass begins the sequence.
struct PastTokens {
    real* packed = nullptr;
    std::int64_t length = 0;
};

/// The residual wrapper around every sublayer f, with three slots for norms (config/norm_layout.h):
///
///     y = post(skip_scale * x + scale * dropout(out(f(pre_scale * pre(x)))))
///
/// `scale` is a parameter where `model.residual` has one, and otherwise 1.
struct Residual {
    std::string name; ///< of the sublayer
    Norm pre;
    Norm out;
    Norm post;
    double pre_scale = 1;
    double skip_scale = 1;
    Parameter scale; ///< [1] or [width]
    double dropout = 0;

    Residual() = default;
    /// Norms are called NAME.pre_norm, NAME.out_norm and NAME.post_norm. `branch_scale` may be unset.
    Residual(ParamTable& table, const std::string& name, const SublayerNorms& norms, Parameter branch_scale,
             const ModelConfig& config);

    /// `sublayer` is called as Var(Tape&, Var).
    template <class Sublayer>
    Var operator()(Tape& tape, Var x, Sublayer&& sublayer) const {
        const Tape::Site site(tape, name);
        Var in = pre(tape, x);
        if (pre_scale != 1) in = ops::affine(tape, in, pre_scale, 0);
        const Var branch = ops::dropout(tape, out(tape, sublayer(tape, in)), dropout);
        const Var sum = scale ? ops::residual_scaled(tape, x, branch, scale(tape), skip_scale, 1)
                              : ops::residual(tape, x, branch, skip_scale, 1);
        tape.release(branch);
        return post(tape, sum);
    }
};

/// Causal multi-head or grouped-query self-attention. NAME.qkv stacks the query, key and value projections; NAME.output
/// is the last matrix of the branch. Norms of queries, keys and values are called NAME.q_norm, NAME.k_norm and
/// NAME.v_norm; NAME.head_scale [heads], ones at the start, multiplies what the heads bring out.
struct Attention {
    Linear qkv;
    Linear output;
    Norm q_norm, k_norm, v_norm;
    HeadNorm qk_rows = HeadNorm::none; ///< what q_norm and k_norm take as a row
    HeadNorm v_rows = HeadNorm::none;
    Parameter head_scale;
    std::int64_t heads = 1;
    std::int64_t kv_heads = 1;
    std::int64_t head_width = 1;
    double logit_softcap = 0;
    bool rope = false;
    bool alibi = false;

    Attention() = default;
    Attention(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
              const InitRules& init);

    /// `rope_table` is a constant [time or more, head_width] from the position of the first token on, looked at when
    /// `rope` is set. With a past, for one sequence on a tape in eval mode: throws Error otherwise.
    Var operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table,
                   const PastTokens& past = {}) const;

private:
    Var normalized(Tape& tape, Var packed) const;
};

/// Feed-forward network: width -> hidden -> width. NAME.input holds gate and up, stacked, where the kind is gated;
/// NAME.output is the last matrix of the branch, and NAME.inner_norm a norm in front of it.
struct Ffn {
    Linear input;
    Norm inner_norm;
    Linear output;
    Activation activation = Activation::identity;
    bool gated = false;

    Ffn() = default;
    Ffn(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
        const InitRules& init);

    Var operator()(Tape& tape, Var x) const;
};

/// One layer of the network: attention, then feed-forward, each in its residual wrapper. Parameters are called
/// NAME.attention.* and NAME.ffn.*. The factors of the branches, where `model.residual` has any: NAME.residual_scale
/// [1] for both (rezero), NAME.attention.branch_scale and NAME.ffn.branch_scale [1] (skipinit) or [width] (layerscale).
struct Block {
    Residual attention_residual;
    Attention attention;
    Residual ffn_residual;
    Ffn ffn;

    /// Block `index`, from 0, of the model.
    Block(ParamTable& table, const std::string& name, const ModelConfig& config, const NormLayout& norms,
          std::int64_t index);

    Var operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table,
                   const PastTokens& past = {}) const;
};

} // namespace ballast::inline BALLAST_PRECISION
