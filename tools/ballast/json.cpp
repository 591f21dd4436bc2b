#include "json.h"

#include <cmath>

#include "ballast/base/text.h"

namespace json {

namespace {
std::string join(const std::vector<std::string>& items) {
    std::string out;
    for (const std::string& item : items)
        out += (out.empty() ? "" : ", ") + item;
    return out;
}
} // namespace

std::string text(std::string_view value) {
    return ballast::quoted(ballast::is_utf8(value) ? std::string(value) : ballast::printable(value));
}
std::string number(std::int64_t value) { return std::to_string(value); }
std::string number(double value) {
    if (std::isnan(value)) return text("NaN");
    if (std::isinf(value)) return text(value > 0 ? "Infinity" : "-Infinity");
    return ballast::json_number(value);
}
std::string boolean(bool value) { return value ? "true" : "false"; }
std::string array(const std::vector<std::string>& items) { return "[" + join(items) + "]"; }
std::string object(const std::vector<std::pair<std::string_view, std::string>>& members) {
    std::vector<std::string> items;
    for (const auto& [name, value] : members)
        items.push_back(text(name) + ": " + value);
    return "{" + join(items) + "}";
}

} // namespace json
