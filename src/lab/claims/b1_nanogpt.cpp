#include "arms.h"
#include "claims.h"

namespace ballast::literature {

namespace {

ClaimResult measure(const ClaimRuns& runs) {
    const Runs all = runs.with("b1");
    ClaimResult result;
    for (const ClaimRun* run : all)
        result.report("validation loss, seed " + std::to_string(run->run.seed), final_loss(*run));
    result.require_within("validation loss, mean of the seeds", mean(all, final_loss), 1.82, 1.94);
    result.chart = {"nanoGPT's recipe for a CPU", "step", "training loss, nats per character", false, false, {}};
    result.chart.series.push_back(
        mean_series("mean of 3 seeds", all, [](const ClaimRun& run) { return loss_points(run, 50); }));
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b1"}};

} // namespace

const Claim b1{
    "b1",
    "nanoGPT's recipe for a CPU ends at a validation loss of 1.88",
    "github.com/karpathy/nanoGPT, README: 4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps",
    "Tiny Shakespeare by characters, 3 seeds: the mean validation loss over 200 batches after the last step is 1.88 "
    "+- 0.06.",
    "The interval is ours; the published figure is of one run, over 20 batches. The text does not ship with Ballast: "
    "configs/shakespeare.json says where it goes. The larger recipe (6 layers of width 384, context 256, 5000 steps, "
    "1.4697) takes hours on a CPU and is not part of this.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
