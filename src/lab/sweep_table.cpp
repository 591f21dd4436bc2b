#include "ballast/lab/sweep_table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "ballast/base/text.h"
#include "train/json_fields.h"

namespace ballast {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kLearningRate = "optimizer.lr";

// ---- Columns --------------------------------------------------------------------------------------------------------

/// Of a run that has ended; nothing before.
template <auto member>
SweepValue summary_value(const SweepRow& row) {
    if (!row.result.has_ended()) return {};
    return SweepValue(row.result.summary.*member);
}

template <auto member>
SweepValue loss_value(const SweepRow& row) {
    const std::optional<double>& value = row.result.*member;
    return value ? SweepValue(*value) : SweepValue();
}

constexpr auto kColumns = std::to_array<SweepColumn>({
    {"run", "", "Name of the cell and of its directory in runs/.",
     [](const SweepRow& row) -> SweepValue { return row.run.name; }},
    {"seed", "", "Seed of its weights and batches.", [](const SweepRow& row) -> SweepValue { return row.run.seed; }},
    {"state", "", "missing, unfinished, done or diverged.",
     [](const SweepRow& row) -> SweepValue { return std::string(to_string(row.result.state)); }},
    {"verdict", "", "The run's own: stable, spiky, stalled, diverged or non_finite.",
     summary_value<&RunSummary::verdict>},
    {"step", "", "Steps that it made.", summary_value<&RunSummary::step>},
    {"tokens", "", "Tokens that it was trained on.", summary_value<&RunSummary::tokens>},
    {"initial_loss", "nats/token", "Training loss of step 1: of the weights at the start.",
     loss_value<&RunResult::initial_loss>},
    {"final_loss", "nats/token",
     "Validation loss after the last step; without validation, mean training loss of the last 5 % of steps; nothing "
     "when a run ended early.",
     loss_value<&RunResult::final_loss>},
    {"best_loss", "nats/token", "Lowest validation loss; without validation, lowest training loss of a step.",
     loss_value<&RunResult::best_loss>},
    {"loss_spikes", "", "Steps at which the loss was a spike.", summary_value<&RunSummary::loss_spikes>},
    {"gradient_spikes", "", "Steps at which the norm of the gradient was a spike.",
     summary_value<&RunSummary::gradient_spikes>},
    {"loss_spike_score", "", "Share of losses 7 standard deviations off (2501.00656, section 3.1).",
     summary_value<&RunSummary::loss_spike_score>},
    {"gradient_spike_score", "", "The same of the norm of the gradient.",
     summary_value<&RunSummary::gradient_spike_score>},
    {"onset_step", "", "Step at which the instability began, where that was found.",
     [](const SweepRow& row) -> SweepValue {
         const std::optional<std::int64_t>& step = row.result.summary.onset_step;
         return step ? SweepValue(*step) : SweepValue();
     }},
    {"tokens_per_second", "1/s", "Training speed, with other runs beside it.",
     summary_value<&RunSummary::tokens_per_second>},
    {"seconds", "s", "Training time.", summary_value<&RunSummary::seconds>},
});

std::string csv_word(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
    std::string word = "\"";
    for (const char c : text)
        word += c == '"' ? std::string("\"\"") : std::string(1, c);
    return word + "\"";
}

std::string csv_value(const SweepValue& value) {
    struct Write {
        std::string operator()(std::monostate) const { return ""; }
        std::string operator()(const std::string& text) const { return csv_word(text); }
        std::string operator()(std::int64_t number) const { return std::to_string(number); }
        std::string operator()(std::uint64_t number) const { return std::to_string(number); }
        std::string operator()(double number) const {
            return std::isfinite(number) ? number_text(number) : std::string(non_finite_name(number));
        }
    };
    return std::visit(Write{}, value);
}

Json json_of(const SweepValue& value) {
    struct Write {
        Json operator()(std::monostate) const { return nullptr; }
        Json operator()(const std::string& text) const { return text; }
        Json operator()(std::int64_t number) const { return number; }
        Json operator()(std::uint64_t number) const { return number; }
        Json operator()(double number) const { return json_value<Json>(number); }
    };
    return std::visit(Write{}, value);
}

Json json_of(const std::vector<Setting>& settings) {
    Json json = Json::object();
    for (const Setting& setting : settings)
        json[setting.axis] = setting.value;
    return json;
}

template <class Value>
Json json_of(const std::optional<Value>& value) {
    return value ? json_value<Json>(*value) : Json(nullptr);
}

Json json_of(const LrSensitivity& found) {
    return {{"settings", json_of(found.settings)},
            {"learning_rates", json_value<Json>(found.rates)},
            {"losses", json_value<Json>(found.losses)},
            {"seeds", found.sample.count},
            {"left_out", found.left_out},
            {"sensitivity", json_value<Json>(found.sample.mean)},
            {"standard_error", json_of(found.sample.standard_error())},
            {"best_learning_rate", found.best_rate}};
}

// ---- Sensitivity ----------------------------------------------------------------------------------------------------

std::optional<double> capped_loss(const LrPoint& point) {
    if (!point.initial_loss) return {};
    return point.final_loss ? std::min(*point.final_loss, *point.initial_loss) : *point.initial_loss;
}

/// A run's learning rate, which its settings have as text.
std::optional<double> take_rate(std::vector<Setting>& settings) {
    const auto found = std::find_if(settings.begin(), settings.end(),
                                    [](const Setting& setting) { return setting.axis == kLearningRate; });
    if (found == settings.end()) return {};
    const double rate = std::stod(found->value);
    settings.erase(found);
    return rate;
}

/// The runs of one seed.
struct Seed {
    std::map<double, LrPoint> points; ///< by rate
    bool all_ended = true;
};

struct Arm {
    std::vector<Setting> settings;
    std::map<std::uint64_t, Seed> seeds;
};

LrSensitivity sensitivity_of(const Arm& arm) {
    LrSensitivity result;
    result.settings = arm.settings;
    std::vector<double> values;
    std::map<double, std::vector<double>> losses; // by rate
    for (const auto& [number, seed] : arm.seeds) {
        std::vector<LrPoint> points;
        for (const auto& [rate, point] : seed.points)
            points.push_back(point);
        const std::optional<double> value = seed.all_ended ? lr_sensitivity(points) : std::nullopt;
        if (!value) {
            ++result.left_out;
            continue;
        }
        values.push_back(*value);
        for (const LrPoint& point : points)
            losses[point.lr].push_back(*capped_loss(point));
    }
    result.sample = sample_of(values);
    for (const auto& [rate, of_rate] : losses) {
        result.rates.push_back(rate);
        result.losses.push_back(sample_of(of_rate).mean);
    }
    if (!result.losses.empty()) {
        const auto best = std::min_element(result.losses.begin(), result.losses.end());
        result.best_rate = result.rates[static_cast<std::size_t>(best - result.losses.begin())];
    }
    return result;
}

} // namespace

