#include <algorithm>
#include <array>
#include <cmath>

#include "bare_model.h"
#include "claims.h"

namespace ballast::literature {

namespace {

constexpr std::int64_t kWidth = 128, kVocabulary = 64;
constexpr SequenceShape kSequences{8, 32};
constexpr std::uint64_t kSeeds = 3;
constexpr double kLr = 1e-2, kAdamLr = 1e-4;

struct Arm {
    const char* name;
    Placement placement;
    InitKind init;
};
constexpr auto kArms = std::to_array<Arm>({{"Post-LN", placement_named("post"), InitKind::xavier},
                                           {"Pre-LN", placement_named("pre"), InitKind::xavier},
                                           {"DeepNorm", placement_named("deepnorm"), InitKind::deepnorm}});

/// Relative change of what the output layer is given, by one step of the blocks' parameters.
double change_by_a_step(const Arm& arm, std::int64_t layers, std::uint64_t seed, bool adam) {
    BareModel model(model_with([&](ModelConfig& config) {
                        config.layers = layers;
                        config.heads = 4;
                        config.width = kWidth;
                        config.context = kSequences.time;
                        config.ffn.kind = FfnKind::relu;
                        config.norm.placement = arm.placement;
                        config.norm.gain = false;
                        config.position = PositionKind::none;
                        config.tie_embeddings = false;
                        config.init.kind = arm.init;
                    }),
                    kVocabulary, seed);
    model.multiply("embedding.tokens", std::sqrt(static_cast<double>(kWidth)));
    const std::int64_t count = kSequences.batch * kSequences.time;
    const auto tokens = random_tokens(seed, "tokens", count, kVocabulary);
    const auto targets = random_tokens(seed, "targets", count, kVocabulary);
    model.logits(tokens, kSequences, Mode::eval);
    const std::vector<float> before = model.representation();
    model.backward(tokens, targets, kSequences);
    for (const Param& param : model.table().params()) {
        if (!param.name.starts_with("blocks.")) continue;
        float* const values = model.values(param.name);
        const float* const gradient = model.gradients(param.name);
        for (std::int64_t i = 0; i < param.shape.elements(); ++i) {
            const double direction =
                adam ? std::copysign(kAdamLr, gradient[i]) : kLr * static_cast<double>(gradient[i]);
            values[i] -= static_cast<float>(direction);
        }
    }
    model.logits(tokens, kSequences, Mode::eval);
    return relative_change(model.representation(), before);
}

double mean_change(const Arm& arm, std::int64_t layers, bool adam) {
    std::vector<double> of_seeds;
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed)
        of_seeds.push_back(change_by_a_step(arm, layers, seed, adam));
    return geometric_mean(of_seeds);
}

ClaimResult measure(const ClaimRuns&) {
    constexpr auto kDepths = std::to_array<std::int64_t>({2, 8, 32});
    ClaimResult result;
    result.chart = {
        "Change of the last representation by one step of SGD", "layers", "relative change", true, true, {}};
    for (const Arm& arm : kArms) {
        ClaimSeries& series = result.chart.series.emplace_back();
        series.name = arm.name;
        std::vector<double> changes;
        for (const std::int64_t layers : kDepths) {
            changes.push_back(mean_change(arm, layers, false));
            series.points.emplace_back(static_cast<double>(layers), changes.back());
            result.report(std::string(arm.name) + ", " + std::to_string(layers) + " layers", changes.back());
        }
        const std::string name(arm.name);
        const auto [least, most] = std::minmax_element(changes.begin(), changes.end());
        if (name == "DeepNorm") result.require_at_most("DeepNorm, largest over least", *most / *least, 1.2);
        if (name == "Post-LN")
            result.require_at_least("Post-LN, 32 layers over 2", changes.back() / changes.front(), 10);
    }
    result.report("DeepNorm with a step of Adam's kind, 32 layers over 2",
                  mean_change(kArms[2], kDepths.back(), true) / mean_change(kArms[2], kDepths.front(), true));
    return result;
}

} // namespace

const Claim a2{
    "a2",
    "DeepNorm bounds what one step does to the representation, whatever the depth",
    "Wang et al. (DeepNet), 2203.00555, section 4",
    "One step of SGD (learning rate 0.01) of all blocks, width 128, norms without gains, 2, 8 and 32 layers, 3 seeds; "
    "relative change of what the output layer is given. DeepNorm: largest over least at most 1.2. Post-LN: 32 layers "
    "over 2 at least 10.",
    "The criterion is ours. The bound is derived for SGD: a step of Adam's first kind, by the sign of the gradient "
    "(here 1e-4), moves a DeepNorm model more the deeper it is. That is reported, not judged.",
    "At first norms had gains. The derivation has none, and neither the gradient of a gain nor its effect shrinks "
    "with depth as DeepNorm makes those of the matrices: the change then grew by a factor of 4.6 from 2 to 32 layers.",
    {},
    measure};

} // namespace ballast::literature
