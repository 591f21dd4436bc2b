#include "ballast/lab/claim_record.h"

#include <array>
#include <nlohmann/json.hpp>
#include <system_error>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/train/run_directory.h"
#include "train/json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

fs::path record_path(const fs::path& directory, std::string_view name, bool first) {
    return directory / (std::string(name) + (first ? ".first.json" : ".json"));
}

Json json_of(const ClaimFigure& figure) {
    Json json = {{"name", figure.name}, {"value", json_value<Json>(figure.value)}};
    if (figure.expected.empty()) return json;
    json["expected"] = figure.expected;
    json["verdict"] = to_string(figure.verdict);
    return json;
}

Json json_of(const ClaimChart& chart) {
    Json series = Json::array();
    for (const ClaimSeries& line : chart.series) {
        Json points = Json::array();
        for (const auto& [x, y] : line.points)
            points.push_back({json_value<Json>(x), json_value<Json>(y)});
        series.push_back({{"name", line.name}, {"points", std::move(points)}});
    }
    return {{"title", chart.title}, {"x", chart.x},         {"y", chart.y},
            {"log_x", chart.log_x}, {"log_y", chart.log_y}, {"series", std::move(series)}};
}

std::string text_of(const Json& object, std::string_view name) {
    std::string text;
    read_value(member_of(object, name), name, text);
    return text;
}

double number_of(const Json& object, std::string_view name) {
    double number = 0;
    read_value(member_of(object, name), name, number);
    return number;
}

bool switch_of(const Json& object, std::string_view name) {
    const Json& value = member_of(object, name);
    if (!value.is_boolean()) refuse_value(name, "true or false");
    return value.get<bool>();
}

ClaimVerdict verdict_of(const std::string& word) {
    for (const ClaimVerdict verdict : {ClaimVerdict::fail, ClaimVerdict::inconclusive, ClaimVerdict::pass})
        if (word == to_string(verdict)) return verdict;
    refuse_value("verdict", "PASS, FAIL or INCONCLUSIVE");
}

ClaimFigure figure_from(const Json& json) {
    ClaimFigure figure;
    figure.name = text_of(json, "name");
    figure.value = number_of(json, "value");
    if (!json.contains("expected")) return figure;
    figure.expected = text_of(json, "expected");
    figure.verdict = verdict_of(text_of(json, "verdict"));
    return figure;
}

ClaimChart chart_from(const Json& json) {
    ClaimChart chart{text_of(json, "title"),   text_of(json, "x"),       text_of(json, "y"),
                     switch_of(json, "log_x"), switch_of(json, "log_y"), {}};
    for (const Json& line : member_of(json, "series")) {
        ClaimSeries& series = chart.series.emplace_back();
        series.name = text_of(line, "name");
        for (const Json& point : member_of(line, "points")) {
            if (!point.is_array() || point.size() != 2) refuse_value("points", "pairs of numbers");
            auto& [x, y] = series.points.emplace_back();
            read_value(point[0], "points", x);
            read_value(point[1], "points", y);
        }
    }
    return chart;
}

ClaimRecord record_from(const Json& json) {
    ClaimRecord record;
    record.name = text_of(json, "name");
    record.criterion = text_of(json, "criterion");
    for (const Json& figure : member_of(json, "figures"))
        record.result.figures.push_back(figure_from(figure));
    record.result.chart = chart_from(member_of(json, "chart"));
    read_value(member_of(json, "remarks"), "remarks", record.result.remarks);
    read_value(member_of(json, "settings"), "settings", record.settings);
    read_value(member_of(json, "runs"), "runs", record.runs);
    record.seconds = number_of(json, "seconds");
    record.training_seconds = number_of(json, "training_seconds");
    record.version = text_of(json, "version");
    record.cpu = text_of(json, "cpu");
    record.date = text_of(json, "date");
    return record;
}

} // namespace

ClaimVerdict ClaimRecord::verdict() const { return settings.empty() ? result.verdict() : ClaimVerdict::inconclusive; }

ClaimRecord make_record(const Claim& claim, ClaimResult result) {
    const Environment environment = current_environment();
    ClaimRecord record;
    record.name = claim.name;
    record.criterion = claim.criterion;
    record.result = std::move(result);
    record.version = environment.version;
    record.cpu = environment.cpu;
    record.date = utc_time();
    return record;
}

std::string to_json(const ClaimRecord& record) {
    Json figures = Json::array();
    for (const ClaimFigure& figure : record.result.figures)
        figures.push_back(json_of(figure));
    const Json json = {{"name", record.name},
                       {"verdict", to_string(record.verdict())},
                       {"criterion", record.criterion},
                       {"figures", std::move(figures)},
                       {"remarks", record.result.remarks},
                       {"settings", record.settings},
                       {"runs", record.runs},
                       {"seconds", json_value<Json>(record.seconds)},
                       {"training_seconds", json_value<Json>(record.training_seconds)},
                       {"version", record.version},
                       {"cpu", record.cpu},
                       {"date", record.date},
                       {"chart", json_of(record.result.chart)}};
    return one_line(json);
}

std::optional<ClaimRecord> read_claim_record(const fs::path& directory, std::string_view name, bool first) {
    const fs::path path = record_path(directory, name, first);
    std::error_code ignored;
    if (!fs::exists(path, ignored)) return {};
    try {
        return record_from(parse_object<Json>(read_file(path)));
    } catch (const IoError& error) {
        throw IoError(path.string() + ": " + error.what());
    } catch (const Json::exception&) {
        throw IoError(path.string() + ": not a claim's record");
    }
}

void write_claim_record(const fs::path& directory, const ClaimRecord& record) {
    std::error_code problem;
    fs::create_directories(directory, problem);
    if (problem) throw IoError(directory.string() + ": " + problem.message());
    const std::optional<ClaimRecord> before = read_claim_record(directory, record.name);
    if (before && before->criterion != record.criterion && !read_claim_record(directory, record.name, true))
        write_file_atomic(record_path(directory, record.name, true), to_json(*before) + "\n");
    write_file_atomic(record_path(directory, record.name, false), to_json(record) + "\n");
    if (const std::string svg = claim_svg(record.result.chart); !svg.empty())
        write_file_atomic(directory / (record.name + ".svg"), svg);
}

} // namespace ballast
