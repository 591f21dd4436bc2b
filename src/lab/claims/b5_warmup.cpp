#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "arms.h"
#include "ballast/base/text.h"
#include "claims.h"

namespace ballast::literature {

namespace {

Runs cell(const ClaimRuns& runs, const char* placement, double rate, const char* warmup) {
    Runs found;
    for (const ClaimRun* run : runs.with("b5", {{"model.norm.placement", placement}, {"schedule.warmup", warmup}}))
        if (run->config.optimizer.lr == rate) found.push_back(run);
    return found;
}

ClaimResult measure(const ClaimRuns& runs) {
    ClaimResult result;
    result.chart = {
        "Loss with and without warm-up, 12 layers", "step", "training loss, nats per character", false, false, {}};
    double post = -std::numeric_limits<double>::infinity(), pre = 0; // the largest gap; the largest |gap|
    for (const char* placement : {"post", "pre"})
        for (const double rate : {1e-3, 3e-3}) {
            const Runs without = cell(runs, placement, rate, "1"), with = cell(runs, placement, rate, "200");
            const double gap = paired_difference(without, with, final_loss_or_start).mean;
            const std::string name = std::string(placement) + ", rate " + number_text(rate);
            result.report("loss without warm-up, " + name, mean(without, final_loss_or_start));
            result.report("loss with warm-up, " + name, mean(with, final_loss_or_start));
            result.report("gap, " + name, gap);
            if (std::string_view(placement) == "post")
                post = std::max(post, gap);
            else
                pre = larger(pre, std::abs(gap));
            const auto points = [](const ClaimRun& run) { return loss_points(run, 25); };
            result.chart.series.push_back(mean_series(name + ", without", without, points));
            result.chart.series.push_back(mean_series(name + ", with", with, points));
        }
    result.require_at_least("Post-LN, the larger gap of the two rates", post, 0.3);
    result.require_at_most("Pre-LN, the larger |gap| of the two rates", pre, 0.05);
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b5"}};

} // namespace

const Claim b5{
    "b5",
    "Post-LN needs a warm-up and Pre-LN does not",
    "Xiong et al., 2002.04745, sections 3.1 and 4",
    "12 layers of width 64, Xavier, Adam(0.9, 0.98), 1000 steps of 2048 tokens, 3 seeds, learning rates 1e-3 and "
    "3e-3: the validation loss after a warm-up of one step is above that after one of 200 steps by at least 0.3 nats "
    "for Post-LN at one of the rates, and differs by at most 0.05 for Pre-LN at both.",
    "The criterion is ours. The paper trains translation models of 6 layers and width 512 with an inverse square root "
    "schedule; here a cosine follows the warm-up, so that its length changes little else. With GPT-2's init, which "
    "begins with small branches, the claim weakens. That Pre-LN gains nothing from a warm-up does not show at this "
    "size: "
    "it trains without one, but not as far.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
