#include "ballast/train/trainer.h"

#include <utility>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"

namespace ballast {

namespace {
/// Snapshots that reach back as far as a rewind does, and one more: two in any case, to replay a step from either.
std::size_t snapshots_to_keep(const StabilityConfig& config) {
    if (config.snapshot_every == 0) return 0;
    const bool may_rewind = config.on_non_finite == Policy::rewind || config.on_spike == Policy::rewind ||
                            config.on_divergence == Policy::rewind;
    return 2 + static_cast<std::size_t>(may_rewind ? config.rewind_steps / config.snapshot_every : 0);
}

Event resume_event(std::int64_t step, const std::vector<KeyDifference>& changes) {
    std::string message = "went on from step " + std::to_string(step);
    for (const KeyDifference& change : changes)
        message += ", " + change.path + " from " + change.a + " to " + change.b;
    return {.step = step, .kind = "resume", .message = std::move(message)};
}

/// The sentence of summary.json about a verdict: the event that it comes from.
std::string reason_of(std::string_view verdict, const std::vector<Event>& events) {
    const std::string_view kind = verdict == "diverged"  ? "divergence"
                                  : verdict == "stalled" ? "stall"
                                  : verdict == "spiky"   ? "loss_spike"
                                                         : verdict;
    for (auto event = events.rbegin(); event != events.rend(); ++event)
        if (event->kind == kind) return "step " + std::to_string(event->step) + ": " + event->message;
    return "";
}
} // namespace

Trainer::Trainer(std::unique_ptr<Dataset> data, std::unique_ptr<Learner> learner, RunDirectory directory,
                 TrainerState state, Log log)
    : data_(std::move(data)), learner_(std::move(learner)), directory_(std::move(directory)), state_(std::move(state)),
      log_(std::move(log)), config_json_(to_json(learner_->config())),
      rules_(learner_->config(), data_->unigram_entropy()),
      snapshots_(snapshots_to_keep(learner_->config().stability)) {
    open_records();
}

/// Opens the run's own records at the state's step, which drops what they hold of later steps.
void Trainer::open_records() {
    events_.reset();
    records_.clear();
    events_.emplace(directory_.events_path(), state_.step);
    records_.push_back(std::make_unique<JsonLinesSink>(directory_.metrics_path(), state_.step));
    if (config().log.csv) records_.push_back(std::make_unique<CsvSink>(directory_.csv_path(), state_.step));
}

Trainer Trainer::start(const Config& config, const std::filesystem::path& directory, const Log& log) {
    auto data = std::make_unique<Dataset>(data_options(config));
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
    const Config before_overrides = config_from_json(run.config_json(), run.config_path());
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
    run.write_config(to_json(config));
    run.write_environment(now);
    Trainer trainer(std::move(data), std::move(learner), std::move(run), std::move(state), log);
    trainer.events_->write(resume_event(trainer.state_.step, diff(before_overrides, config)));
    return trainer;
}

RunSummary Trainer::run(std::span<MetricsSink* const> sinks, const std::atomic<bool>& interrupt) {
    const TrainConfig& train = config().train;
    const auto due = [&](std::int64_t every) {
        return state_.step == train.steps || (every > 0 && state_.step % every == 0);
    };
    std::string verdict(verdict_of(state_.stability));
    std::string reason;

    while (state_.step < train.steps) {
        const std::int64_t snapshot_every = config().stability.snapshot_every;
        if (snapshot_every > 0 && (snapshots_.all().empty() || state_.step % snapshot_every == 0))
            snapshots_.take(state_, learner_->table(), learner_->optimizer().moments());

        JudgedStep judged = judged_step(*learner_, rules_, state_, undo_);
        StepRecord& record = judged.step.record;
        if (judged.made && due(train.eval_every)) record.val_loss = learner_->validate();
        if (record.val_loss && *record.val_loss < state_.best_val_loss) {
            state_.best_val_loss = *record.val_loss;
            state_.best_val_step = state_.step;
        }
        last_ = record;
        for (const auto& sink : records_)
            sink->write(record);
        for (MetricsSink* sink : sinks)
            sink->write(record);
        for (const Event& event : judged.judgement.events) {
            events_->write(event);
            for (MetricsSink* sink : sinks)
                sink->event(event);
        }

        const Policy policy = judged.judgement.policy;
        if (policy == Policy::rewind && rewind(judged, sinks)) continue;
        verdict = judged.made ? verdict_of(state_.stability) : "non_finite";
        const bool stopped = policy == Policy::stop || policy == Policy::rewind;
        const bool interrupted = !stopped && interrupt && state_.step < train.steps;
        if (interrupted)
            events_->write({.step = state_.step, .kind = "interrupted", .message = "saved at an interrupt"});
        // Parameters that an update has spoilt are not worth keeping; the last checkpoint stands.
        const bool spoilt = !judged.made && judged.step.updated;
        if (!spoilt && (due(train.checkpoint_every) || interrupted || stopped)) save();
        if (interrupted) {
            verdict = "interrupted";
            reason = "go on with: ballast resume " + directory_.path().string();
        }
        if (interrupted || stopped) break;
    }
    if (last_.step == 0) { // there was no step left to make
        if (state_.resumed > 0) return directory_.summary();
        save();
    }
    if (reason.empty()) reason = reason_of(verdict, read_events(directory_.events_path()));
    const RunSummary result = summary(verdict, reason);
    directory_.write_summary(result);
    return result;
}

/// Goes back before the step that has just been judged. False when there is nothing to go back to, or this was done as
/// often as the config allows.
bool Trainer::rewind(const JudgedStep& judged, std::span<MetricsSink* const> sinks) {
    const StabilityConfig& config = rules_.config;
    const std::int64_t from = judged.step.record.step;
    const Snapshot* const to = snapshots_.before(from - config.rewind_steps);
    if (to == nullptr || state_.rewinds >= config.max_rewinds) return false;

    TrainerState state = to->state;
    state.seconds = state_.seconds;
    state.rewinds = state_.rewinds + 1;
    state.stability.remedied = state_.stability.remedied + 1;
    state.skipped_batches = state_.skipped_batches + from - state.step;
    to->restore(learner_->table(), learner_->optimizer().moments());
    state_ = std::move(state);
    snapshots_.drop_after(state_.step);

    open_records();
    Event event = judged.judgement.events.empty() ? Event{} : judged.judgement.events.front();
    event.message = "went back to step " + std::to_string(state_.step) + " from step " + std::to_string(from) + ", " +
                    event.message + "; without the batches since";
    event.step = state_.step;
    event.kind = "rewind";
    events_->write(event);
    for (MetricsSink* sink : sinks)
        sink->event(event);
    remove_checkpoints_from(directory_.path(), state_.step);
    save();
    return true;
}

void Trainer::save() {
    // The records first: a resume keeps those up to the checkpoint's step and must find them all.
    for (const auto& sink : records_)
        sink->sync();
    events_->sync();
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
    result.loss_spikes = state_.stability.loss_spikes;
    result.gradient_spikes = state_.stability.gradient_spikes;
    result.rewinds = state_.rewinds;
    std::vector<double> losses, gradient_norms;
    for (const StepRecord& record : read_metrics(directory_.metrics_path())) {
        losses.push_back(record.loss);
        gradient_norms.push_back(record.gradient_norm);
    }
    result.loss_spike_score = spike_score(losses);
    result.gradient_spike_score = spike_score(gradient_norms);
    result.seconds = state_.seconds;
    result.tokens_per_second = state_.seconds > 0 ? static_cast<double>(state_.tokens) / state_.seconds : 0;
    result.started = state_.started;
    result.finished = utc_time();
    result.resumed = state_.resumed;
    return result;
}

} // namespace ballast
