#include <map>
#include <nlohmann/json.hpp>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/lab/bench.h"

namespace ballast {

namespace {

using Json = nlohmann::ordered_json;

/// All times under `json`, in their order. An object that has a name adds it to those of what it holds.
void collect(const Json& json, const std::string& path, std::vector<std::pair<std::string, double>>& figures) {
    if (json.is_array()) {
        for (const Json& item : json)
            collect(item, path, figures);
        return;
    }
    if (!json.is_object()) return;
    std::string name = path;
    if (const auto own = json.find("name"); own != json.end() && own->is_string())
        name += (path.empty() ? "" : " ") + own->get<std::string>();
    for (const auto& [key, value] : json.items()) {
        if (value.is_number() && key.ends_with("seconds"))
            figures.emplace_back(name.empty() ? key : name + " " + key, value.get<double>());
        collect(value, name, figures);
    }
}

std::vector<std::pair<std::string, double>> figures_of(const Json& json) {
    std::vector<std::pair<std::string, double>> figures;
    collect(json, "", figures);
    return figures;
}

std::string text_of(const Json& value) {
    return value.is_string() ? printable(value.get<std::string>()) : printable(value.dump());
}

} // namespace

BenchComparison compare_benchmarks(std::string_view before, std::string_view after) {
    const Json now = Json::parse(after);
    const Json then = Json::parse(before, nullptr, false);
    if (!then.is_object() || !then.contains("bench") || !then.contains("machine") || !then.at("machine").is_object())
        throw DataError("expected what `ballast bench --json` prints");
    if (then.at("bench") != now.at("bench"))
        throw DataError("has the figures of bench " + text_of(then.at("bench")) + "; expected those of bench " +
                        text_of(now.at("bench")));

    BenchComparison comparison;
    for (const auto& [key, value] : now.at("machine").items()) {
        const Json known = then.at("machine").value(key, Json());
        if (value != known) comparison.machine.push_back(key + ": " + text_of(known) + ", now " + text_of(value));
    }
    const auto old_figures = figures_of(then);
    const std::map<std::string, double> known(old_figures.begin(), old_figures.end());
    for (const auto& [name, seconds] : figures_of(now))
        if (const auto old = known.find(name); old != known.end())
            comparison.figures.push_back({name, old->second, seconds});
    return comparison;
}

} // namespace ballast
