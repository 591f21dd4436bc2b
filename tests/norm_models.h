#pragma once

// Models whose parameters tests change by name, and what they predict.

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "ballast/base/rng.h"
#include "ballast/config/load.h"
#include "ballast/kernels/gemm.h"
#include "ballast/nn/transformer.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"

namespace norm_models {

using namespace ballast;
using Values = std::vector<real>;
using Tokens = std::vector<std::int32_t>;

inline constexpr std::int64_t kVocabulary = 13;
inline constexpr SequenceShape kSequences{3, 8};

/// A resolved config with three layers and no biases, changed by `change`.
inline ModelConfig config_with(const std::function<void(ModelConfig&)>& change) {
    Config config;
    ModelConfig& model = config.model;
    model.layers = 3;
    model.heads = 2;
    model.width = 16;
    model.context = kSequences.time;
    model.ffn.width = 24;
    model.init.kind = InitKind::fan_in;
    change(model);
    resolve(config);
    return config.model;
}

inline Tokens random_tokens(std::uint64_t seed) {
    const RandomStream stream(seed, "tokens");
    Tokens tokens;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(kSequences.batch * kSequences.time); ++i)
        tokens.push_back(static_cast<std::int32_t>(stream.below(i, kVocabulary)));
    return tokens;
}

class Model {
public:
    explicit Model(const ModelConfig& config) : transformer_(table_, config, kVocabulary), tape_(ops::registry()) {
        pin_blas();
        table_.allocate(3);
    }

    /// Calls change(name, values, rows, width) for every parameter; rows and width are those of a matrix, or 1 and the
    /// size of a vector.
    template <class Change>
    void change(Change&& change) {
        for (const Param& param : table_.params())
            change(param.name, table_.values() + param.offset, param.shape.rows(), param.shape.width());
    }

    /// Moves gains, biases and the like away from where they start.
    void shake_vectors() {
        for (const Param& param : table_.params()) {
            if (param.shape.rank != 1) continue;
            const RandomStream noise(7, param.name);
            for (std::int64_t i = 0; i < param.shape.elements(); ++i)
                table_.values()[param.offset + i] +=
                    static_cast<real>(noise.uniform(static_cast<std::uint64_t>(i)) - 0.5);
        }
    }

    real* values(const std::string& name) { return table_.values() + table_.find(name)->offset; }

    Values logits(const Tokens& tokens, Mode mode) {
        tape_.begin(mode);
        const Var y = transformer_(tape_, {tokens, kSequences});
        return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
    }

private:
    ParamTable table_;
    Transformer transformer_;
    Tape tape_;
};

inline double largest_difference(const Values& a, const Values& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return worst;
}

/// Takes the mean out of all that is added to the residual stream: rows of embeddings, and over its outputs every
/// column of a branch's last matrix.
inline void centre(Model& model) {
    model.change([](const std::string& name, real* values, std::int64_t rows, std::int64_t width) {
        const bool embedding = name.starts_with("embedding.");
        if (!embedding && !name.ends_with(".output.weight")) return;
        const std::int64_t outer = embedding ? rows : width, inner = embedding ? width : rows;
        const std::int64_t outer_stride = embedding ? width : 1, inner_stride = embedding ? 1 : width;
        for (std::int64_t i = 0; i < outer; ++i) {
            real* const line = values + i * outer_stride;
            double sum = 0;
            for (std::int64_t j = 0; j < inner; ++j)
                sum += static_cast<double>(line[j * inner_stride]);
            for (std::int64_t j = 0; j < inner; ++j)
                line[j * inner_stride] -= static_cast<real>(sum / static_cast<double>(inner));
        }
    });
}

/// Largest difference of the logits of Pre-LN and Pre-RMSNorm on the same parameters, centred or as they are (Jiang et
/// al., 2305.14858).
inline double pre_layernorm_and_pre_rmsnorm(bool centred) {
    std::vector<Values> logits;
    for (const NormKind kind : {NormKind::layernorm, NormKind::rmsnorm}) {
        Model model(config_with([&](ModelConfig& config) { config.norm.kind = kind; }));
        model.shake_vectors();
        if (centred) centre(model);
        logits.push_back(model.logits(random_tokens(1), Mode::eval));
    }
    return largest_difference(logits[0], logits[1]);
}

} // namespace norm_models