SweepRow read_sweep_row(const SweepRun& run, const Config& config) { return {run, read_result(run.path, config)}; }

std::span<const SweepColumn> sweep_columns() { return kColumns; }

std::string sweep_csv(std::span<const std::string> axes, std::span<const SweepRow> rows) {
    std::string text{kColumns.front().name};
    for (const std::string& axis : axes)
        text += "," + csv_word(axis);
    for (const SweepColumn& column : std::span(kColumns).subspan(1))
        text += "," + std::string(column.name);
    text += "\n";
    for (const SweepRow& row : rows) {
        text += csv_value(kColumns.front().value(row));
        for (const Setting& setting : row.run.settings)
            text += "," + csv_word(setting.value);
        for (const SweepColumn& column : std::span(kColumns).subspan(1))
            text += "," + csv_value(column.value(row));
        text += "\n";
    }
    return text;
}

std::optional<double> lr_sensitivity(std::span<const LrPoint> points) {
    std::vector<double> losses;
    bool learned = false;
    for (const LrPoint& point : points) {
        const std::optional<double> loss = capped_loss(point);
        if (!loss) return {};
        losses.push_back(*loss);
        learned = learned || point.final_loss.has_value();
    }
    if (!learned) return {};
    return sample_of(losses).mean - *std::min_element(losses.begin(), losses.end());
}

std::vector<LrSensitivity> lr_sensitivities(std::span<const SweepRow> rows) {
    std::vector<Arm> arms;
    for (const SweepRow& row : rows) {
        std::vector<Setting> settings = row.run.settings;
        const std::optional<double> rate = take_rate(settings);
        if (!rate) return {};
        auto arm = std::find_if(arms.begin(), arms.end(), [&](const Arm& known) { return known.settings == settings; });
        if (arm == arms.end()) arm = arms.insert(arm, {settings, {}});
        Seed& seed = arm->seeds[row.run.seed];
        seed.points[*rate] = {*rate, row.result.initial_loss, row.result.final_loss};
        seed.all_ended = seed.all_ended && row.result.has_ended();
    }
    std::vector<LrSensitivity> found;
    for (const Arm& arm : arms) {
        if (arm.seeds.begin()->second.points.size() < 2) return {};
        found.push_back(sensitivity_of(arm));
    }
    return found;
}

std::string sweep_json(std::string_view name, std::span<const std::string> axes, std::span<const SweepRow> rows) {
    Json runs = Json::array();
    for (const SweepRow& row : rows) {
        Json json;
        for (const SweepColumn& column : kColumns) {
            json[std::string(column.name)] = json_of(column.value(row));
            if (&column == &kColumns.front()) json["settings"] = json_of(row.run.settings);
        }
        runs.push_back(std::move(json));
    }
    Json sensitivities = Json::array();
    for (const LrSensitivity& found : lr_sensitivities(rows))
        sensitivities.push_back(json_of(found));
    const Json table = {{"name", std::string(name)},
                        {"axes", std::vector<std::string>(axes.begin(), axes.end())},
                        {"runs", std::move(runs)},
                        {"lr_sensitivity", std::move(sensitivities)}};
    return table.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace ballast
