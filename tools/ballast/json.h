#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// JSON for `--json`, put together from pieces of JSON text.

namespace json {

std::string text(std::string_view value);
std::string number(std::int64_t value);
/// The fewest digits that read back to the same bits; what JSON has no number for is "NaN", "Infinity" or "-Infinity".
std::string number(double value);
std::string boolean(bool value);
std::string array(const std::vector<std::string>& items);
std::string object(const std::vector<std::pair<std::string_view, std::string>>& members);

} // namespace json
