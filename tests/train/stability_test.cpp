// The detectors, against series whose verdict is known.

#include "ballast/train/stability.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "ballast/base/rng.h"
#include "ballast/train/metrics.h"
#include "catch.h"

using namespace ballast;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// A run whose losses and gradient norms are given.
class History {
public:
    explicit History(StabilityConfig config = {}, double entropy = 0, std::int64_t stall_step = 1000000)
        : rules_(Config{}, entropy) {
        rules_.config = config;
        rules_.stall_step = stall_step;
    }

    Judgement add(double loss, double gradient_norm = 1) {
        StepRecord record;
        record.step = ++step_;
        record.loss = loss;
        record.gradient_norm = gradient_norm;
        const bool finite = std::isfinite(loss) && std::isfinite(gradient_norm);
        Judgement found = judge(rules_, state, record, finite ? "" : "the loss");
        events.insert(events.end(), found.events.begin(), found.events.end());
        return found;
    }

    std::int64_t count(std::string_view kind) const {
        return std::count_if(events.begin(), events.end(), [&](const Event& event) { return event.kind == kind; });
    }

    StabilityState state;
    std::vector<Event> events;

private:
    StabilityRules rules_;
    std::int64_t step_ = 0;
};

/// Losses of a healthy run: a curve that falls, and noise.
double healthy(std::int64_t step, double noise, std::uint64_t seed = 1) {
    return 1.5 + 2.5 * std::exp(-static_cast<double>(step) / 200) +
           noise * RandomStream(seed, "noise").normal(static_cast<std::uint64_t>(step));
}

} // namespace

TEST_CASE("healthy runs have no event", "[stability]") {
    for (const double noise : {0.0, 0.01, 0.1})
        for (std::uint64_t seed = 1; seed <= 5; ++seed) {
            History run({}, 2.8, 300);
            for (std::int64_t step = 1; step <= 2000; ++step)
                run.add(healthy(step, noise, seed), 0.5 + 0.05 * RandomStream(seed, "g").normal(step));
            CAPTURE(noise, seed);
            CHECK(run.events.empty());
            CHECK(verdict_of(run.state) == "stable");
        }
}

TEST_CASE("a spike is found in the step it begins, and widens no threshold", "[stability]") {
    History run;
    for (std::int64_t step = 1; step <= 200; ++step)
        run.add(healthy(step, 0.02));
    const StabilityState before = run.state;
    REQUIRE(run.events.empty());

    CHECK(run.add(9).flags == "loss_spike");
    CHECK(run.add(9).flags == "loss_spike"); // the same spike: no second event
    CHECK(run.state.calm_losses == before.calm_losses);
    REQUIRE(run.events.size() == 1);
    const Event& event = run.events[0];
    CHECK(event.step == 201);
    CHECK(event.value == 9);
    CHECK(event.window == 128);
    CHECK(*event.threshold > *event.median);
    CHECK(*event.threshold < 9);

    CHECK(run.add(healthy(203, 0.02)).flags.empty());
    run.add(9);
    CHECK(run.count("loss_spike") == 2);
    CHECK(run.state.loss_spikes == 3);
    CHECK(verdict_of(run.state) == "spiky");
}

TEST_CASE("spikes are one-sided, of either value, and need 32 values", "[stability]") {
    History run;
    for (int i = 0; i < 31; ++i)
        run.add(2, 1);
    CHECK(run.add(5, 1).flags.empty()); // the 32nd value is not judged
    CHECK(run.add(5, 1).flags == "loss_spike");
    CHECK(run.add(2.09, 1).flags.empty()); // within 5 % of the median, though nothing has varied
    CHECK(run.add(2.11, 1).flags == "loss_spike");
    CHECK(run.add(2, 3.9).flags.empty()); // a gradient norm of less than four times the median
    CHECK(run.add(2, 4.1).flags == "gradient_spike");
    CHECK(run.add(-50, 0).flags.empty());
    CHECK(run.add(5, 5).flags == "loss_spike gradient_spike");

    History only_gradients;
    for (int i = 0; i < 100; ++i)
        only_gradients.add(2, i == 60 ? 9 : 1);
    CHECK(only_gradients.state.gradient_spikes == 1);
    CHECK(verdict_of(only_gradients.state) == "stable");
}

TEST_CASE("what is not finite is an event and never part of a window", "[stability]") {
    const double bad = GENERATE(as<double>(), kNaN, kInfinity, -kInfinity);
    const bool in_loss = GENERATE(true, false);
    CAPTURE(bad, in_loss);
    History run;
    for (std::int64_t step = 1; step <= 100; ++step)
        run.add(healthy(step, 0.02));
    const StabilityState before = run.state;
    const Judgement found = run.add(in_loss ? bad : 2, in_loss ? 1 : bad);
    CHECK(found.flags == "non_finite");
    CHECK(found.policy == Policy::stop);
    CHECK(verdict_of(run.state) == "non_finite");
    CHECK(run.state.calm_losses == before.calm_losses);
    CHECK(run.state.calm_gradient_norms == before.calm_gradient_norms);
    CHECK(run.state.recent_losses == before.recent_losses);
    run.add(bad);
    CHECK(run.count("non_finite") == 1);
    // The detectors see as well as before.
    CHECK(run.add(9).flags == "loss_spike");
}

