#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ballast/autograd/shape.h"
#include "ballast/config/config.h"
#include "ballast/config/describe.h"

// What a config means, before anything is computed: the equations with their actual norms and values, the parameters,
// what the norms cost, what is known to go wrong, and what another config has in their place.

namespace ballast {

/// Consecutive blocks that have the same equations.
struct BlockEquations {
    std::int64_t first = 1; ///< counted from 1
    std::int64_t last = 1;
    std::string attention; ///< "x ← x + Attention(LayerNorm(x; eps=1e-5))"
    std::string ffn;
};

/// The network as equations in UTF-8 text; x is the residual stream.
struct Equations {
    std::string embedding;              ///< "x = E[token] + P[position]"
    std::vector<BlockEquations> blocks; ///< in order, every block once
    std::string output;                 ///< "logits = LayerNorm(x; eps=1e-5) Eᵀ"
    std::vector<std::string> meanings;  ///< what the names in the above stand for: "Attention: ..."
};

/// A tensor, or one of every block: then the name has `*` for the block's number.
struct ParamRow {
    std::string name;
    Shape shape;
    std::int64_t repeats = 1; ///< how many there are of it
    std::int64_t count = 0;   ///< scalars, of all of them together
    std::string init;         ///< "normal 0.02", "uniform ±0.15", "0"
    bool decays = false;      ///< whether weight decay applies
};

/// A second name for a parameter.
struct TieRow {
    std::string name;
    std::string same_as;
};

struct NormCost {
    std::int64_t norms = 0;      ///< in the whole network, those of queries, keys and values each
    std::int64_t parameters = 0; ///< of all norms
    /// Bytes that a training step reads and writes for them: forward x and y, backward x, dy and dx, per token; a
    /// batchnorm reads x once more forward, and x and dy once more backward.
    double bytes_per_step = 0;
    double model_flops_per_step = 0; ///< of everything else: 6 per matrix element and token, and attention
};

/// Something that is known to go wrong with a config.
struct NormWarning {
    std::string name;    ///< for programs: "post_with_final_norm"
    std::string message; ///< what the config has
    std::string reason;  ///< why that is a problem, and what to do
    std::string source;  ///< where it is published
    bool operator==(const NormWarning&) const = default;
};

struct Explanation {
    Equations equations;
    std::vector<ParamRow> parameters;
    std::vector<ParamRow> buffers; ///< state that is not trained
    std::vector<TieRow> ties;
    std::int64_t parameter_count = 0;
    std::int64_t decayed_count = 0;
    NormCost norm_cost;
    std::vector<NormWarning> warnings;
};

/// `config` is resolved (config/load.h); `vocabulary` is that of its data. Allocates no parameters.
Explanation explain(const Config& config, std::int64_t vocabulary);

/// The equations alone; they need no data.
Equations equations_of(const ModelConfig& model);

/// The warnings alone; none needs the data.
std::vector<NormWarning> norm_warnings(const Config& config);

/// What there is to warn of where the weights of a model with `source` go on in one with `model`. Both are resolved.
std::vector<NormWarning> source_warnings(const ModelConfig& model, const ModelConfig& source);

/// An equation, or the meaning of a name, that two configs do not share. Empty: there is none in that config.
struct EquationDifference {
    std::string where; ///< "embedding", "blocks 2 to 4, attention", "output", "FFN"
    std::string a;
    std::string b;
};

/// What differs between two configs. Both are resolved.
struct Comparison {
    std::vector<KeyDifference> keys;
    std::vector<EquationDifference> equations;
    std::vector<NormWarning> only_a, only_b; ///< warnings
};
Comparison compare_configs(const Config& a, const Config& b);

} // namespace ballast
