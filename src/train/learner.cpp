#include "ballast/train/learner.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "ballast/base/file.h"
#include "ballast/base/rng.h"
#include "ballast/data/sampler.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/softmax.h"
#include "ballast/ops/registry.h"
#include "ballast/train/schedule.h"

namespace ballast {

DataOptions data_options(const Config& config, std::optional<Tokenizer> vocabulary) {
    DataOptions options;
    options.path = config.data.path;
    switch (config.data.format) {
    case DataFormat::automatic: options.format = DataOptions::Format::automatic; break;
    case DataFormat::text: options.format = DataOptions::Format::text; break;
    case DataFormat::bin: options.format = DataOptions::Format::bin; break;
    }
    options.tokenizer =
        config.data.tokenizer.kind == TokenizerKind::byte ? Tokenizer::Kind::byte : Tokenizer::Kind::character;
    options.val_fraction = config.data.val_fraction;
    options.vocab_size = config.data.vocab_size;
    options.context = config.model.context;
    options.vocabulary = std::move(vocabulary);
    switch (config.data.task.kind) {
    case TaskKind::none: break;
    case TaskKind::majority: options.task = Task::majority; break;
    case TaskKind::copy: options.task = Task::copy; break;
    case TaskKind::induction: options.task = Task::induction; break;
    case TaskKind::modular_addition: options.task = Task::modular_addition; break;
    }
    options.symbols = config.data.task.symbols;
    return options;
}

static_assert(kNoTarget == kIgnoredTarget);

double evaluate(Tape& tape, const Transformer& model, const TokenView& tokens, std::int64_t batch, std::int64_t batches,
                std::int64_t context) {
    const Sampler sampler(tokens, 0);
    std::vector<std::int32_t> inputs(static_cast<std::size_t>(batch * context));
    std::vector<std::int32_t> targets(inputs.size());
    double nll = 0;
    for (std::int64_t i = 0; i < batches; ++i) {
        sampler.evaluation_batch(i, batches, batch, context, inputs.data(), targets.data());
        tape.begin(Mode::eval);
        const Var logits = model(tape, {inputs, {batch, context}});
        nll += ops::cross_entropy_sums(tape, ops::cross_entropy(tape, logits, targets, 1)).nll;
    }
    return nll / static_cast<double>(batches * batch * context);
}

namespace {
/// Rows whose target has the largest logit, the first of equal ones counting as it.
std::int64_t count_right(const float* logits, std::int64_t classes, std::span<const std::int32_t> targets) {
    std::int64_t right = 0;
    for (std::size_t row = 0; row < targets.size(); ++row) {
        const float* const begin = logits + static_cast<std::int64_t>(row) * classes;
        if (targets[row] != kNoTarget && std::max_element(begin, begin + classes) - begin == targets[row]) ++right;
    }
    return right;
}
} // namespace

Evaluation evaluate(Tape& tape, const Transformer& model, const Dataset& data, std::int64_t batch, std::int64_t batches,
                    std::int64_t context) {
    std::vector<std::int32_t> inputs(static_cast<std::size_t>(batch * context));
    std::vector<std::int32_t> targets(inputs.size());
    std::int64_t right = 0;
    ops::CrossEntropySums sums;
    for (std::int64_t i = 0; i < batches; ++i) {
        data.evaluation_batch(i, batches, batch, context, inputs.data(), targets.data());
        tape.begin(Mode::eval);
        const Var logits = model(tape, {inputs, {batch, context}});
        if (data.task() != nullptr) right += count_right(tape.data(logits), model.vocabulary(), targets);
        sums += ops::cross_entropy_sums(tape, ops::cross_entropy(tape, logits, targets, 1));
    }
    const auto count = static_cast<double>(sums.targets);
    Evaluation result{sums.nll / count, {}};
    if (data.task() != nullptr) result.accuracy = static_cast<double>(right) / count;
    return result;
}

namespace {
/// The model of a config, with `table` holding its parameters and room for their gradients.
Transformer ready_model(ParamTable& table, const Config& config, std::int64_t vocabulary) {
    Transformer model(table, config.model, vocabulary);
    table.allocate(config.seed);
    table.allocate_gradients();
    return model;
}
} // namespace

Learner::Learner(const Config& config, const Dataset& data)
    : config_(config), data_(data), model_(ready_model(table_, config, data.vocab_size())),
      statistics_(table_, config.model.norm.momentum), optimizer_(config.optimizer, table_), tape_(ops::registry()),
      inputs_(static_cast<std::size_t>(tokens_per_step())), targets_(inputs_.size()) {
    pin_blas();
}

void Learner::set_new_norms(std::span<const std::string> parameters) {
    optimizer_.set_own_rate(parameters, config_.init_from.new_norm_lr_scale, config_.init_from.new_norm_warmup);
}

std::string Learner::first_non_finite(const float* values) const {
    for (const Param& param : table_.params())
        if (!all_finite(values + param.offset, param.shape.elements())) return param.name;
    return "no single parameter";
}

namespace {
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }
} // namespace

