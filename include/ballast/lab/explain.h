#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ballast/autograd/shape.h"
#include "ballast/config/config.h"

// What a config means, before anything is computed: the equations with their actual norms and values, the parameters,
// what the norms cost, and what is known to go wrong.

namespace ballast {

/// The network as equations in UTF-8 text; x is the residual stream.
struct Equations {
    std::string embedding;             ///< "x = E[token] + P[position]"
    std::vector<std::string> block;    ///< what each of the blocks does, in order
    std::string output;                ///< "logits = LayerNorm(x; eps=1e-5) Eᵀ"
    std::vector<std::string> meanings; ///< what the names in the above stand for
};

/// A parameter, or one of every block: then the name has `*` for the block's number.
struct ParamRow {
    std::string name;
    Shape shape;
    std::int64_t repeats = 1; ///< how many there are of it
    std::int64_t count = 0;   ///< trained scalars, of all of them together
    std::string init;         ///< "normal 0.02", "uniform ±0.15", "0"
    bool decays = false;      ///< whether weight decay applies
};

/// A second name for a parameter.
struct TieRow {
    std::string name;
    std::string same_as;
};

struct NormCost {
    std::int64_t norms = 0;      ///< in the whole network
    std::int64_t parameters = 0; ///< of all norms
    /// Bytes that a training step reads and writes for them: forward x and y, backward x, dy and dx, per token.
    double bytes_per_step = 0;
};

/// Something that is known to go wrong with a config.
struct NormWarning {
    std::string name;    ///< for programs: "post_with_final_norm"
    std::string message; ///< what the config has
    std::string reason;  ///< why that is a problem, and what to do
    std::string source;  ///< where it is published
};

struct Explanation {
    Equations equations;
    std::vector<ParamRow> parameters;
    std::vector<TieRow> ties;
    std::int64_t parameter_count = 0;
    std::int64_t decayed_count = 0;
    NormCost norm_cost;
    std::vector<NormWarning> warnings;
};

/// `config` is resolved (config/load.h); `vocabulary` is that of its data. Allocates no parameters.
Explanation explain(const Config& config, std::int64_t vocabulary);

/// The warnings alone; none needs the data.
std::vector<NormWarning> norm_warnings(const Config& config);

} // namespace ballast
