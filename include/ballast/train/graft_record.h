#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/file.h"
#include "ballast/config/describe.h"
#include "ballast/train/event.h"
#include "ballast/train/graft_drift.h"

namespace ballast {

/// What became of a tensor.
struct GraftedTensor {
    std::string name;
    std::string fate; ///< "reused", "new", "mismatched" (there, in another shape) or "dropped"
    std::string note; ///< how it starts, or what it was; may be empty
};

/// How a run began from another one: RUN/graft.json. A resume reads this and not the source.
struct GraftRecord {
    std::string source; ///< run directory
    std::int64_t source_step = 0;
    std::string source_checksum;    ///< of its params.safetensors, 16 hexadecimal digits
    std::string source_config_hash; ///< config_hash()
    bool calibrated = false;
    std::vector<KeyDifference> changes; ///< keys of `model`: a in the source, b here
    std::vector<GraftedTensor> tensors;
    /// Parameters of norms that do not come from the source: `init_from` may give them a learning rate of their own.
    std::vector<std::string> new_norms;
    GraftDrift drift;                       ///< of the model that training starts with
    std::optional<GraftDrift> uncalibrated; ///< as it would be without calibration

    std::int64_t count(std::string_view fate) const;
};

std::filesystem::path graft_record_path(const std::filesystem::path& run);

/// Nothing for a run that began with weights of its own. Throws IoError for a damaged record.
std::optional<GraftRecord> read_graft_record(const std::filesystem::path& run);
void write_graft_record(const std::filesystem::path& run, const GraftRecord& record,
                        const FileCalls& calls = kSystemCalls);

/// The record as one JSON object, as in the file.
std::string to_json(const GraftRecord& record);

/// The event that a run begins with.
Event graft_event(const GraftRecord& record);

} // namespace ballast