void Learner::draw_batch(std::int64_t batch) {
    const std::int64_t context = config_.model.context;
    data_.batch(config_.seed, batch, config_.train.batch, context, inputs_.data(), targets_.data());
    const PoisonConfig& poison = config_.data.poison;
    if (poison.first == 0 || batch < poison.first || batch >= poison.first + poison.batches) return;
    const RandomStream pattern(config_.seed, "poison");
    const auto token = [&](std::size_t at) {
        const auto place = static_cast<std::uint64_t>(at % static_cast<std::size_t>(poison.period));
        return static_cast<std::int32_t>(pattern.below(place, static_cast<std::uint64_t>(data_.vocab_size())));
    };
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
        const std::size_t place = i % static_cast<std::size_t>(context);
        inputs_[i] = token(place);
        targets_[i] = token(place + 1);
    }
}

Var Learner::forward(std::int64_t step, std::int64_t i, bool keep_values) {
    const std::int64_t context = config_.model.context;
    const std::int64_t micro_batch = config_.train.micro_batch;
    const auto count = static_cast<std::size_t>(micro_batch * context);
    const auto offset = static_cast<std::size_t>(i) * count;
    const std::span inputs(inputs_.data() + offset, count);
    const std::span targets(targets_.data() + offset, count);
    tape_.begin(Mode::train, {config_.seed, static_cast<std::uint64_t>(step * micro_batches() + i)}, keep_values);
    const Var logits = model_(tape_, {inputs, {micro_batch, context}});
    // Divided by the targets of the whole batch, so that the sum over micro-batches is the batch's mean.
    return ops::cross_entropy(tape_, logits, targets, 1 / static_cast<double>(targets_per_step()), config_.loss.z_loss);
}

Learner::Step Learner::gradients(std::int64_t step, std::int64_t batch, LayerProbe* probe) {
    const auto start = Clock::now();
    Step result;
    StepRecord& record = result.record;
    record.step = step;

    draw_batch(batch);
    result.batch = batch;
    result.batch_checksum = checksum(std::as_bytes(std::span(inputs_)));
    ops::CrossEntropySums sums;
    statistics_.begin();
    for (std::int64_t i = 0; i < micro_batches(); ++i) { // gradients add up in the table
        const bool probes = probe != nullptr && i == 0;
        const Var loss = forward(step, i, probes);
        sums += ops::cross_entropy_sums(tape_, loss);
        statistics_.observe(tape_);
        if (probes) probe->activations(step, tape_);
        tape_.backward(loss, {.accumulate = i > 0});
    }
    if (probe != nullptr) probe->gradients();
    const auto tokens = static_cast<double>(tokens_per_step()), count = static_cast<double>(sums.targets);
    record.loss = sums.nll / count;
    record.z_loss = config_.loss.z_loss * sums.log_z_squares / count;
    record.mean_log_z = sums.log_z / count;
    record.max_log_z = sums.max_log_z;
    record.max_logit = sums.max_logit;
    record.lr =
        config_.optimizer.lr * schedule_factor(config_.schedule, config_.optimizer.lr, config_.train.steps, step);
    record.gradient_norm = std::sqrt(sum_of_squares(table_.gradients(), table_.size()));
    if (!std::isfinite(record.loss + record.z_loss))
        result.non_finite = "the loss";
    else if (!std::isfinite(record.gradient_norm))
        result.non_finite = "the gradient of " + first_non_finite(table_.gradients());
    else if (!statistics_.is_finite())
        result.non_finite = "a batchnorm's statistic";
    record.seconds = seconds_since(start);
    record.tokens_per_second = tokens / record.seconds;
    return result;
}

void Learner::update(Step& step, LayerProbe* probe) {
    const auto start = Clock::now();
    StepRecord& record = step.record;
    // As torch.nn.utils.clip_grad_norm_ computes it, the small constant included.
    const double clip = config_.optimizer.clip;
    record.clip = clip > 0 ? std::min(1.0, clip / (record.gradient_norm + 1e-6)) : 1.0;
    const double factor = schedule_factor(config_.schedule, config_.optimizer.lr, config_.train.steps, record.step);
    statistics_.update(); // leaves what is not finite out
    const UpdateStats stats = optimizer_.step(record.step, factor, record.clip);
    if (probe != nullptr) probe->update();
    step.updated = true;
    record.parameter_norm = std::sqrt(stats.parameter_squares);
    record.update_norm = std::sqrt(stats.update_squares);
    record.update_ratio = stats.parameter_squares > 0 ? record.update_norm / record.parameter_norm : 0;
    if (step.non_finite.empty() && !stats.finite)
        step.non_finite = "after the update " + first_non_finite(table_.values());
    record.seconds += seconds_since(start);
    record.tokens_per_second = static_cast<double>(tokens_per_step()) / record.seconds;
}

std::vector<TraceEntry> Learner::trace(std::int64_t step, std::int64_t batch) {
    draw_batch(batch);
    std::vector<TraceEntry> trace;
    for (std::int64_t i = 0; i < micro_batches(); ++i) {
        tape_.backward(forward(step, i, true), {.accumulate = i > 0, .keep_gradients = true});
        std::vector<TraceEntry> found = trace_of(tape_, table_);
        const bool has_ended = first_not_finite(found) != nullptr;
        if (i == 0 || has_ended) trace = std::move(found);
        if (has_ended) break;
    }
    return trace;
}

Learner::Step Learner::step(std::int64_t step) {
    Step result = gradients(step, step);
    if (result.non_finite.empty()) update(result);
    return result;
}

std::optional<Evaluation> Learner::validate() {
    if (!data_.has_validation()) return {};
    return evaluate(tape_, model_, data_, config_.train.micro_batch, config_.train.eval_batches * micro_batches(),
                    config_.model.context);
}

} // namespace ballast
