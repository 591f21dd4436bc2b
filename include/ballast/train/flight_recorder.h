#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "ballast/train/judged_step.h"
#include "ballast/train/layer_record.h"
#include "ballast/train/learner.h"
#include "ballast/train/snapshot.h"

namespace ballast {

/// Largest share, over periods of 1 to 16 tokens, of the tokens of a batch that equal the one a period before in their
/// sequence: near 1 for a repeated pattern, such as damaged data.
double repetition(std::span<const std::int32_t> tokens, std::int64_t context);

/// Bytes of a snapshot's arrays: parameters and buffers, and each moment.
std::size_t state_bytes(const ParamTable& table, std::size_t moments);

/// The snapshots that a run keeps.
struct SnapshotPlan {
    std::size_t keep = 0;  ///< their number
    std::size_t bytes = 0; ///< of all of them
    bool on_disk = false;  ///< more than `stability.snapshot_memory` allows
};
SnapshotPlan snapshot_plan(const StabilityConfig& config, std::size_t state_bytes);

/// Keeps what happened last, to be written when something goes wrong: the records of 64 steps, the layers' records and
/// batches of the same steps, and snapshots of the training state, from which a replay can come back to a step.
///
/// RUN/recorder/
///   step-NNNNNNNN-KIND/   for an event: metrics.jsonl, layers.jsonl, events.jsonl as in the run, and batches.jsonl, an
///                         object a step: step, batch, checksum, repetition
///   checkpoints/          the snapshots, as checkpoints
///
/// Memory: snapshot_bytes() of snapshots, and at an event one more; if that is more than `stability.snapshot_memory`
/// allows, snapshots go to the disk as they are taken. The records take some 100 KB, and 64 times the lines of a
/// probe when every step is probed. A run writes at most 16 recordings.
class FlightRecorder {
public:
    FlightRecorder(const std::filesystem::path& run, const StabilityConfig& config, const Learner& learner);

    /// Before a step: takes a snapshot when one is due.
    void before_step(const TrainerState& state, const Learner& learner, std::string_view config_json);
    /// After a step. `layers` is empty where it was not probed.
    void record(const JudgedStep& step, const Learner& learner, std::span<const LayerRecord> layers);
    /// Writes all that is kept, for `event`. Throws IoError.
    void write(const Event& event, const TrainerState& state, Learner& learner, std::string_view config_json);

    /// Goes back to the newest snapshot of step `step` or before, or to the oldest; false when there is none. Forgets
    /// the records and snapshots of later steps.
    bool restore(std::int64_t step, TrainerState& state, Learner& learner);

    /// Before the first step of a run that goes on: forgets snapshots of step `step` and later, to which it came before
    /// and may not come again.
    void forget_from(std::int64_t step);

    std::size_t snapshot_bytes() const { return plan_.bytes; } ///< of all snapshots
    bool on_disk() const { return plan_.on_disk; }

private:
    struct Lines {
        std::int64_t step;
        std::string metrics, batch, layers;
    };

    std::filesystem::path folder_;
    std::int64_t every_;
    SnapshotPlan plan_;
    std::int64_t recordings_ = 0;
    std::int64_t last_snapshot_ = -1;
    Snapshots snapshots_;
    std::deque<Lines> lines_;
};

} // namespace ballast
