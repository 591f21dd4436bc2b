#include <cmath>

#include "arms.h"
#include "claims.h"

namespace ballast::literature {

namespace {

/// RMS of what the output layer is given, at every step that was probed: behind a final norm, which makes rows of RMS
/// 1, that is the RMS of its gain.
std::vector<std::pair<double, double>> pre_logit_rms(const ClaimRun& run) {
    const bool has_norm = run.config.model.final_norm == Switch::on;
    std::vector<std::pair<double, double>> points;
    for (const LayerRecord& record : read_layers(run.run.path / "layers.jsonl")) {
        const auto step = static_cast<double>(record.step);
        if (has_norm && record.site == "final_norm" && record.gain_mean && record.gain_spread)
            points.emplace_back(step, std::hypot(*record.gain_mean, *record.gain_spread));
        if (!has_norm && record.layer == run.config.model.layers - 1 && record.site == "ffn" && record.stream_rms)
            points.emplace_back(step, *record.stream_rms);
    }
    return points;
}

double rms_at_end(const ClaimRun& run) {
    const auto points = pre_logit_rms(run);
    return points.empty() ? std::nan("") : points.back().second;
}

/// Over the second half of the run.
double rise(const ClaimRun& run) {
    const auto points = pre_logit_rms(run);
    return points.empty() ? std::nan("") : points.back().second / points[points.size() / 2].second;
}

ClaimResult measure(const ClaimRuns& runs) {
    ClaimResult result;
    result.chart = {"RMS of what the output layer is given", "step", "RMS", false, true, {}};
    for (const auto& [variant, name] :
         {std::pair("all", "all norms"), std::pair("final", "final norm alone"), std::pair("none", "no norms")}) {
        const Runs arm = runs.with("b8", {{"variant", variant}});
        result.report("validation loss, " + std::string(name), mean(arm, final_loss));
        result.report("pre-logit RMS at the end, " + std::string(name), mean(arm, rms_at_end));
        result.chart.series.push_back(mean_series(name, arm, pre_logit_rms));
    }
    const Runs anchored = runs.with("b8", {{"variant", "final"}}), loose = runs.with("b8", {{"variant", "none"}});
    result.require_at_least("pre-logit RMS at the end, no norms over final norm alone",
                            mean(loose, rms_at_end) / mean(anchored, rms_at_end), 2);
    result.require_at_least("its rise over the second half, no norms", mean(loose, rise), 1.1);
    result.require_at_most("its rise over the second half, final norm alone", mean(anchored, rise), 1.1);
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b8"}};

} // namespace

const Claim b8{
    "b8",
    "The final norm anchors the scale of what the output layer is given",
    "TaperNorm, 2602.10408",
    "4 layers of width 64, 1000 steps, 3 seeds, no norm inside: without a final norm the RMS of what the output layer "
    "is given ends at least twice as high as with one, and rises by a tenth or more over the second half of the run; "
    "with it, by less.",
    "The criterion is ours. The paper tapers norms out during training; here both ends of the taper are trained from "
    "the start, which a model this shallow allows. Behind a final norm the RMS is that of its gain by construction: "
    "what is tested is that the gain does not take the growth over. The rises of the first result, 1.14 and 1.09, are "
    "near the bound on either side; the ratio says more.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
