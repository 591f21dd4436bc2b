#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ballast/base/log.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/learner.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"

namespace ballast {

/// A training run with its directory: makes steps, keeps records, saves checkpoints.
class Trainer {
public:
    /// A new run in a new directory. Throws UsageError when `directory` exists, and what loading the data throws; the
    /// directory is not made unless everything else is ready.
    static Trainer start(const Config& config, const std::filesystem::path& directory, const Log& log = {});

    /// Goes on from the newest whole checkpoint of a run, or from the beginning when there is none. `overrides` are
    /// `--set` settings on top of the run's config, which takes them in unless there is no step left to make. Records
    /// that should be there and are not are warned of. The finished run equals one that was never interrupted, to the
    /// bit. Throws UsageError when it is no run or another process works on it, DataError when the data has changed,
    /// CheckpointError when an override changes the architecture.
    static Trainer resume(const std::filesystem::path& directory, std::span<const std::string> overrides = {},
                          const Log& log = {});

    /// Trains to the last step, until `interrupt` becomes true (then the step under way is finished and saved), or
    /// until a value is not finite. Every StepRecord goes to the run's own records and to `sinks`. Returns the summary,
    /// which is also in the run directory: verdict "finished", "interrupted" or "non_finite".
    RunSummary run(std::span<MetricsSink* const> sinks, const std::atomic<bool>& interrupt);

    /// Whether a run that was resumed has made its last step before, and its summary says so.
    bool is_finished() const;

    const Config& config() const { return learner_->config(); }
    const Dataset& data() const { return *data_; }
    const Learner& learner() const { return *learner_; }
    const RunDirectory& directory() const { return directory_; }
    const TrainerState& state() const { return state_; }

private:
    Trainer(std::unique_ptr<Dataset> data, std::unique_ptr<Learner> learner, RunDirectory directory, TrainerState state,
            Log log);

    void note(const StepRecord& record);
    void save();
    RunSummary summary(std::string verdict, std::string reason) const;

    std::unique_ptr<Dataset> data_;
    std::unique_ptr<Learner> learner_;
    RunDirectory directory_;
    TrainerState state_;
    Log log_;
    std::string config_json_;
    EventLog events_;
    std::vector<std::unique_ptr<MetricsSink>> records_;
    StepRecord last_;
};

} // namespace ballast
