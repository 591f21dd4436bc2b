#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/train/event.h"
#include "ballast/train/graft_record.h"
#include "ballast/train/layer_record.h"
#include "ballast/train/step_record.h"

namespace ballast {

/// Everything that a run has recorded about itself.
struct RunRecord {
    Config config; ///< that it has now
    std::string verdict;
    std::vector<StepRecord> steps;
    std::vector<LayerRecord> layers;
    std::vector<Event> events;
    std::map<std::int64_t, double> repetition; ///< of the batches of the steps that the flight recorder has saved
    std::string onset;                         ///< a sentence about where it began; may be empty
    std::optional<GraftRecord> graft;          ///< how the run began, if from another run
    std::string onset_op;                      ///< the op that first made something that is not finite; may be empty
    std::vector<std::string> doubts;           ///< signs that files are cut short, missing, or of another run
};

/// Reads a run directory, also while the run goes on. Throws UsageError, IoError.
RunRecord read_run(const std::filesystem::path& run);

/// A cause that the record of a run speaks for.
struct Diagnosis {
    std::string cause;                 ///< a word for programs: "bad_data"
    std::string meaning;               ///< a sentence for people
    double confidence = 0;             ///< 0 to 1
    std::vector<std::string> evidence; ///< a printable line for each thing seen
    std::string advice;
    std::string source; ///< where the signature is published; empty: ours
};

/// The causes whose signature a run shows, the likeliest first. A run without an event other than spikes of the
/// gradient norm has none. Thresholds stand beside the signatures, in src/lab/diagnose.cpp.
std::vector<Diagnosis> diagnose(const RunRecord& run);

/// Names of all causes that diagnose() knows.
std::vector<std::string> known_causes();

} // namespace ballast
