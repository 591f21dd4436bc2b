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

/// The residual wrapper around every sublayer f, with three slots for norms:
///
///     y = post(skip_scale * x + branch_scale * dropout(out(f(pre(x)))))
///
/// Which slots hold a norm is a row of the placement table (config/placement.h); the others are the identity.
struct Residual {
    std::string name; ///< of the sublayer
    Norm pre;
    Norm out;
    Norm post;
    double skip_scale = 1;
    double branch_scale = 1;
    double dropout = 0;

    Residual() = default;
    /// Norms are called NAME.pre_norm, NAME.out_norm and NAME.post_norm.
    Residual(ParamTable& table, const std::string& name, const ModelConfig& config);

    /// `sublayer` is called as Var(Tape&, Var).
    template <class Sublayer>
    Var operator()(Tape& tape, Var x, Sublayer&& sublayer) const {
        const Tape::Site site(tape, name);
        const Var branch = ops::dropout(tape, out(tape, sublayer(tape, pre(tape, x))), dropout);
        return post(tape, ops::residual(tape, x, branch, skip_scale, branch_scale));
    }
};

/// Causal multi-head or grouped-query self-attention. NAME.qkv stacks the query, key and value projections; NAME.output
/// is the last matrix of the branch.
struct Attention {
    Linear qkv;
    Linear output;
    std::int64_t heads = 1;
    std::int64_t kv_heads = 1;
    std::int64_t head_width = 1;
    bool rope = false;
    bool alibi = false;

    Attention() = default;
    Attention(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init);

    /// `rope_table` is a constant [time or more, head_width], looked at when `rope` is set.
    Var operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table) const;
};

/// Feed-forward network: width -> hidden -> width. NAME.input holds gate and up, stacked, where the kind is gated;
/// NAME.output is the last matrix of the branch.
struct Ffn {
    Linear input;
    Linear output;
    Activation activation = Activation::identity;
    bool gated = false;

    Ffn() = default;
    Ffn(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init);

    Var operator()(Tape& tape, Var x) const;
};

/// One layer of the network: attention, then feed-forward, each in its residual wrapper. Parameters are called
/// NAME.attention.* and NAME.ffn.*.
struct Block {
    Residual attention_residual;
    Attention attention;
    Residual ffn_residual;
    Ffn ffn;

    Block(ParamTable& table, const std::string& name, const ModelConfig& config, const InitRules& init);

    Var operator()(Tape& tape, Var x, const SequenceShape& sequences, Var rope_table) const;
};

} // namespace ballast::inline BALLAST_PRECISION
