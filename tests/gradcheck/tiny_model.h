#pragma once

// Whole models small enough for finite differences of everything.

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "ballast/config/load.h"
#include "ballast/config/norm_layout.h"
#include "ballast/kernels/softmax.h"
#include "ballast/nn/transformer.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "checker.h"

namespace tiny_model {

using namespace gradcheck;

inline constexpr std::int64_t kVocabulary = 7;
inline constexpr SequenceShape kSequences{2, 5};
inline constexpr std::int64_t kRows = kSequences.batch * kSequences.time;
/// Every id occurs in one of them, and some more than once.
inline const std::vector<std::int32_t> kTokens{3, 1, 4, 1, 5, 0, 2, 6, 5, 3};
inline const std::vector<std::int32_t> kTargets{1, 4, kIgnoredTarget, 5, 0, 2, 6, kIgnoredTarget, 3, 3};
inline constexpr double kLossScale = 1.0 / 8;
inline constexpr double kZLoss = 0.1;

/// A resolved config with two layers and biases, changed by `change`.
inline ModelConfig config_with(const std::function<void(ModelConfig&)>& change) {
    Config config;
    ModelConfig& model = config.model;
    model.layers = 2;
    model.heads = 2;
    model.width = 8;
    model.context = kSequences.time;
    model.ffn.width = 6;
    model.bias = true;
    model.init.kind = InitKind::fan_in;
    change(model);
    resolve(config);
    return config.model;
}

/// One line that says which model this is.
inline std::string name_of(const ModelConfig& model) {
    const auto onoff = [](bool on) { return std::string(on ? " on" : " off"); };
    return std::string(to_string(model.norm.placement)) + ", " + std::string(to_string(model.norm.kind)) +
           ", final norm" + onoff(model.final_norm == Switch::on) + ", tied" + onoff(model.tie_embeddings) +
           ", positions " + std::string(to_string(model.position)) + ", ffn " + std::string(to_string(model.ffn.kind)) +
           ", kv heads " + std::to_string(model.kv_heads) + ", qk norm " + std::string(to_string(model.qk_norm)) +
           ", residual " + std::string(to_string(model.residual));
}

class TinyModel {
public:
    explicit TinyModel(const ModelConfig& config) : transformer_(table_, config, kVocabulary), tape_(ops::registry()) {
        prepare();
        table_.allocate(1);
        table_.allocate_gradients();
    }

    /// Moves every parameter away from where it starts, gains from 1 and biases from 0 too.
    void shake() {
        for (const Param& param : table_.params()) {
            const Values noise = op_calls::uniform_values(size_of(param.shape), hash_name(param.name), -0.3, 0.3);
            for (std::size_t i = 0; i < noise.size(); ++i)
                table_.values()[param.offset + static_cast<std::int64_t>(i)] += noise[i];
        }
    }

    // In train mode, as the gradients: a batchnorm has other statistics in evaluation.
    Values logits() {
        tape_.begin(Mode::train);
        const Var y = transformer_(tape_, {kTokens, kSequences});
        return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
    }

    double loss() {
        tape_.begin(Mode::train);
        return *tape_.data(put_loss());
    }

    /// Fills the table's gradients.
    void differentiate() {
        std::fill_n(table_.gradients(), table_.size(), op_calls::kNaN);
        tape_.begin(Mode::train);
        tape_.backward(put_loss());
    }

    const ParamTable& table() const { return table_; }

private:
    Var put_loss() {
        return ops::cross_entropy(tape_, transformer_(tape_, {kTokens, kSequences}), kTargets, kLossScale, kZLoss);
    }

    ParamTable table_;
    Transformer transformer_;
    Tape tape_;
};

} // namespace tiny_model
