#include "ballast/lab/replay.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <memory>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/config/describe.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/graft_record.h"
#include "ballast/train/judged_step.h"
#include "ballast/train/metrics.h"
#include "ballast/train/onset.h"
#include "ballast/train/run_directory.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

bool same_bits(double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) || (std::isnan(a) && std::isnan(b));
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

std::string name_of(const TraceEntry& entry) {
    return entry.site + ": " + entry.op + (entry.backward ? " backward " : "") + entry.made;
}

OutOfRange judge(const TraceEntry& entry, const std::optional<RmsRange>& usual, const Learner& learner) {
    const double rms = entry.range.rms;
    if (entry.range.not_finite > 0) return OutOfRange::not_finite;
    // What was 0, such as the branch of a block that starts as the identity, has no range.
    if (usual && usual->largest > 0 && rms > kRangeFactor * usual->largest) return OutOfRange::above;
    if (usual && rms < usual->least / kRangeFactor) return OutOfRange::below;
    const OptimizerConfig& optimizer = learner.config().optimizer;
    const std::span<const Param> params = learner.table().params();
    const bool is_parameter = entry.backward && std::any_of(params.begin(), params.end(), [&](const Param& param) {
                                  return param.name == entry.made;
                              });
    if (is_parameter && optimizer.kind == OptimizerKind::adamw && rms > 0 && rms < optimizer.eps)
        return OutOfRange::at_eps;
    return OutOfRange::no;
}

} // namespace

/// Makes the steps of a run again, from a state that it has kept.
class Replay::Walk {
public:
    Walk(const Replay& replay, const ReplayStart& start) : replay_(replay) {
        begin_stretch(start.step);
        if (start.checkpoint.empty()) return;
        load_checkpoint(start.checkpoint, state_, learner_->table(), learner_->optimizer().moments());
        if (state_.data_fingerprint != data_->fingerprint())
            throw DataError(config().data.path + ": not the data that the run was trained on");
    }

    const Learner& learner() const { return *learner_; }
    const Config& config() const { return learner_->config(); }

    /// Makes the steps before `step`; `each` is given what replayed steps had to say.
    void go_to(std::int64_t step, const std::function<void(const StepRecord&)>& each) {
        while (state_.step + 1 < step) {
            const JudgedStep judged = judged_step(*learner_, *rules_, state_, undo_);
            each(judged.step.record);
            if (!judged.made)
                throw Error("step " + std::to_string(judged.step.record.step) + " ends the replay: " +
                            judged.step.non_finite + " is not finite, which the run did not see");
            if (const Stretch* const next = stretch_behind(state_.step); next != stretch_) cross();
        }
    }

    /// Of the step behind the last one that was made.
    std::vector<TraceEntry> trace() { return learner_->trace(next_step(), next_batch()); }
    StepRecord forward() { return learner_->gradients(next_step(), next_batch()).record; }

private:
    std::int64_t next_step() const { return state_.step + 1; }
    std::int64_t next_batch() const { return next_step() + state_.skipped_batches; }

    const Stretch* stretch_behind(std::int64_t step) const {
        const auto& all = replay_.stretches_;
        const auto next = std::find_if(all.begin(), all.end(), [&](const Stretch& one) { return one.after > step; });
        return next == all.begin() ? &all.front() : &*std::prev(next);
    }

    void begin_stretch(std::int64_t step) {
        stretch_ = stretch_behind(step);
        auto data = std::make_unique<Dataset>(data_options(stretch_->config));
        learner_ = std::make_unique<Learner>(stretch_->config, *data);
        data_ = std::move(data); // behind the learner that used the one before
        learner_->set_new_norms(replay_.new_norms_);
        rules_.emplace(stretch_->config, data_->unigram_entropy());
    }

    /// Goes on with other settings, as a resume did.
    void cross() {
        Snapshot now;
        now.take(state_, learner_->table(), learner_->optimizer().moments());
        begin_stretch(state_.step);
        if (!now.fits(learner_->table(), learner_->optimizer().moments()))
            throw IoError(replay_.run_.string() + ": has other parameters behind step " + std::to_string(state_.step) +
                          " than before; its configs are of several runs");
        now.restore(learner_->table(), learner_->optimizer().moments());
    }

