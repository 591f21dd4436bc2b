#include "ballast/train/graft_record.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <variant>

#include "ballast/base/error.h"
#include "ballast/train/stability.h"
#include "json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

template <class Owner, class... Values>
struct FieldOf {
    std::string_view name;
    std::variant<Values Owner::*...> member;
};

constexpr auto kRecordFields =
    std::to_array<FieldOf<GraftRecord, std::string, std::int64_t, std::vector<std::string>>>({
        {"source", &GraftRecord::source},
        {"source_step", &GraftRecord::source_step},
        {"source_checksum", &GraftRecord::source_checksum},
        {"source_config_hash", &GraftRecord::source_config_hash},
        {"new_norms", &GraftRecord::new_norms},
    });
constexpr auto kTensorFields = std::to_array<FieldOf<GraftedTensor, std::string>>({
    {"name", &GraftedTensor::name},
    {"fate", &GraftedTensor::fate},
    {"note", &GraftedTensor::note},
});
constexpr auto kChangeFields = std::to_array<FieldOf<KeyDifference, std::string>>({
    {"key", &KeyDifference::path},
    {"source", &KeyDifference::a},
    {"here", &KeyDifference::b},
});
constexpr auto kDriftFields = std::to_array<FieldOf<GraftDrift, double, std::int64_t>>({
    {"tokens", &GraftDrift::tokens},
    {"mean_logit", &GraftDrift::mean_logit},
    {"max_logit", &GraftDrift::max_logit},
    {"kl", &GraftDrift::kl},
    {"loss_before", &GraftDrift::loss_before},
    {"loss_after", &GraftDrift::loss_after},
});
constexpr auto kBlockFields = std::to_array<FieldOf<BlockDrift, double>>({
    {"change", &BlockDrift::change},
    {"cosine", &BlockDrift::cosine},
    {"rms_before", &BlockDrift::rms_before},
    {"rms_after", &BlockDrift::rms_after},
});

template <class Item, class Fields>
Json array_of(const std::vector<Item>& items, const Fields& fields) {
    Json array = Json::array();
    for (const Item& item : items)
        write_fields(array.emplace_back(), item, fields);
    return array;
}

template <class Item, class Fields>
void read_array(const Json& json, std::string_view name, std::vector<Item>& items, const Fields& fields) {
    const Json& array = member_of(json, name);
    if (!array.is_array()) refuse_value(name, "an array");
    for (const Json& item : array) {
        if (!item.is_object()) refuse_value(name, "an array of objects");
        read_fields(item, items.emplace_back(), fields, Missing::refused);
    }
}

Json drift_json(const GraftDrift& drift) {
    Json json;
    write_fields(json, drift, kDriftFields);
    json["blocks"] = array_of(drift.blocks, kBlockFields);
    return json;
}

GraftDrift read_drift(const Json& json) {
    if (!json.is_object()) throw IoError("drift: expected an object");
    GraftDrift drift;
    read_fields(json, drift, kDriftFields, Missing::refused);
    read_array(json, "blocks", drift.blocks, kBlockFields);
    return drift;
}

Json json_of(const GraftRecord& record) {
    Json json;
    write_fields(json, record, kRecordFields);
    json["calibrated"] = record.calibrated;
    json["changes"] = array_of(record.changes, kChangeFields);
    json["tensors"] = array_of(record.tensors, kTensorFields);
    json["drift"] = drift_json(record.drift);
    if (record.uncalibrated) json["uncalibrated"] = drift_json(*record.uncalibrated);
    return json;
}

} // namespace

std::int64_t GraftRecord::count(std::string_view fate) const {
    return std::count_if(tensors.begin(), tensors.end(),
                         [&](const GraftedTensor& tensor) { return tensor.fate == fate; });
}

fs::path graft_record_path(const fs::path& run) { return run / "graft.json"; }

std::optional<GraftRecord> read_graft_record(const fs::path& run) {
    const fs::path path = graft_record_path(run);
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return {};
    GraftRecord record;
    try {
        const auto json = parse_object<Json>(read_file(path));
        read_fields(json, record, kRecordFields, Missing::refused);
        const Json& calibrated = member_of(json, "calibrated");
        if (!calibrated.is_boolean()) refuse_value("calibrated", "true or false");
        record.calibrated = calibrated.get<bool>();
        read_array(json, "changes", record.changes, kChangeFields);
        read_array(json, "tensors", record.tensors, kTensorFields);
        record.drift = read_drift(member_of(json, "drift"));
        if (json.contains("uncalibrated")) record.uncalibrated = read_drift(json.at("uncalibrated"));
    } catch (const IoError& error) {
        throw IoError(path.string() + ": " + error.what());
    }
    return record;
}

void write_graft_record(const fs::path& run, const GraftRecord& record, const FileCalls& calls) {
    write_file_atomic(graft_record_path(run),
                      json_of(record).dump(2, ' ', false, Json::error_handler_t::replace) + "\n", calls);
}

std::string to_json(const GraftRecord& record) { return one_line(json_of(record)); }

Event graft_event(const GraftRecord& record) {
    std::string message = "started from " + record.source + ", step " + std::to_string(record.source_step);
    for (const KeyDifference& change : record.changes)
        message += ", " + change.path + " from " + change.a + " to " + change.b;
    message += ": loss " + short_number(record.drift.loss_before) + " before, " +
               short_number(record.drift.loss_after) + " after";
    return {.kind = "graft", .message = std::move(message), .value = record.drift.loss_after};
}

} // namespace ballast
