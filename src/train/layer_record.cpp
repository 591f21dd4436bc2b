#include "ballast/train/layer_record.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "ballast/base/text.h"
#include "json_fields.h"

namespace ballast {

namespace {

// Written by hand, as it is written often and the JSON library prints floats as doubles.

void append(std::string& out, std::int64_t value) { out += std::to_string(value); }
void append(std::string& out, const std::string& value) { out += ballast::quoted(value); }

void append(std::string& out, double value) {
    const auto number = static_cast<float>(value);
    if (!std::isfinite(number)) {
        ((out += '"') += non_finite_name(number)) += '"';
        return;
    }
    std::array<char, 32> digits{};
    out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
}

void append(std::string& out, const std::vector<double>& values) {
    out += '[';
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (i > 0) out += ',';
        append(out, values[i]);
    }
    out += ']';
}

template <class Value>
void append_member(std::string& out, std::string_view name, const Value& value) {
    if constexpr (requires { value.has_value(); }) {
        if (value) append_member(out, name, *value);
    } else {
        if constexpr (std::is_same_v<Value, std::vector<double>>)
            if (value.empty()) return;
        ((out += out.empty() ? "{\"" : ",\"") += name) += "\":";
        append(out, value);
    }
}

} // namespace

LayerSite layer_site(std::string_view name) {
    constexpr std::string_view kBlocks = "blocks.";
    if (!name.starts_with(kBlocks)) return {{}, name};
    std::int64_t layer = 0;
    const char* const end = name.data() + name.size();
    const char* const digits_end = std::from_chars(name.data() + kBlocks.size(), end, layer).ptr;
    if (digits_end == end) return {layer, "block"};
    return {layer, {digits_end + 1, end}};
}

std::string to_json(const LayerRecord& record) {
    std::string out;
    for (const LayerField& field : kLayerFields)
        std::visit([&](auto member) { append_member(out, field.name, record.*member); }, field.member);
    return out + "}";
}

LayerRecord layer_record_from_json(std::string_view line) {
    using Json = nlohmann::json;
    const auto json = parse_object<Json>(line);
    LayerRecord record;
    read_fields(json, record, kLayerFields, Missing::allowed);
    if (record.step < 1) throw IoError("key 'step': expected the number of a step");
    return record;
}

} // namespace ballast