    const Replay& replay_;
    const Stretch* stretch_ = nullptr;
    std::unique_ptr<Dataset> data_;
    std::unique_ptr<Learner> learner_;
    std::optional<StabilityRules> rules_;
    TrainerState state_;
    Snapshot undo_;
};

/// From the weights at the start to the step.
std::int64_t Replay::find_stretches(const RunDirectory& directory, const std::vector<Event>& events) {
    const std::vector<std::int64_t> changes = directory.config_changes();
    std::int64_t last = 0, unknown_until = 0;
    for (const std::int64_t change : changes) {
        if (change >= step_) break;
        try {
            stretches_.push_back({std::exchange(last, change), directory.config_of(change)});
        } catch (const Error&) { // unreadable: the step is reached from later states alone
            unknown_until = change;
        }
    }
    stretches_.push_back({last, directory.config_of(step_)});

    for (const Event& event : events) {
        const bool is_kept = std::binary_search(changes.begin(), changes.end(), event.step);
        if (event.kind != "resume" || resume_changes(event).empty() || is_kept) continue;
        if (event.step < step_)
            unknown_until = std::max(unknown_until, event.step);
        else if (doubts_.empty())
            doubts_.push_back("the settings that the run had before its resume at step " + std::to_string(event.step) +
                              " are lost");
    }
    return unknown_until;
}

/// See kReferenceSteps.
void Replay::find_reference(const RunDirectory& directory, const std::vector<Event>& events) {
    const auto reaches = [&](std::int64_t last) { return last > starts_.front().step && last < step_; };
    std::int64_t last = 0;
    try {
        const RunSummary summary = directory.summary();
        const auto spike =
            std::find_if(events.begin(), events.end(), [](const Event& e) { return e.kind == "loss_spike"; });
        // What a spike has disturbed has its range again some steps later.
        const bool is_over = summary.verdict == "spiky" && spike != events.end() && spike->step < step_;
        if (summary.onset_step && *summary.onset_step >= 1 && *summary.onset_step <= step_ && !is_over) {
            const bool is_exact = summary.verdict == "non_finite" || summary.onset_site == kResumeSite;
            const std::int64_t probe_every = std::max<std::int64_t>(1, config().stability.probe_every);
            last = std::max<std::int64_t>(1, *summary.onset_step - (is_exact ? 1 : probe_every));
        }
    } catch (const IoError&) {
        // The run has none yet.
    }
    if (!reaches(last)) last = std::max(step_ - kReferenceGap, starts_.front().step + 1);
    if (!reaches(last)) return;
    reference_last_ = last;
    reference_first_ = std::max(last - kReferenceSteps + 1, starts_.front().step + 1);
}

Replay::Replay(const fs::path& run, std::int64_t step, std::optional<std::int64_t> from) : run_(run), step_(step) {
    const RunDirectory directory = RunDirectory::open(run);
    for (const StepRecord& record : read_metrics(directory.metrics_path()))
        records_[record.step] = record;
    if (records_.empty()) throw UsageError(run.string() + ": has recorded no step yet");
    if (!records_.contains(step))
        throw UsageError("--step " + std::to_string(step) + ": outside the run, which has recorded steps " +
                         std::to_string(records_.begin()->first) + " to " + std::to_string(records_.rbegin()->first));

    const std::vector<Event> events = read_events(directory.events_path());
    std::int64_t earliest = find_stretches(directory, events);
    for (const Event& event : events) // states from before a rewind lead elsewhere
        if (event.kind == "rewind" && event.step < step) earliest = std::max(earliest, event.step);
    const std::optional<GraftRecord> grafted = read_graft_record(run);
    if (grafted) new_norms_ = grafted->new_norms;
    for (const ReplayStart& start : kept_states(run, grafted.has_value()))
        if (start.step < step && start.step >= earliest) starts_.push_back(start);
    if (starts_.empty())
        throw UsageError(run.string() + ": no state is kept from which step " + std::to_string(step) +
                         " could be reached; checkpoints are of other settings or of later steps");
    find_reference(directory, events);

    start_ = starts_.back();
    if (start_.step >= reference_first_ && start_.step < reference_last_) start_ = state_before(reference_first_);
    if (from) {
        const auto found =
            std::find_if(starts_.begin(), starts_.end(), [&](const ReplayStart& start) { return start.step == *from; });
        if (found == starts_.end())
            throw UsageError("--from " + std::to_string(*from) + ": no state of that step leads to step " +
                             std::to_string(step) + "; expected one of " + step_list(starts_));
        start_ = *found;
    }

    const Environment now = current_environment();
    for (const Environment& recorded : directory.environments_of(start_.step + 1, step_, doubts_))
        for (const std::string& difference : decisive_differences(recorded, now))
            if (std::find(doubts_.begin(), doubts_.end(), difference) == doubts_.end()) doubts_.push_back(difference);
}

