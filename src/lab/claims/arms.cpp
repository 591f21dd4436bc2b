#include "arms.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ballast/lab/diagnose.h"
#include "ballast/train/run_directory.h"

namespace ballast::literature {

namespace {
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
} // namespace

double final_loss(const ClaimRun& run) { return run.result.final_loss.value_or(kNone); }

double final_loss_or_start(const ClaimRun& run) {
    const double start = run.result.initial_loss.value_or(kNone);
    return run.result.final_loss ? std::min(*run.result.final_loss, start) : start;
}

Sample sample_of(const Runs& runs, const RunValue& value) {
    std::vector<double> values;
    for (const ClaimRun* run : runs)
        if (const double one = value(*run); std::isfinite(one)) values.push_back(one);
    return ballast::sample_of(values);
}

Sample paired_difference(const Runs& a, const Runs& b, const RunValue& value) {
    std::vector<double> differences;
    for (const ClaimRun* run : a) {
        const auto pair =
            std::find_if(b.begin(), b.end(), [&](const ClaimRun* other) { return other->run.seed == run->run.seed; });
        if (pair == b.end()) continue;
        if (const double difference = value(*run) - value(**pair); std::isfinite(difference))
            differences.push_back(difference);
    }
    return ballast::sample_of(differences);
}

double mean(const Runs& runs, const RunValue& value) { return sample_of(runs, value).mean; }

std::vector<StepRecord> steps_of(const ClaimRun& run) { return read_metrics(run.run.path / "metrics.jsonl"); }

std::vector<LayerRecord> layers_of(const ClaimRun& run, std::int64_t layer, std::string_view site) {
    std::vector<LayerRecord> found;
    for (LayerRecord& record : read_layers(run.run.path / "layers.jsonl"))
        if (record.layer == layer && record.site == site) found.push_back(std::move(record));
    return found;
}

double last_training_loss(const ClaimRun& run) {
    constexpr double kShare = 0.05;
    const std::vector<StepRecord> steps = steps_of(run);
    if (steps.empty() || steps.back().step < run.config.train.steps) return kNone;
    const auto count = std::max<std::size_t>(1, static_cast<std::size_t>(kShare * static_cast<double>(steps.size())));
    double sum = 0;
    for (std::size_t i = steps.size() - count; i < steps.size(); ++i)
        sum += steps[i].loss;
    return sum / static_cast<double>(count);
}

ClaimSeries mean_series(std::string name, const Runs& runs,
                        const std::function<std::vector<std::pair<double, double>>(const ClaimRun&)>& points) {
    ClaimSeries series{std::move(name), {}};
    std::size_t count = 0;
    for (const ClaimRun* run : runs) {
        const std::vector<std::pair<double, double>> own = points(*run);
        if (count == 0) series.points.assign(own.size(), {0, 0});
        series.points.resize(std::min(series.points.size(), own.size()));
        ++count;
        for (std::size_t i = 0; i < series.points.size(); ++i) {
            series.points[i].first = own[i].first;
            series.points[i].second += (own[i].second - series.points[i].second) / static_cast<double>(count);
        }
    }
    return series;
}

std::vector<std::pair<double, double>> loss_points(const ClaimRun& run, std::int64_t window) {
    std::vector<std::pair<double, double>> points;
    double sum = 0;
    for (const StepRecord& record : steps_of(run)) {
        sum += record.loss;
        if (record.step % window != 0) continue;
        points.emplace_back(static_cast<double>(record.step), sum / static_cast<double>(window));
        sum = 0;
    }
    return points;
}

bool is_diagnosed(const std::filesystem::path& run, std::string_view cause) {
    const std::vector<Diagnosis> found = diagnose(read_run(run));
    if (cause.empty()) return !found.empty();
    return std::any_of(found.begin(), found.end(), [&](const Diagnosis& one) { return one.cause == cause; });
}

} // namespace ballast::literature
