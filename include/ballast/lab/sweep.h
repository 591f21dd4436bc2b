#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "ballast/config/grid.h"

// A sweep's directory:
//   sweep.json       its name, its axes, and its cells with their settings
//   configs/         NAME.json: the resolved config of each cell
//   runs/            NAME/: the run directory of each cell that has begun
//   logs/            NAME.txt: what the processes of a cell printed
//   table.csv  table.json: a row for each cell (lab/sweep_table.h)
//   lock             held by the process that runs the sweep

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

/// The directory of a sweep that runs.
class SweepDirectory {
public:
    /// Makes one, or opens that of an earlier start of the same sweep, and locks it. A grid may have grown since: cells
    /// are added; a cell that is gone or has another config makes it another sweep. Throws UsageError for another
    /// sweep, saying what differs, for what is no sweep's directory, and when another process runs it; IoError.
    SweepDirectory(const std::filesystem::path& path, const Grid& grid);
    ~SweepDirectory();
    SweepDirectory(const SweepDirectory&) = delete;
    SweepDirectory& operator=(const SweepDirectory&) = delete;

    const std::filesystem::path& path() const { return path_; }
    const std::vector<SweepRun>& runs() const { return runs_; } ///< in the order of the grid's cells
    std::filesystem::path config_path(const SweepRun& run) const { return path_ / "configs" / (run.name + ".json"); }
    std::filesystem::path log_path(const SweepRun& run) const { return path_ / "logs" / (run.name + ".txt"); }
    std::filesystem::path csv_path() const { return path_ / "table.csv"; }
    std::filesystem::path json_path() const { return path_ / "table.json"; }
    std::filesystem::path report_path() const { return path_ / "report.html"; }

private:
    std::filesystem::path path_;
    std::vector<SweepRun> runs_;
    int lock_ = -1;
};

} // namespace ballast
