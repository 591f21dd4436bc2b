#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/data/dataset.h"
#include "ballast/nn/running_statistics.h"
#include "ballast/nn/transformer.h"
#include "ballast/train/layer_probe.h"
#include "ballast/train/optimizer.h"
#include "ballast/train/step_record.h"
#include "ballast/train/trace.h"

namespace ballast {

/// What a config says about the data. `vocabulary` is a trained model's, unset to derive it from the data.
DataOptions data_options(const Config& config, std::optional<Tokenizer> vocabulary = {});

/// Mean cross-entropy (nats per token) of a model on windows of `tokens`: `batches` times `batch` of them, spread
/// evenly (Sampler::evaluation_batch). Uses `tape`, in eval mode.
double evaluate(Tape& tape, const Transformer& model, const TokenView& tokens, std::int64_t batch, std::int64_t batches,
                std::int64_t context);

/// What a model makes of questions.
struct Evaluation {
    double loss = 0;                ///< mean cross-entropy, nats per target
    std::optional<double> accuracy; ///< task: share of the targets that have the largest logit
};

/// The same for the validation split of a dataset, text or task.
Evaluation evaluate(Tape& tape, const Transformer& model, const Dataset& data, std::int64_t batch, std::int64_t batches,
                    std::int64_t context);

/// A model that learns: parameters, optimizer and tape of one run, without anything on disk.
class Learner {
public:
    /// `config` is resolved; `data` outlives the learner. Parameters are at their initial values.
    Learner(const Config& config, const Dataset& data);

    struct Step {
        StepRecord record;
        std::int64_t batch = 0;           ///< its tokens are a function of (seed, batch)
        std::uint64_t batch_checksum = 0; ///< of its tokens
        /// Set when the loss, a gradient or (after the update) a parameter is NaN or infinite: what, and where.
        std::string non_finite;
        bool updated = false; ///< the parameters have changed
    };

    /// The first half of step `step`, counted from 1, on batch `batch`: forward and backward in micro-batches. Changes
    /// gradients alone. `record.tokens` is left to the caller.
    /// A probe sees activations (of the first micro-batch) and gradients; null: none.
    Step gradients(std::int64_t step, std::int64_t batch, LayerProbe* probe = nullptr);

    /// The second half: clipping and update, by the gradients of the pass that `step` comes from. The probe is the one
    /// that has seen these.
    void update(Step& step, LayerProbe* probe = nullptr);

    /// The first half again, with every value and gradient written down: of the first micro-batch, or of the first with
    /// something that is not finite. Takes the memory of a whole pass more. The step has the bits of gradients().
    std::vector<TraceEntry> trace(std::int64_t step, std::int64_t batch);

    /// Gives parameters of new norms the learning rate that the config's `init_from` says.
    void set_new_norms(std::span<const std::string> parameters);

    /// Both, without an update where loss or gradients are not finite.
    Step step(std::int64_t step);

    /// On the validation split, by the config's `train.eval_batches`; nothing without such a split.
    std::optional<Evaluation> validate();

    const Config& config() const { return config_; }
    const Transformer& model() const { return model_; }
    const Dataset& data() const { return data_; }
    ParamTable& table() { return table_; }
    const ParamTable& table() const { return table_; }
    const Optimizer& optimizer() const { return optimizer_; }
    const Tape& tape() const { return tape_; }
    /// Measures the time of each op of the steps that follow, as Tape::time_nodes does.
    void time_nodes(bool on) { tape_.time_nodes(on); }
    /// Tokens of the batch that was drawn last: [batch, context].
    std::span<const std::int32_t> inputs() const { return inputs_; }
    std::int64_t micro_batches() const { return config_.train.batch / config_.train.micro_batch; }
    std::int64_t tokens_per_step() const { return config_.train.batch * config_.model.context; }
    std::int64_t targets_per_step() const {
        return config_.train.batch * data_.targets_per_sequence(config_.model.context);
    }

private:
    void draw_batch(std::int64_t batch);
    /// The loss of micro-batch `i` of the batch that was drawn last, on the tape.
    Var forward(std::int64_t step, std::int64_t i, bool keep_values);
    /// Name of the first parameter whose gradient (or, after the update, value) is not finite.
    std::string first_non_finite(const float* values) const;

    Config config_;
    const Dataset& data_;
    ParamTable table_;
    Transformer model_;
    RunningStatistics statistics_;
    Optimizer optimizer_;
    Tape tape_;
    std::vector<std::int32_t> inputs_;
    std::vector<std::int32_t> targets_;
};

} // namespace ballast
