#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "ballast/lab/claim.h"
#include "ballast/train/layer_record.h"
#include "ballast/train/metrics.h"
#include "ballast/train/step_record.h"

// Runs of a claim's sweep, by arm and in pairs of one seed.

namespace ballast::literature {

using Runs = std::vector<const ClaimRun*>;
/// NaN where a run does not have the value.
using RunValue = std::function<double(const ClaimRun&)>;

/// RunResult::final_loss.
double final_loss(const ClaimRun& run);
/// The lower one of final loss and loss at the start, which is what a run counts with that diverged.
double final_loss_or_start(const ClaimRun& run);

/// Over the runs that have it.
Sample sample_of(const Runs& runs, const RunValue& value);
/// Values of `a` minus those of `b` of the same seed.
Sample paired_difference(const Runs& a, const Runs& b, const RunValue& value);
/// Mean over the runs that have it; NaN when none has.
double mean(const Runs& runs, const RunValue& value);

std::vector<StepRecord> steps_of(const ClaimRun& run);
/// layers.jsonl of one layer's site, in the order of the steps.
std::vector<LayerRecord> layers_of(const ClaimRun& run, std::int64_t layer, std::string_view site);
/// Mean training loss of the last 5 % of the steps.
double last_training_loss(const ClaimRun& run);

/// A line of means over runs at the steps that all have recorded.
ClaimSeries mean_series(std::string name, const Runs& runs,
                        const std::function<std::vector<std::pair<double, double>>(const ClaimRun&)>& points);
/// The training loss, averaged over `window` steps.
std::vector<std::pair<double, double>> loss_points(const ClaimRun& run, std::int64_t window);

/// Whether diagnose() has `cause`, or anything with an empty `cause`, among what it finds in a run directory.
bool is_diagnosed(const std::filesystem::path& run, std::string_view cause);

} // namespace ballast::literature
