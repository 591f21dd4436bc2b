#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <variant>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/lab/report.h"
#include "report_layers.h"
#include "train/json_fields.h"

// Every key that is written here is read in src/lab/report/*.js.

namespace ballast {

namespace {

using Json = nlohmann::ordered_json;

Json optional_value(const std::optional<double>& value) { return value ? json_value<Json>(*value) : Json(nullptr); }

/// The member as a number; nothing where it is not set, or is a text.
std::optional<double> number_in(const StepRecord& record, const StepField& field) {
    return std::visit(
        [&](auto member) -> std::optional<double> {
            const auto& value = record.*member;
            using Value = std::remove_cvref_t<decltype(value)>;
            if constexpr (std::is_same_v<Value, std::optional<double>>)
                return value;
            else if constexpr (std::is_same_v<Value, std::optional<std::string>>)
                return {};
            else
                return static_cast<double>(value);
        },
        field.member);
}

/// A statistic in a group of consecutive steps.
struct Spread {
    std::optional<double> low, middle, high;

    void add(double value) {
        if (!std::isfinite(value)) {
            if (!odd_) odd_ = value;
            return;
        }
        low = low ? std::min(*low, value) : value;
        high = high ? std::max(*high, value) : value;
        sum_ += value;
        ++count_;
    }
    /// The mean; a value that is not finite is never averaged away.
    void finish() {
        if (odd_)
            middle = odd_;
        else if (count_ > 0)
            middle = sum_ / static_cast<double>(count_);
    }

private:
    std::optional<double> odd_;
    double sum_ = 0;
    std::int64_t count_ = 0;
};

Json grouped_column(const std::vector<StepRecord>& steps, const StepField& field, std::size_t group) {
    Json low = Json::array(), middle = Json::array(), high = Json::array();
    for (std::size_t begin = 0; begin < steps.size(); begin += group) {
        Spread spread;
        for (std::size_t i = begin; i < std::min(steps.size(), begin + group); ++i)
            if (const std::optional<double> value = number_in(steps[i], field)) spread.add(*value);
        spread.finish();
        low.push_back(optional_value(spread.low));
        middle.push_back(optional_value(spread.middle));
        high.push_back(optional_value(spread.high));
    }
    return {{"low", std::move(low)}, {"middle", std::move(middle)}, {"high", std::move(high)}};
}

/// The records, column by column: a column of numbers, or of groups of steps its {low, middle, high}. The step of a
/// group is its last.
Json columns(const std::vector<StepRecord>& steps, std::size_t group) {
    Json json;
    for (const StepField& field : kStepFields) {
        if (field.name == "events" || field.name == "tokens") continue;
        if (field.name == "step") {
            Json column = Json::array();
            for (std::size_t begin = 0; begin < steps.size(); begin += group)
                column.push_back(steps[std::min(steps.size(), begin + group) - 1].step);
            json["step"] = std::move(column);
        } else if (group == 1) {
            Json column = Json::array();
            for (const StepRecord& record : steps)
                column.push_back(optional_value(number_in(record, field)));
            json[std::string(field.name)] = std::move(column);
        } else {
            json[std::string(field.name)] = grouped_column(steps, field, group);
        }
    }
    return json;
}

Json layers_of(const RunRecord& record) {
    const LayerHistory history = layer_history(record.layers);
    Json tables;
    for (std::size_t i = 0; i < kLayerTables.size(); ++i) {
        const LayerTable& table = history.tables[i];
        if (table.rows.empty()) continue;
        Json values = Json::array();
        for (const auto& row : table.values) {
            Json cells = Json::array();
            for (const std::optional<double>& value : row)
                cells.push_back(optional_value(value));
            values.push_back(std::move(cells));
        }
        tables[std::string(kLayerTables[i].name)] = {{"rows", table.rows}, {"values", std::move(values)}};
    }
    return {{"step", history.steps}, {"tables", tables.is_null() ? Json::object() : std::move(tables)}};
}

Json causes_of(const RunRecord& record) {
    Json causes = Json::array();
    for (const Diagnosis& cause : diagnose(record))
        causes.push_back({{"cause", cause.cause},
                          {"meaning", cause.meaning},
                          {"confidence", cause.confidence},
                          {"evidence", cause.evidence},
                          {"advice", cause.advice},
                          {"source", cause.source}});
    return causes;
}

Json run_json(const ReportedRun& run) {
    const auto count = static_cast<std::int64_t>(run.record.steps.size());
    const std::int64_t group = count <= kMostPoints ? 1 : (count + kMostPoints / 2 - 1) / (kMostPoints / 2);
    Json events = Json::array();
    for (const Event& event : run.record.events) {
        Json json;
        write_fields(json, event, kEventFields);
        events.push_back(std::move(json));
    }
    return {{"label", run.label},
            {"path", run.path.string()},
            {"planned_steps", run.record.config.train.steps},
            {"recorded_steps", count},
            {"steps_a_point", group},
            {"summary", run.summary ? parse_object<Json>(run.summary_json) : Json(nullptr)},
            {"environment", parse_object<Json>(run.environment_json)},
            {"columns", columns(run.record.steps, static_cast<std::size_t>(group))},
            {"layers", layers_of(run.record)},
            {"events", std::move(events)},
            {"causes", causes_of(run.record)},
            {"config", to_json(run.record.config)}};
}

/// Of several runs the keys in which any two differ; of one those in which it differs from the defaults.
Json config_differences(const Report& report) {
    Config defaults;
    resolve(defaults);
    const bool alone = report.runs.size() == 1;
    const Config& base = alone ? defaults : report.runs.front().record.config;
    std::map<std::string, std::string> base_values;
    std::vector<std::map<std::string, std::string>> own;
    std::vector<std::string> order;
    for (const ReportedRun& run : report.runs) {
        auto& values = own.emplace_back();
        for (const KeyDifference& difference : diff(base, run.record.config)) {
            if (base_values.emplace(difference.path, difference.a).second) order.push_back(difference.path);
            values[difference.path] = difference.b;
        }
    }
    Json rows = Json::array();
    for (const std::string& key : order) {
        Json values = Json::array();
        for (const auto& run : own) {
            const auto found = run.find(key);
            values.push_back(found == run.end() ? base_values[key] : found->second);
        }
        rows.push_back({{"key", key}, {"values", std::move(values)}});
        if (alone) rows.back()["default"] = base_values[key];
    }
    return rows;
}

Json rates_json(const Report& report) {
    const RateCurves rates = rate_curves(report);
    Json curves = Json::array();
    for (const RateCurve& curve : rates.curves) {
        Json points = Json::array();
        for (const RatePoint& point : curve.points)
            points.push_back({{"lr", json_value<Json>(point.lr)},
                              {"loss", json_value<Json>(point.loss)},
                              {"diverged", point.diverged},
                              {"run", point.run}});
        curves.push_back({{"label", curve.label},
                          {"points", std::move(points)},
                          {"sensitivity", optional_value(curve.sensitivity)},
                          {"standard_error", optional_value(curve.standard_error)}});
    }
    return {{"validation", rates.validation}, {"training", rates.training}, {"curves", std::move(curves)}};
}

Json meanings() {
    Json json;
    for (const StepField& field : kStepFields)
        json[std::string(field.name)] = {{"unit", field.unit}, {"meaning", field.meaning}};
    for (const LayerField& field : kLayerFields)
        json["layer." + std::string(field.name)] = {{"unit", field.unit}, {"meaning", field.meaning}};
    return json;
}

} // namespace

std::string report_data(const Report& report) {
    Json runs = Json::array();
    for (const ReportedRun& run : report.runs)
        runs.push_back(run_json(run));
    Json unreadable = Json::array();
    for (const UnreadableRun& run : report.unreadable)
        unreadable.push_back({{"path", run.path.string()}, {"problem", run.problem}});
    const Json data = {{"version", BALLAST_VERSION},
                       {"runs", std::move(runs)},
                       {"unreadable", std::move(unreadable)},
                       {"differences", report.runs.empty() ? Json::array() : config_differences(report)},
                       {"rates", rates_json(report)},
                       {"meanings", meanings()}};
    // In ASCII, and with no `<`, of which only texts have any: no name can end the script that holds the data.
    const std::string text = data.dump(-1, ' ', true, Json::error_handler_t::replace);
    std::string safe;
    safe.reserve(text.size());
    for (const char c : text) {
        if (c == '<')
            safe += "\\u003c";
        else
            safe += c;
    }
    return safe;
}

} // namespace ballast
