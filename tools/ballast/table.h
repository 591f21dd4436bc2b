#pragma once

#include <string>
#include <vector>

/// Prints rows of cells, every column as wide as its widest cell; `right` says which columns are aligned to the right.
void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right);
