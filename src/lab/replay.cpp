#include "ballast/lab/replay.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/graft_record.h"
#include "ballast/train/judged_step.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

bool same_bits(double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) || (std::isnan(a) && std::isnan(b));
}

Config config_of(const fs::path& checkpoint) {
    return config_from_json(read_checkpoint_info(checkpoint).config_json, checkpoint / "config.json");
}

/// Whether two configs give the same steps: what only says how a run is recorded does not count.
bool same_steps(Config a, Config b) {
    for (Config* config : {&a, &b}) {
        config->name.clear();
        config->log = {};
        config->train.eval_every = config->train.eval_batches = config->train.checkpoint_every = 1;
        config->train.keep_checkpoints = config->train.log_every = 1;
    }
    return a == b;
}

std::string step_list(const std::vector<ReplayStart>& starts) {
    std::string text;
    std::int64_t last = -1; // a checkpoint and a snapshot may be of one step
    for (const ReplayStart& start : starts)
        if (start.step != std::exchange(last, start.step))
            text += (text.empty() ? "" : ", ") + std::to_string(start.step);
    return text;
}

std::vector<ReplayStart> kept_states(const fs::path& run, bool grafted) {
    std::vector<ReplayStart> starts;
    if (!grafted) starts.emplace_back(); // weights that can be drawn again
    for (const fs::path& folder : {run, run / "recorder"})
        for (const std::int64_t step : list_checkpoints(folder))
            starts.push_back({step, checkpoint_path(folder, step)});
    std::stable_sort(starts.begin(), starts.end(),
                     [](const ReplayStart& a, const ReplayStart& b) { return a.step < b.step; });
    return starts;
}

std::optional<std::size_t> first_out_of_range(const ReplayResult& result) {
    for (std::size_t i = 0; i < result.trace.size(); ++i)
        if (result.trace[i].range.not_finite > 0) return i;
    for (std::size_t i = 0; i < result.reference_rms.size() && i < result.trace.size(); ++i)
        if (result.trace[i].range.rms > kOutOfRange * result.reference_rms[i]) return i;
    return {};
}

} // namespace

Replay::Replay(const fs::path& run, std::int64_t step, std::optional<std::int64_t> from) : run_(run), step_(step) {
    const RunDirectory directory = RunDirectory::open(run);
    for (const StepRecord& record : read_metrics(directory.metrics_path()))
        records_[record.step] = record;
    if (records_.empty()) throw UsageError(run.string() + ": has recorded no step yet");
    if (!records_.contains(step))
        throw UsageError("--step " + std::to_string(step) + ": outside the run, which has recorded steps " +
                         std::to_string(records_.begin()->first) + " to " + std::to_string(records_.rbegin()->first));

    // What the run went on with, and when: a state from before a resume with other settings, or from before a rewind,
    // leads elsewhere.
    std::int64_t last_resume = 0, last_rewind = 0;
    std::optional<std::int64_t> next_resume;
    for (const Event& event : read_events(directory.events_path())) {
        if (event.kind == "rewind" && event.step < step) last_rewind = event.step;
        if (event.kind != "resume") continue;
        if (event.step < step)
            last_resume = event.step;
        else if (!next_resume)
            next_resume = event.step;
    }
    const std::optional<GraftRecord> grafted = read_graft_record(run);
    if (grafted) new_norms_ = grafted->new_norms;
    const std::vector<ReplayStart> kept = kept_states(run, grafted.has_value());
    config_ = config_from_json(directory.config_json(), directory.config_path());
    if (next_resume) { // checkpoints from the time of the step have its config
        const auto found = std::find_if(kept.begin(), kept.end(), [&](const ReplayStart& start) {
            return start.step >= step && start.step <= *next_resume;
        });
        if (found != kept.end())
            config_ = config_of(found->checkpoint);
        else
            doubts_.emplace_back("no checkpoint has the config that the step was made with");
    }
    for (const ReplayStart& start : kept) {
        if (start.step >= step || start.step < last_rewind) continue;
        const bool changed =
            start.step < last_resume && (start.checkpoint.empty() || !same_steps(config_of(start.checkpoint), config_));
        if (!changed) starts_.push_back(start);
    }
    if (starts_.empty())
        throw UsageError(run.string() + ": no state is kept from which step " + std::to_string(step) +
                         " could be reached; checkpoints are of other settings or of later steps");

    start_ = starts_.back();
    // One step earlier than need be, when there is the choice: its values are what those of the step are compared with.
    for (const ReplayStart& start : starts_)
        if (start.step < step - 1) start_ = start;
    if (from) {
        const auto found =
            std::find_if(starts_.begin(), starts_.end(), [&](const ReplayStart& start) { return start.step == *from; });
        if (found == starts_.end())
            throw UsageError("--from " + std::to_string(*from) + ": no state of that step leads to step " +
                             std::to_string(step) + "; expected one of " + step_list(starts_));
        start_ = *found;
    }

    Environment before = directory.environment();
    const Environment now = current_environment();
    before.threads = now.threads; // change no bit
    before.processors = now.processors;
    before.os = now.os;
    for (const std::string& difference : differences(before, now))
        doubts_.push_back(difference);
}

ReplayResult Replay::run() const {
    const Dataset data(data_options(config_));
    Learner learner(config_, data);
    learner.set_new_norms(new_norms_);
    TrainerState state;
    if (!start_.checkpoint.empty()) {
        load_checkpoint(start_.checkpoint, state, learner.table(), learner.optimizer().moments());
        if (state.data_fingerprint != data.fingerprint())
            throw DataError(config_.data.path + ": not the data that the run was trained on");
    }
    const StabilityRules rules(config_, data.unigram_entropy());
    const auto trace_next = [&] { return learner.trace(state.step + 1, state.step + 1 + state.skipped_batches); };

    ReplayResult result;
    const auto compare = [&](const StepRecord& replayed) {
        const auto recorded = records_.find(replayed.step);
        if (recorded == records_.end()) return;
        ++result.compared;
        if (!result.first_different && !same_bits(recorded->second.loss, replayed.loss))
            result.first_different = replayed.step;
    };
    if (state.step + 1 < step_) {
        result.reference_step = state.step + 1;
        for (const TraceEntry& entry : trace_next())
            result.reference_rms.push_back(entry.range.rms);
    }
    Snapshot undo;
    while (state.step + 1 < step_) {
        const JudgedStep judged = judged_step(learner, rules, state, undo);
        compare(judged.step.record);
        if (!judged.made)
            throw Error("step " + std::to_string(judged.step.record.step) +
                        " ends the replay: " + judged.step.non_finite + " is not finite, which the run did not see");
    }
    result.trace = trace_next();
    result.recorded_loss = records_.at(step_).loss;
    const Learner::Step last = learner.gradients(step_, step_ + state.skipped_batches);
    result.replayed_loss = last.record.loss;
    compare(last.record);
    result.first_out = first_out_of_range(result);
    return result;
}

} // namespace ballast
