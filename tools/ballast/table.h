#pragma once

#include <string>
#include <vector>

/// Prints rows as columns of equal width, indented; `right` says which columns are numbers.
void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right);
