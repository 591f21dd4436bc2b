#include <cmath>

#include "arms.h"
#include "ballast/train/graft_record.h"
#include "claims.h"

namespace ballast::literature {

namespace {

struct Arm {
    const char* variant;
    const char* name;
};
constexpr Arm kChanged[] = {{"post", "Post-LN"},
                            {"branch-out", "branch-out"},
                            {"no-final-norm", "no final norm"},
                            {"rmsnorm", "RMSNorm"},
                            {"eps", "eps 0.1"},
                            {"post-calibrated", "Post-LN, calibrated"},
                            {"post-warmup", "Post-LN, warmed up"},
                            {"post-low-lr", "Post-LN, lower rate"}};

double drift(const ClaimRun& run) {
    const std::optional<GraftRecord> graft = read_graft_record(run.run.path);
    return graft ? graft->drift.mean_logit : std::nan("");
}

double added_loss(const ClaimRun& run) {
    const std::optional<GraftRecord> graft = read_graft_record(run.run.path);
    return graft ? graft->drift.loss_after - graft->drift.loss_before : std::nan("");
}

bool is_unstable(const ClaimRun& run) { return run.result.summary.verdict != "stable"; }

ClaimResult measure(const ClaimRuns& runs) {
    ClaimResult result;
    result.chart = {
        "The first 200 steps behind a change of norms", "step", "training loss, nats per character", false, false, {}};
    const auto points = [](const ClaimRun& run) { return loss_points(run, 5); };
    const Runs control = runs.with("b15", {{"variant", "unchanged"}});
    result.chart.series.push_back(mean_series("unchanged", control, points));
    double unstable = 0, named = 0;
    for (const Arm& arm : kChanged) {
        const Runs of_arm = runs.with("b15", {{"variant", arm.variant}});
        const std::string name(arm.name);
        result.report("mean |change| of a logit before any step, " + name, mean(of_arm, drift));
        result.report("loss added before any step, " + name, mean(of_arm, added_loss));
        result.report("loss after 200 steps minus that of the control, " + name,
                      paired_difference(of_arm, control, final_loss_or_start).mean);
        const auto share = [](const ClaimRun& run) { return is_unstable(run) ? 1.0 : 0.0; };
        result.report("share of runs that are not stable, " + name, mean(of_arm, share));
        for (const ClaimRun* run : of_arm) {
            if (!is_unstable(*run)) continue;
            ++unstable;
            named += is_diagnosed(run->run.path, "norms_at_graft") ? 1 : 0;
        }
        result.chart.series.push_back(mean_series(name, of_arm, points));
    }
    double moved = 0;
    for (const ClaimRun* run : control) {
        const std::optional<GraftRecord> graft = read_graft_record(run->run.path);
        moved = larger(moved, graft ? graft->drift.max_logit : std::nan(""));
    }
    result.report("runs that are not stable", unstable);
    result.require_at_least("share of them for which diagnose names the norms", named / unstable, 1);
    result.require_at_most("control: largest change of a logit before any step", moved, 0);
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b15_source"}, {"b15", "b15_source"}};

} // namespace

const Claim b15{
    "b15",
    "A run that goes on under other norms is named as such where it becomes unstable",
    "none: no published study was found. The case that Ballast exists for",
    "Pre-LN runs of 400 steps (8 layers, learning rate 0.01) go on for 200 as Post-LN, branch-out, without a final "
    "norm, with RMSNorm and with an eps of 0.1, 3 seeds: `ballast diagnose` names the change of norms for every run "
    "whose verdict is not stable. Control: without a change, no logit moves before the first step, to the bit.",
    "Criterion and experiment are ours, and exploratory: how much each change costs, and whether calibrated gains, a "
    "warm-up of the new norms (100 steps, to a tenth of the rate) or a lower rate (a tenth) repair it, is reported "
    "and not judged. Without an unstable run nothing is decided.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
