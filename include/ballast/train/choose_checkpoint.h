#pragma once

#include <filesystem>
#include <string>

#include "ballast/base/log.h"

namespace ballast {

/// A checkpoint of a run: that of a step, or "newest" (whole by its checksums), or "best", that of the lowest
/// validation loss. Throws UsageError when the run has none, or not that one, CheckpointError when none is whole.
std::filesystem::path choose_checkpoint(const std::filesystem::path& run, const std::string& wanted, const Log& log);

} // namespace ballast
