#pragma once

#include <filesystem>
#include <span>
#include <string>

/// Writes the report's page of runs, in place of what was at `out`; names on standard error those that cannot be read.
/// Returns "8 runs, 1.2 MiB". Throws UsageError when none can be read, IoError when the page cannot be written.
std::string write_page(std::span<const std::filesystem::path> runs, const std::filesystem::path& out);
