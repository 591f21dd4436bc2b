#pragma once

#include <cstdint>
#include <filesystem>

namespace ballast {

/// Bytes of memory that this process may come to use at most: what the machine has, or less where a control group
/// (version 2, or 1) or a resource limit (RLIMIT_AS, RLIMIT_DATA) says so. Swap does not count. `root` is where the
/// system's files are looked for.
std::int64_t memory_limit(const std::filesystem::path& root = "/");

/// Bytes of memory that this process holds now, and the most that it has held. 0 where the system does not tell.
std::int64_t resident_memory();
std::int64_t peak_resident_memory();
/// Makes peak_resident_memory() count from now on. Where the system does not allow that, nothing happens.
void reset_peak_resident_memory();

} // namespace ballast
