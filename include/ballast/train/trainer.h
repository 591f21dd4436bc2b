#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ballast/base/log.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/flight_recorder.h"
#include "ballast/train/graft_record.h"
#include "ballast/train/judged_step.h"
#include "ballast/train/learner.h"
#include "ballast/train/metrics.h"
#include "ballast/train/onset.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/stability.h"

namespace ballast {

/// A training run with its directory: makes steps, keeps records, saves checkpoints.
class Trainer {
public:
    /// A new run in a new directory. With `init_from`, its weights are those of another run (graft.h), saved as the
    /// checkpoint of step 0, which is kept. Throws UsageError when `directory` exists, what loading the data throws,
    /// and what graft.h throws; the directory is not made unless everything else is ready.
    static Trainer start(const Config& config, const std::filesystem::path& directory, const Log& log = {});

    /// Goes on from the newest whole checkpoint of a run, or from the beginning when there is none. `overrides` are
    /// `--set` settings on top of the run's config, which takes them in unless there is no step left to make. Records
    /// that should be there and are not are warned of. The finished run equals one that was never interrupted, to the
    /// bit. Throws UsageError when it is no run or another process works on it, or when an override asks for other
    /// weights to start from, DataError when the data has changed, CheckpointError when an override changes the
    /// architecture or the weights that a grafted run started from are lost.
    static Trainer resume(const std::filesystem::path& directory, std::span<const std::string> overrides = {},
                          const Log& log = {});

    /// Trains to the last step, until `interrupt` becomes true (then the step under way is finished and saved), or
    /// until an event whose policy is to stop. Every StepRecord and Event goes to the run's own records and to `sinks`.
    /// Returns the summary, which is also in the run directory.
    ///
    /// A rewind restores the newest snapshot that this process has kept of `rewind_steps` before the event, or the
    /// oldest, cuts records and checkpoints back to it and leaves out the batches since.
    RunSummary run(std::span<MetricsSink* const> sinks, const std::atomic<bool>& interrupt);

    /// Whether a run that was resumed has made its last step before, and its summary says so.
    std::optional<Onset> onset_before(const Event& cause) const;
    bool is_finished() const;

    const Config& config() const { return learner_->config(); }
    const Dataset& data() const { return *data_; }
    const Learner& learner() const { return *learner_; }
    const RunDirectory& directory() const { return directory_; }
    const FlightRecorder& recorder() const { return recorder_; }
    const TrainerState& state() const { return state_; }
    /// How the run began, if from another run.
    const std::optional<GraftRecord>& graft() const { return graft_; }

private:
    Trainer(std::unique_ptr<Dataset> data, std::unique_ptr<Learner> learner, RunDirectory directory, TrainerState state,
            std::optional<GraftRecord> graft, Log log);

    void open_records();
    void report(const JudgedStep& judged, std::span<const LayerRecord> layers, std::span<MetricsSink* const> sinks);
    bool rewind(const JudgedStep& judged, std::span<MetricsSink* const> sinks);
    bool was_stopped() const;
    void save();
    RunSummary summary(std::string verdict, std::string reason) const;

    std::unique_ptr<Dataset> data_;
    std::unique_ptr<Learner> learner_;
    RunDirectory directory_;
    TrainerState state_;
    std::optional<GraftRecord> graft_;
    Log log_;
    std::string config_json_;
    StabilityRules rules_;
    FlightRecorder recorder_;
    Snapshot undo_;
    std::optional<LayerProbe> probe_;
    std::optional<EventLog> events_;
    std::optional<LayerLog> layers_;
    std::vector<std::unique_ptr<MetricsSink>> records_;
    StepRecord last_;
    std::optional<Onset> onset_; ///< where it began
};

} // namespace ballast
