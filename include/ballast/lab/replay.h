#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/train/step_record.h"
#include "ballast/train/trace.h"

namespace ballast {

/// A state of a run that a replay can begin from.
struct ReplayStart {
    std::int64_t step = 0;
    std::filesystem::path checkpoint; ///< in checkpoints/ or recorder/checkpoints/; empty: the weights at the start
};

/// A step of a run, made again and looked at.
struct ReplayResult {
    std::int64_t compared = 0;                   ///< recorded steps, the last one included, whose loss was compared
    std::optional<std::int64_t> first_different; ///< the first whose loss is not the recorded one to the last bit
    double recorded_loss = 0;
    double replayed_loss = 0;
    std::vector<TraceEntry> trace; ///< of the step
    std::optional<std::int64_t> reference_step;
    std::vector<double> reference_rms; ///< of each entry of the trace at `reference_step`; empty: there was none
    /// The first entry of the trace that is not finite, or else whose RMS is above kOutOfRange times that at
    /// `reference_step`.
    std::optional<std::size_t> first_out;
};

inline constexpr double kOutOfRange = 4;

/// Goes from a state that a run has kept to one of its steps, exactly, and traces that step. The run is only read; it
/// may be still running.
class Replay {
public:
    /// `from` asks for the state of a step; without it, the nearest is taken that leaves a step to compare with. Throws
    /// UsageError when there is no such run, step or state, IoError for records that are damaged.
    Replay(const std::filesystem::path& run, std::int64_t step, std::optional<std::int64_t> from = {});

    std::int64_t step() const { return step_; }
    const ReplayStart& start() const { return start_; }
    const std::vector<ReplayStart>& starts() const { return starts_; } ///< all states that lead to the step
    const Config& config() const { return config_; }                   ///< that the step was made with

    /// Why the bits may differ from those of the run: another library, processor or version, data that has changed.
    const std::vector<std::string>& doubts() const { return doubts_; }

    /// Throws CheckpointError, and what loading the data throws.
    ReplayResult run() const;

private:
    std::filesystem::path run_;
    std::int64_t step_;
    std::map<std::int64_t, StepRecord> records_;
    Config config_;
    std::vector<ReplayStart> starts_;
    ReplayStart start_;
    std::vector<std::string> doubts_;
    std::vector<std::string> new_norms_; ///< of a grafted run
};

} // namespace ballast
