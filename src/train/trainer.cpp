#include "ballast/train/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <system_error>
#include <utility>

#include "ballast/base/memory.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/config/norm_layout.h"
#include "ballast/train/graft.h"
#include "ballast/train/memory.h"
#include "ballast/train/tensorboard.h"

namespace ballast {

namespace {
/// The op in which something that is not finite first appears, by making the step again.
std::optional<Onset> trace_onset(Learner& learner, const Learner::Step& step) {
    const std::vector<TraceEntry> trace = learner.trace(step.record.step, step.batch);
    const TraceEntry* const entry = first_not_finite(trace);
    if (entry == nullptr) return {};
    const LayerSite place = layer_site(entry->site);
    return Onset{.step = step.record.step,
                 .layer = place.layer,
                 .site = std::string(place.site),
                 .statistic = entry->op + (entry->backward ? " backward" : ""),
                 .value = std::numeric_limits<double>::quiet_NaN(),
                 .before = 0};
}

/// The event that a verdict comes from: the first spike, or where what holds at the end began.
std::optional<Event> cause_of(std::string_view verdict, const std::filesystem::path& events) {
    const std::string_view kind = verdict == "diverged"  ? "divergence"
                                  : verdict == "stalled" ? "stall"
                                  : verdict == "spiky"   ? "loss_spike"
                                                         : verdict;
    std::optional<Event> cause;
    for (const Event& event : read_events(events))
        if (event.kind == kind && !(cause && verdict == "spiky")) cause = event;
    return cause;
}

/// Throws CheckpointError where the records have another loss than the one that the checkpoint remembers: to go on
/// would cut the records of one run back and continue another.
void require_same_run(const RunDirectory& run, const std::filesystem::path& checkpoint, const TrainerState& state) {
    if (state.stability.recent_losses.empty()) return;
    const double last = state.stability.recent_losses.back();
    bool other_run = false;
    try {
        visit_metrics(run.metrics_path(), [&](const StepRecord& record) {
            if (record.step == state.step) other_run = std::isfinite(record.loss) && record.loss != last;
        });
    } catch (const IoError&) {
        // What is damaged or missing is said, or mended, where the records are opened to go on.
    }
    if (other_run)
        throw CheckpointError({checkpoint.string() + ": of another run than " + run.metrics_path().string() +
                               ", which has another loss at step " + std::to_string(state.step) +
                               "; expected files of one run"});
}

/// Of what may change the bits of the steps behind `step`.
void warn_of_differences(const RunDirectory& run, std::int64_t step, const Environment& now, const Log& log) {
    std::vector<std::string> lost;
    for (const Environment& environment : run.environments_of(step, step, lost))
        for (const std::string& difference : decisive_differences(environment, now))
            log.warn("the run may go on with other bits than it would have where it began: " + difference);
    for (const std::string& what : lost)
        log.warn(what);
}

/// The config that the steps up to `step` were made with; `now` where it is lost.
Config trained_with(const RunDirectory& run, std::int64_t step, const Config& now, const Log& log) {
    try {
        return run.config_of(step);
    } catch (const Error& error) {
        log.warn(std::string(error.what()) + "; what the run was trained with up to step " + std::to_string(step) +
                 " is lost, and these steps cannot be replayed");
        return now;
    }
}

/// The step from which on the onset of an event is looked for: a stall may begin with the run, and a median is late.
std::int64_t first_suspect(const Event& event, const StabilityConfig& config) {
    if (event.kind == "stall") return 1;
    return event.step - (event.kind == "divergence" ? 2 * config.divergence_window : config.divergence_window / 2);
}
} // namespace

Trainer::Trainer(std::unique_ptr<Dataset> data, std::unique_ptr<Learner> learner, RunDirectory directory,
                 TrainerState state, std::optional<GraftRecord> graft, Log log)
    : data_(std::move(data)), learner_(std::move(learner)), directory_(std::move(directory)), state_(std::move(state)),
      graft_(std::move(graft)), log_(std::move(log)), config_json_(to_json(learner_->config())),
      rules_(learner_->config(), data_->unigram_entropy()),
      recorder_(directory_.path(), learner_->config().stability, *learner_) {
    if (config().stability.probe_every > 0) probe_.emplace(learner_->table(), config().optimizer);
    open_records();
}

/// Opens the run's own records at the state's step, which drops what they hold of later steps.
void Trainer::open_records() {
    events_.reset();
    layers_.reset();
    records_.clear();
    events_.emplace(directory_.events_path(), state_.step);
    if (graft_ && state_.step == 0) events_->write(graft_event(*graft_));
    if (probe_) layers_.emplace(directory_.layers_path(), state_.step);
    auto metrics = std::make_unique<JsonLinesSink>(directory_.metrics_path(), state_.step);
    if (metrics->kept_step() < state_.step)
        log_.warn(directory_.metrics_path().string() + ": the records of steps " +
                  std::to_string(metrics->kept_step() + 1) + " to " + std::to_string(state_.step) +
                  " are missing; going on without them");
    records_.push_back(std::move(metrics));
    if (config().log.csv) records_.push_back(std::make_unique<CsvSink>(directory_.csv_path(), state_.step));
    if (config().log.tensorboard) records_.push_back(std::make_unique<TensorBoardSink>(directory_.path(), state_.step));
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
    std::optional<GraftRecord> grafted;
    std::function<void(const std::filesystem::path&)> save_start;
    if (!config.init_from.run.empty()) {
        const std::unique_ptr<GraftSource> source = load_graft_source(config.init_from, log);
        grafted = ballast::graft(*source, config, *data, learner->table(), learner->model());
        learner->set_new_norms(grafted->new_norms);
        log.info(graft_event(*grafted).message);
        save_start = [&](const std::filesystem::path& run) {
            write_graft_record(run, *grafted);
            save_checkpoint(run, to_json(config), state, learner->table(), learner->optimizer().moments());
        };
    }
    if (config.train.steps < config.stability.divergence_window)
        log.info("stability.divergence_window is longer than the run: divergence and stall are not judged");
    RunDirectory run =
        RunDirectory::create(directory, to_json(config), current_environment(), kSystemCalls, save_start);
    return {std::move(data), std::move(learner), std::move(run), std::move(state), std::move(grafted), log};
}

Trainer Trainer::resume(const std::filesystem::path& directory, std::span<const std::string> overrides,
                        const Log& log) {
    RunDirectory run = RunDirectory::open_for_training(directory);
    const Config before_overrides = config_from_json(run.config_json(), run.config_path());
    const Config config = config_from_json(run.config_json(), run.config_path(), overrides);
    InitFromConfig start = config.init_from;
    start.new_norm_lr_scale = before_overrides.init_from.new_norm_lr_scale;
    start.new_norm_warmup = before_overrides.init_from.new_norm_warmup;
    if (start != before_overrides.init_from)
        throw UsageError(run.path().string() +
                         ": has started already, so init_from cannot name another start; expected "
                         "ballast train with a new --out");
    std::optional<GraftRecord> grafted = read_graft_record(run.path());
    const NewestCheckpoint newest = newest_checkpoint(run.path());
    if (newest.other_version) {
        std::vector<std::string> problems = newest.passed_over;
        problems.push_back(run.path().string() + ": to go on from less would replace checkpoints of another version of "
                                                 "ballast; expected that version");
        throw CheckpointError(std::move(problems));
    }
    for (const std::string& reason : newest.passed_over)
        log.warn(reason);
    auto data = std::make_unique<Dataset>(data_options(config));
    require_memory(estimate_memory(config, data->vocab_size(), resident_memory()), memory_limit());
    auto learner = std::make_unique<Learner>(config, *data);
    if (grafted) learner->set_new_norms(grafted->new_norms);
    TrainerState state;
    if (newest.path) {
        const std::string trained = read_checkpoint_info(*newest.path).config_json;
        const std::string changes =
            eps_changes(config_from_json(trained, *newest.path / "config.json").model, config.model);
        if (!changes.empty())
            log.warn("norms go on with another eps than the checkpoint was trained with, which changes its loss: " +
                     changes);
        load_checkpoint(*newest.path, state, learner->table(), learner->optimizer().moments());
        if (state.data_fingerprint != data->fingerprint())
            throw DataError(config.data.path + ": not the data that the run was trained on so far");
        require_same_run(run, *newest.path, state);
        ++state.resumed;
    } else if (!config.init_from.run.empty()) {
        throw CheckpointError({run.path().string() + ": has no whole checkpoint, and the weights that it started from "
                                                     "are lost with that of step 0; expected to be trained anew"});
    } else {
        log.warn(run.path().string() + " has no whole checkpoint; starting from step 0");
        state.started = utc_time();
        state.data_fingerprint = data->fingerprint();
        state.vocab_size = data->vocab_size();
        state.tokenizer = data->tokenizer();
    }
    // Where no step is left to make, what the overrides say was never trained with.
    const bool goes_on = state.step < config.train.steps;
    const Environment now = current_environment();
    warn_of_differences(run, state.step, now, log);
    const Config trained = trained_with(run, state.step, before_overrides, log);
    // The records first: they are cut back to the state's step, or cannot be, and then nothing has changed.
    Trainer trainer(std::move(data), std::move(learner), std::move(run), std::move(state), std::move(grafted), log);
    if (goes_on) {
        trainer.directory_.go_on_with(trainer.config_json_, now, trainer.state_.step);
        trainer.recorder_.forget_from(newest.path ? trainer.state_.step + 1 : 0);
        trainer.events_->write(resume_event(trainer.state_.step, diff(trained, config)));
    }
    return trainer;
}

RunSummary Trainer::run(std::span<MetricsSink* const> sinks, const std::atomic<bool>& interrupt) {
    const TrainConfig& train = config().train;
    const auto due = [&](std::int64_t every) {
        return state_.step == train.steps || (every > 0 && state_.step % every == 0);
    };
    std::string verdict(verdict_of(state_.stability));
    std::string reason;

    const bool stopped_before = was_stopped();
    while (!stopped_before && state_.step < train.steps) {
        recorder_.before_step(state_, *learner_, config_json_);
        const std::int64_t number = state_.step + 1;
        LayerProbe* const probe =
            probe_ && (number == 1 || number % config().stability.probe_every == 0) ? &*probe_ : nullptr;
        JudgedStep judged = judged_step(*learner_, rules_, state_, undo_, probe);
        StepRecord& record = judged.step.record;
        if (judged.made && due(train.eval_every)) {
            if (const std::optional<Evaluation> found = learner_->validate()) {
                record.val_loss = found->loss;
                record.val_accuracy = found->accuracy;
            }
            judge_validation(judged, rules_, state_);
        }
        if (record.val_loss && *record.val_loss < state_.best_val_loss) {
            state_.best_val_loss = *record.val_loss;
            state_.best_val_step = state_.step;
        }
        report(judged, probe != nullptr ? probe->records() : std::span<const LayerRecord>(), sinks);

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
    if (last_.step == 0) { // there was no step to make
        if (is_finished()) return directory_.summary();
        if (state_.resumed == 0) save();
        // Died between its last checkpoint and its summary.
        const std::vector<StepRecord> records = read_metrics(directory_.metrics_path());
        if (!records.empty()) last_ = records.back();
    }
    const std::optional<Event> cause = cause_of(verdict, directory_.events_path());
    if (verdict != "non_finite") onset_.reset();
    if (cause && !onset_ && verdict != "interrupted") onset_ = onset_before(*cause);
    if (cause && reason.empty()) reason = "step " + std::to_string(cause->step) + ": " + cause->message;
    RunSummary result = summary(verdict, reason);
    if (cause) result.event_step = cause->step;
    directory_.write_summary(result);
    return result;
}

/// A resume with other settings, or what the probes have seen since.
std::optional<Onset> Trainer::onset_before(const Event& cause) const {
    const std::int64_t first = first_suspect(cause, rules_.config);
    // Whatever a run was resumed with, it may have stalled all along.
    if (cause.kind != "stall")
        if (std::optional<Onset> resume =
                resume_onset(read_events(directory_.events_path()), config().schedule, first, cause.step))
            return resume;
    if (!probe_) return {};
    return find_onset(read_layers(directory_.layers_path()), first, cause.step);
}

bool Trainer::is_finished() const {
    if (state_.step < config().train.steps || state_.resumed == 0) return false;
    try {
        return directory_.summary().step == state_.step;
    } catch (const IoError&) {
        return false;
    }
}

/// Whether a policy had stopped the run at the state's step, and it died before its summary told: to go on would make
/// it another run than one that was left alone.
bool Trainer::was_stopped() const {
    if (state_.resumed == 0 || state_.step == 0) return false;
    std::error_code ignored;
    if (std::filesystem::exists(directory_.summary_path(), ignored) && directory_.summary().step == state_.step)
        return false;
    const std::vector<Event> events = read_events(directory_.events_path());
    return std::any_of(events.begin(), events.end(), [&](const Event& event) {
        const Policy policy = policy_of(rules_.config, event.kind);
        return event.step == state_.step && (policy == Policy::stop || policy == Policy::rewind);
    });
}

/// To records and sinks; and to the recorder, which writes at what may be worth a replay.
void Trainer::report(const JudgedStep& judged, std::span<const LayerRecord> layers,
                     std::span<MetricsSink* const> sinks) {
    last_ = judged.step.record;
    for (const auto& sink : records_)
        sink->write(last_);
    for (MetricsSink* sink : sinks)
        sink->write(last_);
    if (layers_) layers_->write(layers);
    recorder_.record(judged, *learner_, layers);
    for (const Event& event : judged.judgement.events) {
        events_->write(event);
        for (MetricsSink* sink : sinks)
            sink->event(event);
        if (event.kind == "non_finite" && !judged.step.updated) onset_ = trace_onset(*learner_, judged.step);
        if (event.kind != "gradient_spike") recorder_.write(event, state_, *learner_, config_json_);
    }
}

/// Goes back before the step that has just been judged. False when there is nothing to go back to, or this was done as
/// often as the config allows.
bool Trainer::rewind(const JudgedStep& judged, std::span<MetricsSink* const> sinks) {
    const StabilityConfig& config = rules_.config;
    const std::int64_t from = judged.step.record.step;
    const TrainerState before = state_;
    if (before.rewinds >= config.max_rewinds) return false;
    if (!recorder_.restore(from - config.rewind_steps, state_, *learner_)) return false;
    state_.seconds = before.seconds;
    state_.resumed = before.resumed;
    state_.rewinds = before.rewinds + 1;
    state_.stability.remedied = before.stability.remedied + 1;
    state_.skipped_batches = before.skipped_batches + from - state_.step;

    // A snapshot on the disk may be from before a resume.
    directory_.go_on_with(config_json_, current_environment(), state_.step);
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
    if (layers_) layers_->sync();
    events_->sync();
    const std::filesystem::path saved =
        save_checkpoint(directory_.path(), config_json_, state_, learner_->table(), learner_->optimizer().moments());
    log_.info("saved " + saved.string());
    const std::array<std::int64_t, 2> spared{state_.best_val_step, 0}; // step 0: the start of a grafted run
    prune_checkpoints(directory_.path(), config().train.keep_checkpoints, std::span(spared).first(graft_ ? 2 : 1));
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
    if (onset_) {
        result.onset = onset_->text();
        result.onset_step = onset_->step;
        result.onset_layer = onset_->layer;
        result.onset_site = onset_->site;
        result.onset_statistic = onset_->statistic;
    }
    result.loss_spikes = state_.stability.loss_spikes;
    result.gradient_spikes = state_.stability.gradient_spikes;
    result.rewinds = state_.rewinds;
    SpikeScore losses, gradient_norms;
    visit_metrics(directory_.metrics_path(), [&](const StepRecord& record) {
        losses.add(record.loss);
        gradient_norms.add(record.gradient_norm);
    });
    result.loss_spike_score = losses.score();
    result.gradient_spike_score = gradient_norms.score();
    result.seconds = state_.seconds;
    result.tokens_per_second = state_.seconds > 0 ? static_cast<double>(state_.tokens) / state_.seconds : 0;
    result.started = state_.started;
    result.finished = utc_time();
    result.resumed = state_.resumed;
    return result;
}

} // namespace ballast
