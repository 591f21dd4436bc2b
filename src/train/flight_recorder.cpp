#include "ballast/train/flight_recorder.h"

#include <algorithm>
#include <system_error>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/train/metrics.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kSteps = 64;
constexpr std::int64_t kMostRecordings = 16;
constexpr std::int64_t kCheckpoints = 8; ///< kept in the recorder's folder

/// Snapshots that reach back as far as a rewind does, and one more: two in any case, to replay a step from either.
std::size_t snapshots_to_keep(const StabilityConfig& config) {
    if (config.snapshot_every == 0) return 0;
    const bool may_rewind = config.on_non_finite == Policy::rewind || config.on_spike == Policy::rewind ||
                            config.on_divergence == Policy::rewind;
    return 2 + static_cast<std::size_t>(may_rewind ? config.rewind_steps / config.snapshot_every : 0);
}

std::string batch_line(const JudgedStep& judged, const Learner& learner) {
    return "{\"step\":" + std::to_string(judged.step.record.step) + ",\"batch\":" + std::to_string(judged.step.batch) +
           ",\"checksum\":\"" + hex_digits(judged.step.batch_checksum) +
           "\",\"repetition\":" + number_text(repetition(learner.inputs(), learner.config().model.context)) + "}\n";
}

} // namespace

double repetition(std::span<const std::int32_t> tokens, std::int64_t context) {
    constexpr std::int64_t kLongestPeriod = 16;
    double most = 0;
    for (std::int64_t period = 1; period <= std::min(kLongestPeriod, context - 1); ++period) {
        std::int64_t equal = 0, pairs = 0;
        for (std::size_t row = 0; row < tokens.size(); row += static_cast<std::size_t>(context)) {
            const std::int32_t* const sequence = tokens.data() + row;
            for (std::int64_t i = period; i < context; ++i)
                equal += sequence[i] == sequence[i - period] ? 1 : 0;
            pairs += context - period;
        }
        most = std::max(most, static_cast<double>(equal) / static_cast<double>(pairs));
    }
    return most;
}

std::size_t state_bytes(const ParamTable& table, std::size_t moments) {
    return sizeof(float) *
           static_cast<std::size_t>(table.state_size() + table.size() * static_cast<std::int64_t>(moments));
}

SnapshotPlan snapshot_plan(const StabilityConfig& config, std::size_t state_bytes) {
    const std::size_t bytes = snapshots_to_keep(config) * state_bytes;
    return {snapshots_to_keep(config), bytes, bytes > static_cast<std::size_t>(config.snapshot_memory) << 20U};
}

FlightRecorder::FlightRecorder(const fs::path& run, const StabilityConfig& config, const Learner& learner)
    : folder_(run / "recorder"), every_(config.snapshot_every),
      plan_(snapshot_plan(config, state_bytes(learner.table(), learner.optimizer().moments().size()))),
      snapshots_(plan_.on_disk ? 0 : plan_.keep) {}

void FlightRecorder::before_step(const TrainerState& state, const Learner& learner, std::string_view config_json) {
    if (every_ == 0 || state.step == last_snapshot_) return;
    if (last_snapshot_ >= 0 && state.step % every_ != 0) return;
    last_snapshot_ = state.step;
    if (!plan_.on_disk) {
        snapshots_.take(state, learner.table(), learner.optimizer().moments());
        return;
    }
    fs::create_directories(folder_);
    save_checkpoint(folder_, config_json, state, learner.table(), learner.optimizer().moments());
    prune_checkpoints(folder_, static_cast<std::int64_t>(plan_.keep), {});
}

void FlightRecorder::record(const JudgedStep& judged, const Learner& learner, std::span<const LayerRecord> layers) {
    Lines lines{judged.step.record.step, to_json(judged.step.record) + "\n", batch_line(judged, learner), ""};
    for (const LayerRecord& layer : layers)
        (lines.layers += to_json(layer)) += '\n';
    if (lines_.size() == kSteps) lines_.pop_front();
    lines_.push_back(std::move(lines));
}

void FlightRecorder::write(const Event& event, const TrainerState& state, Learner& learner,
                           std::string_view config_json) {
    if (recordings_++ == kMostRecordings) return;
    const fs::path recording = folder_ / (step_name(event.step) + "-" + event.kind);
    std::error_code problem;
    fs::create_directories(recording, problem);
    if (problem) throw IoError(recording.string() + ": cannot write: " + problem.message());

    std::string metrics, batches, layers;
    for (const Lines& lines : lines_) {
        metrics += lines.metrics;
        batches += lines.batch;
        layers += lines.layers;
    }
    write_file_atomic(recording / "metrics.jsonl", metrics);
    write_file_atomic(recording / "batches.jsonl", batches);
    write_file_atomic(recording / "layers.jsonl", layers);
    EventLog(recording / "events.jsonl").write(event);

    if (snapshots_.all().empty()) return;
    // Checkpoints are written from the learner, so the snapshots take its place one after another.
    ParamTable& table = learner.table();
    const auto moments = learner.optimizer().moments();
    Snapshot now;
    now.take(state, table, moments);
    for (const Snapshot& snapshot : snapshots_.all()) {
        snapshot.restore(table, moments);
        save_checkpoint(folder_, config_json, snapshot.state, table, moments);
    }
    now.restore(table, moments);
    prune_checkpoints(folder_, kCheckpoints, {});
}

void FlightRecorder::forget_from(std::int64_t step) { remove_checkpoints_from(folder_, step); }

bool FlightRecorder::restore(std::int64_t step, TrainerState& state, Learner& learner) {
    const auto moments = learner.optimizer().moments();
    if (plan_.on_disk) {
        const std::vector<std::int64_t> steps = list_checkpoints(folder_);
        if (steps.empty()) return false;
        const auto after = std::upper_bound(steps.begin(), steps.end(), step);
        load_checkpoint(checkpoint_path(folder_, after == steps.begin() ? steps.front() : *std::prev(after)), state,
                        learner.table(), moments);
    } else {
        const Snapshot* const snapshot = snapshots_.before(step);
        if (snapshot == nullptr) return false;
        snapshot->restore(learner.table(), moments);
        state = snapshot->state;
    }
    // That of the step itself, too: the run goes on from it with other batches.
    snapshots_.drop_after(state.step - 1);
    remove_checkpoints_from(folder_, state.step);
    last_snapshot_ = -1;
    while (!lines_.empty() && lines_.back().step > state.step)
        lines_.pop_back();
    return true;
}

} // namespace ballast
