#include "ballast/lab/run_result.h"

#include <algorithm>
#include <cmath>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/train/metrics.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

std::optional<double> finite(std::optional<double> value) {
    return value && std::isfinite(*value) ? value : std::nullopt;
}

/// The first record, without reading the others.
std::optional<double> first_loss(const fs::path& metrics) {
    if (!is_there(metrics)) return {};
    const MappedFile file(metrics);
    const std::size_t end = file.text().find('\n');
    if (end == std::string_view::npos) return {};
    return finite(step_record_from_json(file.text().substr(0, end)).loss);
}

std::optional<double> mean_of_last_losses(const fs::path& metrics, std::int64_t steps) {
    constexpr double kShare = 0.05;
    const auto count = std::max<std::int64_t>(1, std::llround(kShare * static_cast<double>(steps)));
    double sum = 0;
    std::int64_t found = 0;
    for (const StepRecord& record : read_metrics(metrics)) {
        if (record.step <= steps - count) continue;
        sum += record.loss;
        ++found;
    }
    if (found == 0) return {};
    return finite(sum / static_cast<double>(found));
}

} // namespace

std::string_view to_string(RunState state) {
    switch (state) {
    case RunState::missing: return "missing";
    case RunState::unfinished: return "unfinished";
    case RunState::done: return "done";
    case RunState::diverged: break;
    }
    return "diverged";
}

RunResult read_result(const fs::path& run, const Config& config) {
    RunResult result;
    if (!is_there(run)) return result;
    const RunDirectory directory = RunDirectory::open(run);
    result.state = RunState::unfinished;
    try {
        result.initial_loss = first_loss(directory.metrics_path());
    } catch (const IoError& error) {
        throw IoError(directory.metrics_path().string() + ":1: " + error.what());
    }
    if (!is_there(directory.summary_path())) return result;
    RunSummary summary = directory.summary();
    if (summary.verdict.empty()) throw IoError(directory.summary_path().string() + ": has no verdict");
    if (summary.verdict == "interrupted") return result;
    const bool diverged = summary.verdict == "diverged" || summary.verdict == "non_finite";
    result.state = diverged ? RunState::diverged : RunState::done;
    const bool all_steps = summary.step == config.train.steps;
    // A run that ends before its first evaluation has no validation loss where others of its kind have one.
    result.by_validation = summary.best_val_loss.has_value() || summary.final_val_loss.has_value() ||
                           (!all_steps && config.data.val_fraction > 0);
    if (all_steps)
        result.final_loss = result.by_validation ? finite(summary.final_val_loss)
                                                 : mean_of_last_losses(directory.metrics_path(), config.train.steps);
    result.best_loss = finite(result.by_validation ? summary.best_val_loss : summary.best_loss);
    result.summary = std::move(summary);
    return result;
}

} // namespace ballast
