#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "ballast/config/grid.h"

/// Bytes that the process of each cell needs. `file` is what messages call the sweep, `sweep` its directory, there or
/// not. Throws UsageError naming the cells whose data cannot be used, which do not fit into memory, or which have not
/// begun and cannot start from the run that they name.
std::vector<double> memory_of_cells(const ballast::Grid& grid, const std::string& file,
                                    const std::filesystem::path& sweep);
