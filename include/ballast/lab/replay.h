#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/log.h"
#include "ballast/config/config.h"
#include "ballast/train/event.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/step_record.h"
#include "ballast/train/trace.h"

namespace ballast {

/// A state of a run that a replay can begin from.
struct ReplayStart {
    std::int64_t step = 0;
    std::filesystem::path checkpoint; ///< in checkpoints/ or recorder/checkpoints/; empty: the weights at the start
};

/// Of the RMS of a value or gradient over several steps.
struct RmsRange {
    double least = 0;
    double largest = 0;
};

/// How a value or gradient is outside of its range.
enum class OutOfRange {
    no,
    not_finite, ///< an element is NaN or infinite
    above,      ///< its RMS is above kRangeFactor times the largest of the reference
    below,      ///< its RMS is below the least of the reference over kRangeFactor
    at_eps, ///< adamw: the RMS of a parameter's gradient is below `optimizer.eps`, which then sets the update's size
};

inline constexpr double kRangeFactor = 4;

/// The range of a value is that over at most kReferenceSteps steps before things went wrong: up to the last probe
/// before the onset that the run's summary names, or where it names none, up to kReferenceGap steps before the step
/// that is looked at. It depends on the run and that step, and not on the state that a replay begins from.
inline constexpr std::int64_t kReferenceSteps = 8;
inline constexpr std::int64_t kReferenceGap = 4; ///< a spike may build up over some steps

/// A step of a run, made again and looked at.
struct ReplayResult {
    std::int64_t compared = 0;                   ///< recorded steps, the last one included, whose loss was compared
    std::optional<std::int64_t> first_different; ///< the first whose loss is not the recorded one to the last bit
    double recorded_loss = 0;
    double replayed_loss = 0;
    std::vector<TraceEntry> trace;    ///< of the step
    std::int64_t reference_first = 0; ///< steps of the reference, last one included; 0: there is none
    std::int64_t reference_last = 0;
    std::vector<std::optional<RmsRange>> reference; ///< of each entry of the trace
    /// The first entry of the trace that is not finite, or else the first that is out of its range in another way.
    std::optional<std::size_t> first_out;
    OutOfRange how = OutOfRange::no;
};

/// Goes from a state that a run has kept to one of its steps, exactly, and traces that step; on the way, it takes the
/// settings that the run was resumed with where it was. The run is only read; it may be still running.
class Replay {
public:
    /// `from` asks for the state of a step; without it, the nearest is taken. Throws UsageError when there is no such
    /// run, step or state, IoError for records that are damaged.
    Replay(const std::filesystem::path& run, std::int64_t step, std::optional<std::int64_t> from = {});

    std::int64_t step() const { return step_; }
    const ReplayStart& start() const { return start_; }
    const std::vector<ReplayStart>& starts() const { return starts_; } ///< all states that lead to the step
    const Config& config() const { return stretches_.back().config; }  ///< that the step was made with

    /// Why the bits may differ from those of the run: another library, processor or version, data that has changed.
    const std::vector<std::string>& doubts() const { return doubts_; }

    /// Says to `log` which steps it makes, as they may take as long as they took the run. Throws CheckpointError, and
    /// what loading the data throws.
    ReplayResult run(const Log& log = {}) const;

private:
    /// Steps that were made with one config: those behind `after`, to the next stretch.
    struct Stretch {
        std::int64_t after = 0;
        Config config;
    };
    class Walk;

    /// Fills stretches_; returns the step behind which they hold.
    std::int64_t find_stretches(const RunDirectory& directory, const std::vector<Event>& events);
    void find_reference(const RunDirectory& directory, const std::vector<Event>& events);
    const ReplayStart& state_before(std::int64_t step) const;
    std::map<std::string, RmsRange> reference(Walk& walk, const std::function<void(const StepRecord&)>& each) const;
    std::map<std::string, RmsRange> reference_apart(const Log& log) const;

    std::filesystem::path run_;
    std::int64_t step_;
    std::map<std::int64_t, StepRecord> records_;
    std::vector<Stretch> stretches_; ///< in the order of the run, to that of the step
    std::vector<ReplayStart> starts_;
    ReplayStart start_;
    std::int64_t reference_first_ = 0, reference_last_ = 0; ///< 0: none
    std::vector<std::string> doubts_;
    std::vector<std::string> new_norms_; ///< of a grafted run
};

} // namespace ballast
