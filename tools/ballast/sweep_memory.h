#pragma once

#include <string>
#include <vector>

#include "ballast/config/grid.h"

/// Bytes that the process of each cell needs. `file` is what messages call the sweep. Throws UsageError naming the
/// cells whose data cannot be used, or which do not fit into memory.
std::vector<double> memory_of_cells(const ballast::Grid& grid, const std::string& file);
