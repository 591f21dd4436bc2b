#include "ballast/train/trainer.h"

#include <cmath>
#include <utility>

#include "ballast/base/memory.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/train/memory.h"

namespace ballast {

Trainer::Trainer(std::unique_ptr<Dataset> data, std::unique_ptr<Learner> learner, RunDirectory directory,
                 TrainerState state, Log log)
    : data_(std::move(data)), learner_(std::move(learner)), directory_(std::move(directory)), state_(std::move(state)),
      log_(std::move(log)), config_json_(to_json(learner_->config())), events_(directory_.events_path(), state_.step) {
    auto metrics = std::make_unique<JsonLinesSink>(directory_.metrics_path(), state_.step);
    if (metrics->kept_step() < state_.step)
        log_.warn(directory_.metrics_path().string() + ": the records of steps " +
                  std::to_string(metrics->kept_step() + 1) + " to " + std::to_string(state_.step) +
                  " are missing; going on without them");
    records_.push_back(std::move(metrics));
    if (config().log.csv) records_.push_back(std::make_unique<CsvSink>(directory_.csv_path(), state_.step));
}

Trainer Trainer::start(const Config& config, const std::filesystem::path& directory, const Log& log) {
    auto data = std::make_unique<Dataset>(data_options(config));
    require_memory(estimate_memory(config, data->vocab_size(), resident_memory()), memory_limit());
    auto learner = std::make_unique<Learner>(config, *data);
    TrainerState state;
    state.started = utc_time();
    state.data_fingerprint = data->fingerprint();
    state.vocab_size = data->vocab_size();
    state.tokenizer = data->tokenizer();
    RunDirectory run = RunDirectory::create(directory, to_json(config), current_environment());
    return {std::move(data), std::move(learner), std::move(run), std::move(state), log};
}

Trainer Trainer::resume(const std::filesystem::path& directory, std::span<const std::string> overrides,
                        const Log& log) {
    RunDirectory run = RunDirectory::open_for_training(directory);
    const Config config = config_from_json(run.config_json(), run.config_path(), overrides);
    const NewestCheckpoint newest = newest_checkpoint(run.path());
    for (const std::string& reason : newest.passed_over)
        log.warn(reason);
    const Environment now = current_environment();
    Environment before = run.environment();
    before.threads = now.threads; // their number changes no bit
    before.processors = now.processors;
    for (const std::string& difference : differences(before, now))
        log.warn("the run may go on with other bits than it would have where it began: " + difference);

    auto data = std::make_unique<Dataset>(data_options(config));
    require_memory(estimate_memory(config, data->vocab_size(), resident_memory()), memory_limit());
    auto learner = std::make_unique<Learner>(config, *data);
    TrainerState state;
    if (newest.path) {
        load_checkpoint(*newest.path, state, learner->table(), learner->optimizer().moments());
        if (state.data_fingerprint != data->fingerprint())
            throw DataError(config.data.path + ": not the data that the run was trained on so far");
        ++state.resumed;
    } else {
        log.warn(run.path().string() + " has no whole checkpoint; starting from step 0");
        state.started = utc_time();
        state.data_fingerprint = data->fingerprint();
        state.vocab_size = data->vocab_size();
        state.tokenizer = data->tokenizer();
    }
    // Where no step is left to make, what the overrides say was never trained with.
    if (state.step < config.train.steps) {
        run.write_config(to_json(config));
        run.write_environment(now);
    }
    return {std::move(data), std::move(learner), std::move(run), std::move(state), log};
}

RunSummary Trainer::run(std::span<MetricsSink* const> sinks, const std::atomic<bool>& interrupt) {
    const TrainConfig& train = config().train;
    const auto due = [&](std::int64_t step, std::int64_t every) {
        return step == train.steps || (every > 0 && step % every == 0);
    };
    std::string verdict = "finished";
    std::string reason;

    while (state_.step < train.steps) {
        Learner::Step step = learner_->step(state_.step + 1);
        step.record.tokens = state_.tokens + learner_->tokens_per_step();
        if (step.non_finite.empty() && due(step.record.step, train.eval_every)) {
            step.record.val_loss = learner_->validate();
            if (step.record.val_loss && !std::isfinite(*step.record.val_loss)) step.non_finite = "the validation loss";
        }
        if (step.non_finite.empty()) note(step.record);
        last_ = step.record;
        for (const auto& sink : records_)
            sink->write(step.record);
        for (MetricsSink* sink : sinks)
            sink->write(step.record);

        if (!step.non_finite.empty()) {
            verdict = "non_finite";
            reason = "step " + std::to_string(step.record.step) + ": " + step.non_finite + " is not finite";
            events_.write({step.record.step, verdict, reason, step.record.loss});
            // Parameters that an update has already spoilt are not worth keeping; the last checkpoint stands.
            if (!step.updated) save();
            break;
        }
        const bool interrupted = interrupt && state_.step < train.steps;
        if (interrupted) events_.write({state_.step, "interrupted", "saved at an interrupt", {}});
        if (due(state_.step, train.checkpoint_every) || interrupted) save();
        if (interrupted) {
            verdict = "interrupted";
            reason = "go on with: ballast resume " + directory_.path().string();
            break;
        }
    }
    if (last_.step == 0) { // there was no step left to make
        if (is_finished()) return directory_.summary();
        if (state_.resumed == 0) save();
        // Killed between its last checkpoint and its summary.
        const std::vector<StepRecord> records = read_metrics(directory_.metrics_path());
        if (!records.empty()) last_ = records.back();
    }
    RunSummary result = summary(verdict, reason);
    directory_.write_summary(result);
    return result;
}

bool Trainer::is_finished() const {
    if (state_.step < config().train.steps || state_.resumed == 0) return false;
    try {
        return directory_.summary().step == state_.step;
    } catch (const IoError&) {
        return false;
    }
}

/// Takes a finished step into the state.
void Trainer::note(const StepRecord& record) {
    state_.step = record.step;
    state_.tokens = record.tokens;
    state_.seconds += record.seconds;
    if (record.step == 1) state_.first_loss = record.loss;
    if (record.loss < state_.best_loss) {
        state_.best_loss = record.loss;
        state_.best_loss_step = record.step;
    }
    if (record.val_loss && *record.val_loss < state_.best_val_loss) {
        state_.best_val_loss = *record.val_loss;
        state_.best_val_step = record.step;
    }
}

void Trainer::save() {
    // The records first: a resume keeps those up to the checkpoint's step and must find them all.
    for (const auto& sink : records_)
        sink->sync();
    events_.sync();
    const std::filesystem::path saved =
        save_checkpoint(directory_.path(), config_json_, state_, learner_->table(), learner_->optimizer().moments());
    log_.info("saved " + saved.string());
    prune_checkpoints(directory_.path(), config().train.keep_checkpoints, state_.best_val_step);
}

RunSummary Trainer::summary(std::string verdict, std::string reason) const {
    RunSummary result;
    result.verdict = std::move(verdict);
    result.reason = std::move(reason);
    result.step = state_.step;
    result.tokens = state_.tokens;
    result.final_loss = last_.loss;
    result.best_loss = state_.best_loss;
    result.best_loss_step = state_.best_loss_step;
    result.final_val_loss = last_.val_loss;
    if (state_.best_val_step > 0) result.best_val_loss = state_.best_val_loss;
    result.best_val_step = state_.best_val_step;
    result.seconds = state_.seconds;
    result.tokens_per_second = state_.seconds > 0 ? static_cast<double>(state_.tokens) / state_.seconds : 0;
    result.started = state_.started;
    result.finished = utc_time();
    result.resumed = state_.resumed;
    return result;
}

} // namespace ballast
