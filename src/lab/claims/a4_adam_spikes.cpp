#include <algorithm>
#include <array>

#include "ballast/train/optimizer.h"
#include "claims.h"

namespace ballast::literature {

namespace {

constexpr std::int64_t kSteps = 20000;
constexpr double kLr = 0.01;

struct Trajectory {
    double highest_late = 0; ///< loss, over the second half
    ClaimSeries losses;      ///< the highest of every hundred steps
};

/// Adam on f(x) = x^2 / 2 from x = 1.
Trajectory descend(double beta2, double eps) {
    ParamTable table;
    const Parameter x = table.add("x", {1}, ParamInit::constant(1), DecayGroup::no_decay);
    table.allocate(1);
    table.allocate_gradients();
    OptimizerConfig config;
    config.lr = kLr;
    config.betas = {0.9, beta2};
    config.eps = eps;
    config.weight_decay = 0;
    Optimizer optimizer(config, table);
    float* const value = table.values() + x.param().offset;
    float* const gradient = table.gradients() + x.param().offset;
    constexpr std::int64_t kWindow = 100;
    Trajectory trajectory;
    double highest = 0;
    for (std::int64_t step = 1; step <= kSteps; ++step) {
        *gradient = *value;
        optimizer.step(step, 1, 1);
        const double loss = 0.5 * static_cast<double>(*value) * static_cast<double>(*value);
        if (step > kSteps / 2) trajectory.highest_late = std::max(trajectory.highest_late, loss);
        highest = std::max(highest, loss);
        if (step % kWindow != 0) continue;
        trajectory.losses.points.emplace_back(static_cast<double>(step), highest);
        highest = 0;
    }
    return trajectory;
}

ClaimResult measure(const ClaimRuns&) {
    constexpr auto kBetas = std::to_array<double>({0.9, 0.95, 0.99, 0.999});
    ClaimResult result;
    result.chart = {"Adam on x^2 / 2", "step", "highest loss of 100 steps", false, true, {}};
    std::vector<double> spikes;
    const auto add = [&](const std::string& name, double beta2, double eps) {
        Trajectory trajectory = descend(beta2, eps);
        trajectory.losses.name = name;
        result.chart.series.push_back(std::move(trajectory.losses));
        result.report("highest loss of the second half, " + name, trajectory.highest_late);
        return trajectory.highest_late;
    };
    for (const double beta2 : kBetas) {
        std::string name = "beta2 0.9";
        if (beta2 == 0.95) name = "beta2 0.95";
        if (beta2 == 0.99) name = "beta2 0.99";
        if (beta2 == 0.999) name = "beta2 0.999";
        spikes.push_back(add(name, beta2, 1e-8));
    }
    const double damped = add("beta2 0.999, eps 1e-3", 0.999, 1e-3);
    result.require("spikes grow with beta2", std::is_sorted(spikes.begin(), spikes.end()));
    result.require_at_least("spike of beta2 0.999 over that of 0.9", spikes.back() / spikes.front(), 100);
    result.require_at_most("control: spike with eps 1e-3 over that with 1e-8, beta2 0.999", damped / spikes.back(), 1e-3);
    return result;
}

} // namespace

const Claim a4{
    "a4",
    "Adam spikes where the curvature is constant, the more the larger beta2 is",
    "Bai et al., 2506.04805",
    "Adam (learning rate 0.01, beta1 0.9, eps 1e-8) on x^2 / 2 from 1, 20,000 steps. The highest loss of the second half "
    "grows with beta2 over 0.9, 0.95, 0.99 and 0.999, the last at least 100 times the first. Control: with eps 1e-3 it is "
    "at most 1/1000 of that.",
    "The criterion is ours. One parameter, no noise: this shows the mechanism, the mean square that decays until steps "
    "are too long for the curvature, and not how often it is what happens in a Transformer.",
    "",
    {},
    measure};

} // namespace ballast::literature
