#include "ballast/train/choose_checkpoint.h"

#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

std::string step_list(const std::vector<std::int64_t>& steps) {
    std::string text;
    for (const std::int64_t step : steps)
        text += (text.empty() ? "" : ", ") + std::to_string(step);
    return text;
}

} // namespace

fs::path choose_checkpoint(const fs::path& run, const std::string& wanted, const Log& log) {
    const std::vector<std::int64_t> steps = list_checkpoints(run);
    if (steps.empty())
        throw UsageError(run.string() + ": has no checkpoint yet; it saves one every train.checkpoint_every steps");
    if (wanted == "newest") {
        const NewestCheckpoint newest = newest_checkpoint(run);
        for (const std::string& reason : newest.passed_over)
            log.warn(reason);
        if (newest.path) return *newest.path;
        throw CheckpointError(newest.passed_over);
    }
    if (wanted == "best") {
        std::map<std::int64_t, double> losses;
        for (const StepRecord& record : read_metrics(RunDirectory::open(run).metrics_path()))
            if (record.val_loss) losses[record.step] = *record.val_loss;
        std::optional<std::int64_t> best;
        for (const std::int64_t step : steps)
            if (losses.contains(step) && (!best || losses[step] < losses[*best])) best = step;
        if (best) return checkpoint_path(run, *best);
        throw UsageError(run.string() + ": none of its checkpoints (" + step_list(steps) +
                         ") is of an evaluated step; expected checkpoint newest or one of these steps");
    }
    std::int64_t step = -1;
    const auto [end, problem] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), step);
    if (problem == std::errc() && end == wanted.data() + wanted.size())
        for (const std::int64_t known : steps)
            if (known == step) return checkpoint_path(run, step);
    throw UsageError(run.string() + ": has no checkpoint " + printable(wanted, 60) +
                     "; expected newest, best or a step: " + step_list(steps));
}

} // namespace ballast
