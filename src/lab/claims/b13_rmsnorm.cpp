#include <cmath>

#include "arms.h"
#include "claims.h"

namespace ballast::literature {

namespace {

ClaimResult measure(const ClaimRuns& runs) {
    const Runs layernorm = runs.with("b13", {{"model.norm.kind", "layernorm"}});
    const Runs rmsnorm = runs.with("b13", {{"model.norm.kind", "rmsnorm"}});
    ClaimResult result;
    result.report("validation loss, LayerNorm", mean(layernorm, final_loss));
    result.report("validation loss, RMSNorm", mean(rmsnorm, final_loss));
    const Sample difference = paired_difference(rmsnorm, layernorm, final_loss);
    const double error = difference.standard_error().value_or(std::nan(""));
    result.report("RMSNorm minus LayerNorm, mean over seeds", difference.mean);
    result.report("its standard error", error);
    if (const std::optional<Interval> interval = confidence_interval(difference)) {
        result.report("95 % interval of the difference, low", interval->low);
        result.report("95 % interval of the difference, high", interval->high);
    }
    result.require_at_most("|difference| over its standard error", std::abs(difference.mean) / error, 2);
    const auto speed = [](const ClaimRun& run) { return run.result.summary.tokens_per_second; };
    result.report("tokens per second, RMSNorm over LayerNorm", mean(rmsnorm, speed) / mean(layernorm, speed));
    result.chart = {"RMSNorm and LayerNorm", "step", "training loss, nats per character", false, false, {}};
    const auto points = [](const ClaimRun& run) { return loss_points(run, 20); };
    result.chart.series.push_back(mean_series("LayerNorm", layernorm, points));
    result.chart.series.push_back(mean_series("RMSNorm", rmsnorm, points));
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b13"}};

} // namespace

const Claim b13{
    "b13",
    "RMSNorm is as good as LayerNorm",
    "Zhang & Sennrich, 1910.07467, section 5",
    "configs/quickstart.json for 600 steps, 5 seeds: the paired difference of the validation losses is within 2 "
    "standard errors of 0.",
    "The criterion is ours. It fails once in eight times without any difference (Student's t with 4 degrees of "
    "freedom), and passes where a difference is below the noise: the interval says how large one could be. Speed is "
    "reported: whole steps here, with other runs beside them; `bench_norms` has the kernels, by width.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
