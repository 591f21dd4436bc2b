#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/log.h"

// Does a run give the same bits again? A stretch of it is made once more, from one of its checkpoints on this machine,
// and compared with what the run recorded.

namespace ballast {

struct VerifyOptions {
    /// Step of the checkpoint to start from; 0: the beginning, with the checkpoint of step 0, or where there is none
    /// with parameters freshly drawn. Unset: the newest checkpoint that has a later one, else the beginning.
    std::optional<std::int64_t> from;
    /// Steps to make; unset: up to the next checkpoint, or to the last record when there is none.
    std::optional<std::int64_t> steps;
};

struct Verification {
    /// What is lost of the recorded facts of the machine and the program, and those that are others now, a line each.
    /// The threads are among them, although their number changes no bit.
    std::vector<std::string> environment;
    std::int64_t from = 0;                 ///< finished steps at the start
    std::int64_t to = 0;                   ///< last step that was made
    std::int64_t records = 0;              ///< recorded steps that were compared
    std::int64_t values = 0;               ///< numbers compared in them
    std::int64_t differing_records = 0;    ///< of them, with a number that differs
    std::vector<std::int64_t> checkpoints; ///< whose parameters and moments were compared
    std::int64_t differing_checkpoints = 0;
    /// What differs, a line each, the first ones: "step 12: loss is 2.31, recorded 2.32".
    std::vector<std::string> differences;

    /// Whether something was compared and all of it had the recorded bits.
    bool proven() const {
        return differing_records + differing_checkpoints == 0 &&
               records + static_cast<std::int64_t>(checkpoints.size()) > 0;
    }
};

/// Re-runs steps of the run in `directory`, which is only read. Compared are, bit for bit, all numbers of each step's
/// record but the times, and parameters and moments at every checkpoint on the way. Throws UsageError when it is no run
/// or has no such checkpoint or records; CheckpointError for a damaged one; IoError when the data is no longer that of
/// the run.
Verification verify(const std::filesystem::path& directory, const VerifyOptions& options = {}, const Log& log = {});

} // namespace ballast
