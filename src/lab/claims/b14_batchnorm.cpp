#include <cmath>

#include "arms.h"
#include "bare_model.h"
#include "claims.h"

namespace ballast::literature {

namespace {

/// Validation loss minus training loss at the end.
double gap(const ClaimRun& run) { return final_loss(run) - last_training_loss(run); }

/// Largest change of a logit before the last token of a sequence when that token changes: 0 where nothing shows a
/// position its future.
double leak(NormKind kind, Mode mode) {
    constexpr SequenceShape kSequences{4, 32};
    constexpr std::int64_t kVocabulary = 32;
    BareModel model(model_with([&](ModelConfig& config) {
                        config.width = 64;
                        config.context = kSequences.time;
                        config.norm.kind = kind;
                        config.init.kind = InitKind::fan_in;
                    }),
                    kVocabulary, 1);
    const std::vector<std::int32_t> tokens =
        random_tokens(1, "tokens", kSequences.batch * kSequences.time, kVocabulary);
    std::vector<std::int32_t> changed = tokens;
    for (auto last = kSequences.time - 1; last < kSequences.batch * kSequences.time; last += kSequences.time) {
        std::int32_t& token = changed[static_cast<std::size_t>(last)];
        token = (token + 1) % kVocabulary;
    }
    const std::vector<float> a = model.logits(tokens, kSequences, mode), b = model.logits(changed, kSequences, mode);
    double largest = 0;
    for (std::int64_t i = 0; i < kSequences.batch * kSequences.time * kVocabulary; ++i) {
        if (i / kVocabulary % kSequences.time == kSequences.time - 1) continue;
        const auto at = static_cast<std::size_t>(i);
        largest = larger(largest, std::abs(static_cast<double>(a[at]) - static_cast<double>(b[at])));
    }
    return largest;
}

ClaimResult measure(const ClaimRuns& runs) {
    const Runs layernorm = runs.with("b14", {{"model.norm.kind", "layernorm"}});
    const Runs batchnorm = runs.with("b14", {{"model.norm.kind", "batchnorm"}});
    ClaimResult result;
    result.report("validation loss, LayerNorm", mean(layernorm, final_loss));
    result.report("validation loss, BatchNorm", mean(batchnorm, final_loss));
    result.report("validation minus training loss, LayerNorm", mean(layernorm, gap));
    result.report("validation minus training loss, BatchNorm", mean(batchnorm, gap));
    result.require_above_noise("BatchNorm's minus LayerNorm's, over its standard error",
                               paired_difference(batchnorm, layernorm, gap));
    result.require_at_least("leak of the future, BatchNorm in training", leak(NormKind::batchnorm, Mode::train), 0.01);
    result.require_at_most("leak of the future, BatchNorm in evaluation", leak(NormKind::batchnorm, Mode::eval), 0);
    result.require_at_most("leak of the future, LayerNorm in training", leak(NormKind::layernorm, Mode::train), 0);
    result.chart = {"BatchNorm and LayerNorm", "step", "training loss, nats per character", false, false, {}};
    const auto points = [](const ClaimRun& run) { return loss_points(run, 20); };
    result.chart.series.push_back(mean_series("LayerNorm", layernorm, points));
    result.chart.series.push_back(mean_series("BatchNorm", batchnorm, points));
    return result;
}

constexpr ClaimSweep kSweeps[] = {{"b14"}};

} // namespace

const Claim b14{"b14",
                "BatchNorm does worse in evaluation than in training, and shows a position its future",
                "Shen et al., 2003.07845, section 3",
                "4 layers of width 64, 600 steps, 3 seeds: validation loss minus the training loss of the last 5 % of "
                "steps is larger "
                "with BatchNorm than with LayerNorm by more than 2 standard errors of the paired difference. At the "
                "start, the last "
                "token of a sequence changes logits before it by at least 0.01 with BatchNorm in training, and by "
                "exactly 0 with it "
                "in evaluation and with LayerNorm.",
                "The criterion is ours. A negative control: in a causal language model, statistics over time make the "
                "training loss "
                "of BatchNorm a loss of another task. Shen et al. saw the gap in translation, with batches whose "
                "statistics vary much "
                "more than those of 1024 tokens of one text do here.",
                "",
                kSweeps,
                measure};

} // namespace ballast::literature
