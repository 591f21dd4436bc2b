#include "ballast/train/step_record.h"

#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "json_fields.h"

namespace ballast {

namespace {

using Json = nlohmann::ordered_json;

/// The fewest digits that read back to the same bits.
template <class Number>
std::string shortest(Number value) {
    std::array<char, 32> digits{};
    const auto result = std::to_chars(digits.data(), digits.data() + digits.size(), value);
    return {digits.data(), result.ptr};
}

std::string csv_value(std::int64_t value) { return shortest(value); }
std::string csv_value(double value) {
    return std::isfinite(value) ? shortest(value) : std::string(non_finite_name(value));
}
std::string csv_value(const std::string& value) { return value; }
template <class Value>
std::string csv_value(const std::optional<Value>& value) {
    return value ? csv_value(*value) : std::string();
}

} // namespace

std::string to_json(const StepRecord& record) {
    Json json;
    write_fields(json, record, kStepFields);
    return one_line(json);
}

StepRecord step_record_from_json(std::string_view line) {
    const auto json = parse_object<Json>(line);
    StepRecord record;
    read_fields(json, record, kStepFields, Missing::allowed);
    if (record.step < 1) throw IoError("key 'step': expected the number of a step");
    return record;
}

std::string step_csv_header() {
    std::string line;
    for (const StepField& field : kStepFields) {
        if (!line.empty()) line += ',';
        line += field.name;
    }
    return line;
}

std::string to_csv(const StepRecord& record) {
    std::string line;
    for (const StepField& field : kStepFields) {
        if (!line.empty()) line += ',';
        line += std::visit([&](auto member) { return csv_value(record.*member); }, field.member);
    }
    return line;
}

} // namespace ballast
