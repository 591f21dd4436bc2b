#include <algorithm>

#include "arms.h"
#include "ballast/base/text.h"
#include "ballast/train/trainer.h"
#include "claims.h"

namespace ballast::literature {

namespace {

namespace fs = std::filesystem;

/// Goes on with a copy of a run, at the learning rate `lr`. Returns the copy, which ends as it would without
/// interruptions.
fs::path resumed(const ClaimRuns& runs, const ClaimRun& run, const std::string& name, double lr) {
    fs::path copy = runs.directory / (name + "-seed-" + std::to_string(run.run.seed));
    if (!fs::exists(copy)) {
        const fs::path unfinished = copy.string() + ".copy";
        fs::remove_all(unfinished);
        fs::create_directories(unfinished.parent_path());
        fs::copy(run.run.path, unfinished, fs::copy_options::recursive);
        fs::rename(unfinished, copy);
    }
    const std::string settings[] = {"optimizer.lr=" + number_text(lr),
                                    "train.steps=" + std::to_string(2 * run.config.train.steps)};
    Trainer trainer = Trainer::resume(copy, settings);
    if (!trainer.is_finished()) trainer.run({}, *runs.interrupt);
    return copy;
}

/// How many of some runs diagnose() names a cause for.
class Count {
public:
    void add(const fs::path& run, std::string_view cause) {
        ++runs_;
        if (is_diagnosed(run, cause)) ++named_;
    }
    double share() const { return static_cast<double>(named_) / static_cast<double>(runs_); }

private:
    int runs_ = 0;
    int named_ = 0;
};

ClaimResult measure(const ClaimRuns& runs) {
    ClaimResult result;
    Count healthy;
    const auto faulty = [&](const std::string& variant, std::string_view cause) {
        Count named;
        for (const ClaimRun* run : runs.with("b4", {{"variant", variant}}))
            named.add(run->run.path, cause);
        for (const ClaimRun* run : runs.with("b4", {{"variant", variant + "-healthy"}}))
            healthy.add(run->run.path, "");
        result.require_at_least("share of runs for which " + std::string(cause) + " is named", named.share(), 1);
    };
    faulty("attention-logits", "attention_logit_growth");
    faulty("bad-data", "bad_data");
    Count named;
    const Runs before = runs.with("b4", {{"variant", "before-resume"}});
    double jump = 0;
    for (const ClaimRun* run : before) {
        const double lr = run->config.optimizer.lr;
        const fs::path wrong = resumed(runs, *run, "wrong-lr", 50 * lr);
        named.add(wrong, "lr_on_resume");
        healthy.add(resumed(runs, *run, "same-lr", lr), "");
        const std::vector<StepRecord> steps = read_metrics(wrong / "metrics.jsonl");
        const auto last = static_cast<std::size_t>(run->config.train.steps);
        if (steps.size() > last)
            jump += steps[last].update_ratio / steps[last - 1].update_ratio / static_cast<double>(before.size());
    }
    result.require_at_least("share of runs for which lr_on_resume is named", named.share(), 1);
    result.require_at_most("share of healthy runs for which anything is named", healthy.share(), 0);
    result.report("update over weights at the step behind the resume, over that before", jump);

    result.chart = {"Three faults", "step", "training loss, nats per character", false, false, {}};
    const auto points = [](const ClaimRun& run) { return loss_points(run, 5); };
    result.chart.series.push_back(
        mean_series("attention logits", runs.with("b4", {{"variant", "attention-logits"}}), points));
    result.chart.series.push_back(mean_series("bad data", runs.with("b4", {{"variant", "bad-data"}}), points));
    const auto resumed_points = [&](const ClaimRun& run) {
        ClaimRun copy = run;
        copy.run.path = runs.directory / ("wrong-lr-seed-" + std::to_string(run.run.seed));
        return loss_points(copy, 5);
    };
    result.chart.series.push_back(mean_series("wrong rate on resume", before, resumed_points));
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b4"}};

} // namespace

const Claim b4{
    "b4",
    "Three faults have signatures that tell them apart",
    "Wortsman et al., 2309.14322, section 3.1 (attention logits); Chowdhery et al., 2204.02311, section 5.1 (bad "
    "data); the learning rate on resume is ours",
    "3 seeds each: `ballast diagnose` names attention logit growth at a learning rate of 0.3, bad data after three "
    "batches of a repeated pattern of 4 tokens, and the learning rate of a run resumed at 50 times its own, for every "
    "run; and it names nothing for any of the twins without the fault.",
    "Criterion and thresholds (src/lab/diagnose.cpp) are ours, and the thresholds were set on runs of this size. That "
    "they hold for three more seeds says little about large models.",
    "",
    kSweeps,
    measure};

} // namespace ballast::literature