/// The latest from which a step can be made.
const ReplayStart& Replay::state_before(std::int64_t step) const {
    const auto found =
        std::find_if(starts_.rbegin(), starts_.rend(), [&](const ReplayStart& start) { return start.step < step; });
    return found == starts_.rend() ? starts_.front() : *found;
}

ReplayResult Replay::run(const Log& log) const {
    ReplayResult result;
    const auto compare = [&](const StepRecord& replayed) {
        const auto recorded = records_.find(replayed.step);
        if (recorded == records_.end()) return;
        ++result.compared;
        if (!result.first_different && !same_bits(recorded->second.loss, replayed.loss))
            result.first_different = replayed.step;
    };
    std::map<std::string, RmsRange> ranges;
    const bool is_on_the_way = reference_first_ > start_.step;
    if (!is_on_the_way) ranges = reference_apart(log);
    log.info("making steps " + std::to_string(start_.step + 1) + " to " + std::to_string(step_) + " again");
    Walk walk(*this, start_);
    if (is_on_the_way) ranges = reference(walk, compare);
    walk.go_to(step_, compare);
    result.trace = walk.trace();
    result.recorded_loss = records_.at(step_).loss;
    const StepRecord last = walk.forward();
    result.replayed_loss = last.loss;
    compare(last);

    if (!ranges.empty()) {
        result.reference_first = reference_first_;
        result.reference_last = reference_last_;
    }
    for (std::size_t i = 0; i < result.trace.size(); ++i) {
        const TraceEntry& entry = result.trace[i];
        const auto range = ranges.find(name_of(entry));
        result.reference.push_back(range == ranges.end() ? std::optional<RmsRange>() : range->second);
        const OutOfRange how = judge(entry, result.reference.back(), walk.learner());
        const bool is_first = how == OutOfRange::not_finite ? result.how != OutOfRange::not_finite
                                                            : how != OutOfRange::no && !result.first_out;
        if (!is_first) continue;
        result.first_out = i;
        result.how = how;
    }
    return result;
}

/// The same, from the latest whole state before the reference; empty where there is none, or where its steps are not
/// those that were recorded for no known reason.
std::map<std::string, RmsRange> Replay::reference_apart(const Log& log) const {
    for (auto start = starts_.rbegin(); start != starts_.rend(); ++start) {
        if (start->step >= reference_first_) continue;
        bool is_exact = true;
        log.info("making steps " + std::to_string(start->step + 1) + " to " + std::to_string(reference_last_) +
                 " again, for the range of values before");
        try {
            Walk walk(*this, *start);
            std::map<std::string, RmsRange> ranges = reference(walk, [&](const StepRecord& replayed) {
                const auto recorded = records_.find(replayed.step);
                is_exact &= recorded == records_.end() || same_bits(recorded->second.loss, replayed.loss);
            });
            if (!is_exact && doubts_.empty()) return {};
            return ranges;
        } catch (const CheckpointError&) {
            // The one before may be whole.
        }
    }
    return {};
}

/// The range of each entry of the trace, by its name, over the steps of the reference.
std::map<std::string, RmsRange> Replay::reference(Walk& walk,
                                                  const std::function<void(const StepRecord&)>& each) const {
    std::map<std::string, RmsRange> ranges;
    for (std::int64_t step = reference_first_; step <= reference_last_; ++step) {
        walk.go_to(step, each);
        for (const TraceEntry& entry : walk.trace()) {
            const double rms = entry.range.rms;
            RmsRange& range = ranges.try_emplace(name_of(entry), RmsRange{rms, rms}).first->second;
            range.least = std::fmin(range.least, rms);
            range.largest = std::fmax(range.largest, rms);
        }
    }
    return ranges;
}

} // namespace ballast