TEST_CASE("divergence is a lasting rise, not a spike", "[stability]") {
    History spiky;
    for (std::int64_t step = 1; step <= 1000; ++step)
        spiky.add(step % 100 > 80 ? 9 : healthy(step, 0.02));
    CHECK(spiky.count("divergence") == 0);

    SECTION("above the best") {
        History run;
        for (std::int64_t step = 1; step <= 600; ++step)
            run.add(healthy(step, 0.02));
        std::int64_t steps = 0;
        while (run.count("divergence") == 0 && ++steps < 100)
            run.add(3.2); // best 1.6, first 4: half the gap is 1.2
        CHECK(steps >= 25);
        CHECK(steps <= 26);
        CHECK(verdict_of(run.state) == "diverged");
        CHECK(run.add(3.2).policy == Policy::go_on); // a run that goes on although it has diverged is not stopped again
        for (int i = 0; i < 60; ++i)
            run.add(1.7);
        CHECK(verdict_of(run.state) == "spiky"); // it has come back
    }
    SECTION("above the start") {
        History run;
        for (int i = 0; i < 200; ++i)
            run.add(i == 0 ? 4.17 : 4.45);
        CHECK(run.count("divergence") == 1);
        CHECK(run.events[0].step == 50);
    }
    SECTION("not by the noise of a run that learns nothing") {
        History run;
        for (std::int64_t step = 1; step <= 500; ++step)
            run.add(4.17 + 0.05 * RandomStream(3, "n").normal(static_cast<std::uint64_t>(step)));
        CHECK(run.events.empty());
    }
}

TEST_CASE("a run that learns only token frequencies stalls", "[stability]") {
    History run({}, 2.8, 300);
    for (std::int64_t step = 1; step <= 299; ++step)
        run.add(std::max(2.81, 4.2 - 0.05 * static_cast<double>(step)));
    CHECK(run.events.empty());
    CHECK(run.add(2.81).flags == "stall");
    CHECK(verdict_of(run.state) == "stalled");
    for (int i = 0; i < 100; ++i)
        run.add(2.5);
    CHECK(verdict_of(run.state) == "stable"); // late, but it has learned
    CHECK(run.count("stall") == 1);
}

TEST_CASE("the strictest policy of a step wins, and stops once", "[stability]") {
    StabilityConfig config;
    config.on_spike = Policy::rewind;
    config.on_divergence = Policy::stop;
    config.divergence_window = 1;
    History run(config);
    for (int i = 0; i < 40; ++i)
        run.add(2);
    const Judgement both = run.add(9);
    CHECK(both.flags == "loss_spike divergence");
    CHECK(both.policy == Policy::stop);
    CHECK(run.add(9).policy == Policy::go_on);

    config.on_spike = Policy::skip;
    config.divergence_window = 50;
    History skipping(config);
    for (int i = 0; i < 40; ++i)
        skipping.add(2);
    CHECK(skipping.add(9).policy == Policy::skip);
    CHECK(skipping.add(9).policy == Policy::skip); // each of its steps
}

TEST_CASE("a window longer than the run judges what there is", "[stability]") {
    StabilityConfig config;
    config.spike_window = 4096;
    config.divergence_window = 4096;
    History run(config);
    for (int i = 0; i < 100; ++i)
        run.add(2);
    CHECK(run.add(9).flags == "loss_spike");
    CHECK(run.count("divergence") == 0);
}

namespace {
double spike_score(const std::vector<double>& values) {
    SpikeScore score;
    for (const double value : values)
        score.add(value);
    return score.score();
}
} // namespace

TEST_CASE("the published spike score, and where it is blind", "[stability]") {
    std::vector<double> values;
    for (std::uint64_t i = 0; i < 1000; ++i)
        values.push_back(2 + 0.1 * RandomStream(1, "score").normal(i));
    CHECK(spike_score(values) == 0);
    values[500] = 9;
    CHECK(spike_score(values) == 1.0 / 1000);
    values[500] = -5; // on either side
    CHECK(spike_score(values) == 1.0 / 1000);
    values[700] = kNaN;
    CHECK(spike_score(values) == 2.0 / 1000);
    std::vector<double> start(values.begin(), values.begin() + 49);
    start.back() = 1e9; // in its own window of 49, no value is further away than sqrt(48)
    CHECK(spike_score(start) == 0);
    CHECK(spike_score({}) == 0);
    CHECK(spike_score(std::vector<double>(100, 3.5)) == 0);

    // Of two levels in a window of 1000, the new one is 7 deviations away while it has at most 20 values, for
    // sqrt((1000 - k) / k) >= 7. The width of both hides values[500]; a window later it is seen.
    std::vector<double> longer(1500, 1e9);
    longer.insert(longer.end(), values.begin(), values.end());
    CHECK(spike_score(longer) == (20.0 + 1) / 2500);
    longer.insert(longer.end(), values.begin(), values.end());
    CHECK(spike_score(longer) == (20.0 + 1 + 2) / 3500);
}

TEST_CASE("a short number has four digits of any size", "[stability]") {
    for (const auto& [value, text] : std::vector<std::pair<double, std::string>>{{1.3600000001e20, "1.36e+20"},
                                                                                 {3.0209e21, "3.021e+21"},
                                                                                 {-39104.2, "-39100"},
                                                                                 {2.0326, "2.033"},
                                                                                 {0.0703, "0.0703"},
                                                                                 {4.13749e-33, "4.137e-33"},
                                                                                 {0, "0"},
                                                                                 {HUGE_VAL, "inf"}})
        CHECK(short_number(value) == text);
}
