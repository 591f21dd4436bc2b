#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ballast/config/grid.h"

// A sweep's directory:
//   sweep.json       its name, and its cells with their settings
//   configs/         NAME.json: the resolved config of each cell
//   runs/            NAME/: the run directory of each cell that has begun
//   logs/            NAME.txt: what the process of a cell printed
//   table.csv  table.json: a row for each cell (lab/sweep_table.h)
//   lock

namespace ballast {

/// A cell of a sweep as its directory knows it.
struct SweepRun {
    std::string name;              ///< of the cell
    std::vector<Setting> settings; ///< in the order of the axes, without the seed
    std::uint64_t seed = 0;
    std::filesystem::path path; ///< of its run directory, which is not there before the run has begun
};

/// Whether `path` looks like the directory of a sweep.
bool is_sweep_directory(const std::filesystem::path& path);

/// The cells of a sweep's directory in the order of its grid, also while the sweep goes on. Throws UsageError when it
/// is no sweep's directory, IoError when its sweep.json is damaged.
std::vector<SweepRun> runs_of_sweep(const std::filesystem::path& sweep);

} // namespace ballast
