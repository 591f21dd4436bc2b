#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>

#include "ballast/config/describe.h"
#include "ballast/config/placement.h"
#include "ballast/lab/report.h"
#include "ballast/lab/statistics.h"
#include "ballast/lab/sweep_table.h"

namespace ballast {

namespace {

/// Keys in which the runs of one curve may differ.
constexpr auto kWithinCurve = std::to_array<std::string_view>({"name", "seed", "optimizer.lr", "schedule.final_lr"});
constexpr std::string_view kPlacement = "model.norm.placement";

std::string_view placement_name(const ReportedRun& run) {
    return placement_row(run.record.config.model.norm.placement).name;
}

/// What tells the run's curve from others: `key value` for each key in which any two runs differ, placement first.
std::string curve_label(const ReportedRun& run, const ReportedRun& first, const std::set<std::string>& keys) {
    std::map<std::string, std::string> values;
    for (const KeyDifference& difference : diff(first.record.config, run.record.config))
        values[difference.path] = difference.b;
    std::string label;
    if (keys.contains(std::string(kPlacement))) label = placement_name(run);
    for (const std::string& key : keys) {
        if (key == kPlacement) continue;
        // A key that is not in the difference has the value of the first run, which needs no words.
        const auto found = values.find(key);
        if (found == values.end()) continue;
        label += (label.empty() ? "" : ", ") + key + " " + found->second;
    }
    return label;
}

/// A curve that alone has its placement needs no more words: other keys may follow from it, as final_norm does.
void shorten_labels(RateCurves& rates, const Report& report) {
    std::map<std::string_view, int> times;
    const auto placement = [&](const RateCurve& curve) {
        return placement_name(report.runs[curve.points.front().run]);
    };
    for (const RateCurve& curve : rates.curves)
        ++times[placement(curve)];
    if (times.size() < 2) return;
    for (RateCurve& curve : rates.curves)
        if (times[placement(curve)] == 1) curve.label = placement(curve);
}

/// Sets the sensitivity, over the seeds that have every learning rate of the curve.
void find_sensitivity(RateCurve& curve, const Report& report) {
    std::map<std::uint64_t, std::map<double, LrPoint>> seeds;
    std::set<double> rates;
    for (const RatePoint& point : curve.points) {
        const ReportedRun& run = report.runs[point.run];
        seeds[run.record.config.seed][point.lr] = {point.lr, run.result.initial_loss, run.result.final_loss};
        rates.insert(point.lr);
    }
    if (rates.size() < 2) return;
    std::vector<double> found;
    for (const auto& [seed, by_rate] : seeds) {
        if (by_rate.size() != rates.size()) continue;
        std::vector<LrPoint> points;
        for (const auto& [rate, point] : by_rate)
            points.push_back(point);
        if (const std::optional<double> value = lr_sensitivity(points)) found.push_back(*value);
    }
    if (found.empty()) return;
    const Sample sample = sample_of(found);
    curve.sensitivity = sample.mean;
    curve.standard_error = sample.standard_error();
}

} // namespace

RateCurves rate_curves(const Report& report) {
    std::vector<std::size_t> finished;
    std::set<double> rates;
    for (std::size_t i = 0; i < report.runs.size(); ++i) {
        const ReportedRun& run = report.runs[i];
        if (!run.result.has_ended() || !run.result.initial_loss) continue;
        finished.push_back(i);
        rates.insert(run.record.config.optimizer.lr);
    }
    RateCurves found;
    if (rates.size() < 2) return found;

    std::set<std::string> keys;
    const ReportedRun& first = report.runs[finished.front()];
    for (const std::size_t i : finished) {
        const ReportedRun& run = report.runs[i];
        if (run.result.state == RunState::done) (run.result.by_validation ? found.validation : found.training) = true;
        for (const KeyDifference& difference : diff(first.record.config, run.record.config))
            if (std::find(kWithinCurve.begin(), kWithinCurve.end(), difference.path) == kWithinCurve.end())
                keys.insert(difference.path);
    }

    for (const std::size_t i : finished) {
        const ReportedRun& run = report.runs[i];
        const double start = *run.result.initial_loss;
        const RatePoint point{run.record.config.optimizer.lr, std::min(run.result.final_loss.value_or(start), start),
                              run.result.state == RunState::diverged, i};
        const std::string label = curve_label(run, first, keys);
        const auto curve = std::find_if(found.curves.begin(), found.curves.end(),
                                        [&](const RateCurve& known) { return known.label == label; });
        if (curve == found.curves.end())
            found.curves.push_back({label, {point}, {}, {}});
        else
            curve->points.push_back(point);
    }
    shorten_labels(found, report);
    for (RateCurve& curve : found.curves) {
        std::stable_sort(curve.points.begin(), curve.points.end(),
                         [](const RatePoint& a, const RatePoint& b) { return a.lr < b.lr; });
        find_sensitivity(curve, report);
    }
    const bool has_curve = std::any_of(found.curves.begin(), found.curves.end(), [](const RateCurve& curve) {
        return curve.points.front().lr < curve.points.back().lr;
    });
    return has_curve ? found : RateCurves{};
}

} // namespace ballast
