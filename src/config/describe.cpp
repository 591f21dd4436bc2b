#include "ballast/config/describe.h"

#include <cmath>
#include <cstdint>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "fields.h"

namespace ballast {

namespace {

using namespace config_io;

bool is_finite(const Value& value) {
    if (const auto* number = std::get_if<double>(&value)) return std::isfinite(*number);
    if (const auto* pair = std::get_if<std::array<double, 2>>(&value)) {
        return std::isfinite((*pair)[0]) && std::isfinite((*pair)[1]);
    }
    return true;
}

void require_finite(const Field& section, const Config& config) {
    for (const Field* field : leaves(section)) {
        if (field->is_list()) {
            for (std::size_t i = 0; i < field->list.size(config); ++i)
                require_finite(field->list.item(i), config);
        } else if (!is_finite(field->get(config))) {
            throw ConfigError({{"", 0, field->path, "is not finite; expected " + expectation(*field)}});
        }
    }
}

void write_section(const Field& section, const Config& config, const std::string& indent, std::string& out) {
    out += "{\n";
    for (const Field& field : section.fields) {
        out += indent + "  " + quoted(field.name) + ": ";
        if (field.is_section())
            write_section(field, config, indent + "  ", out);
        else
            out += field_json(field, config);
        out += &field == &section.fields.back() ? "\n" : ",\n";
    }
    out += indent + "}";
}

} // namespace

std::string to_json(const Config& config) {
    std::string out;
    const Field root = config_fields();
    require_finite(root, config);
    write_section(root, config, "", out);
    return out + "\n";
}

std::string config_hash(const Config& config) {
    // FNV-1a (Fowler, Noll, Vo): 64-bit offset basis and prime.
    std::uint64_t hash = 14695981039346656037U;
    for (const char c : to_json(config))
        hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211U;
    std::string out;
    for (int shift = 60; shift >= 0; shift -= 4)
        out += "0123456789abcdef"[(hash >> shift) & 0xF];
    return out;
}

std::vector<KeyDifference> diff(const Config& a, const Config& b) {
    std::vector<KeyDifference> out;
    const Field root = config_fields();
    for (const Field* field : leaves(root)) {
        const std::string in_a = field_json(*field, a), in_b = field_json(*field, b);
        if (in_a != in_b) out.push_back({field->path, in_a, in_b});
    }
    return out;
}

} // namespace ballast
