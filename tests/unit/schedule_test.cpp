#include "ballast/train/schedule.h"

#include <cmath>
#include <vector>

#include "catch.h"

using namespace ballast;

namespace {

constexpr double kLr = 0.01;
constexpr std::int64_t kSteps = 1000;

ScheduleConfig schedule(ScheduleKind kind, std::int64_t warmup = 100, double final_lr = 0.001) {
    ScheduleConfig config;
    config.kind = kind;
    config.warmup = warmup;
    config.final_lr = final_lr;
    config.decay_fraction = 0.2;
    return config;
}

double factor(const ScheduleConfig& config, std::int64_t step, std::int64_t steps = kSteps) {
    return schedule_factor(config, kLr, steps, step);
}

Approx about(double value) { return Approx(value).epsilon(1e-12).margin(1e-15); }

} // namespace

TEST_CASE("warm-up is a straight line to 1 in every schedule", "[train]") {
    for (const auto& kind : values_of(ScheduleKind{})) {
        INFO(kind.name);
        const ScheduleConfig config = schedule(kind.value);
        CHECK(factor(config, 1) == about(0.01));
        CHECK(factor(config, 50) == about(0.5));
        CHECK(factor(config, 99) == about(0.99));
        CHECK(factor(config, 100) == about(1));
        // Without one, the first step is the highest.
        const ScheduleConfig cold = schedule(kind.value, 0);
        for (std::int64_t step = 1; step < kSteps; ++step)
            CHECK(factor(cold, step + 1) <= factor(cold, step));
        CHECK(factor(cold, 1) == Approx(1).epsilon(1e-2));
    }
}

TEST_CASE("a schedule follows the length of the run where a longer one has other rates", "[train]") {
    for (const auto& kind : values_of(ScheduleKind{})) {
        INFO(kind.name);
        const ScheduleConfig config = schedule(kind.value);
        const bool is_other = schedule_factor(config, kLr, 2 * kSteps, kSteps) != factor(config, kSteps);
        CHECK(follows_length(config) == is_other);
    }
}

TEST_CASE("every schedule at its boundaries", "[train]") {
    const ScheduleConfig constant = schedule(ScheduleKind::constant);
    CHECK(factor(constant, 101) == 1);
    CHECK(factor(constant, 1000) == 1);

    const ScheduleConfig linear = schedule(ScheduleKind::linear);
    CHECK(factor(linear, 101) == about(1 - 0.9 / 900));
    CHECK(factor(linear, 550) == about(0.55));
    CHECK(factor(linear, 999) == about(0.1 + 0.9 / 900));
    CHECK(factor(linear, 1000) == about(0.1));

    const ScheduleConfig cosine = schedule(ScheduleKind::cosine);
    CHECK(factor(cosine, 325) == about(0.1 + 0.9 * (1 + std::sqrt(0.5)) / 2));
    CHECK(factor(cosine, 550) == about(0.55));
    CHECK(factor(cosine, 775) == about(0.1 + 0.9 * (1 - std::sqrt(0.5)) / 2));
    CHECK(factor(cosine, 1000) == about(0.1));

    const ScheduleConfig wsd = schedule(ScheduleKind::wsd);
    CHECK(factor(wsd, 101) == 1);
    CHECK(factor(wsd, 800) == 1);
    CHECK(factor(wsd, 801) == about(1 - 0.9 / 200));
    CHECK(factor(wsd, 900) == about(0.55));
    CHECK(factor(wsd, 1000) == about(0.1));

    const ScheduleConfig inverse = schedule(ScheduleKind::inverse_sqrt);
    CHECK(factor(inverse, 400) == about(0.5));
    CHECK(factor(inverse, 1000) == about(std::sqrt(0.1)));
    CHECK(factor(schedule(ScheduleKind::inverse_sqrt, 0), 100) == about(0.1));
}

TEST_CASE("steps outside the run keep the nearest step's factor", "[train]") {
    for (const auto& kind : values_of(ScheduleKind{})) {
        INFO(kind.name);
        const ScheduleConfig config = schedule(kind.value);
        CHECK(factor(config, 1001) == factor(config, 1000));
        CHECK(factor(config, 1 << 30) == factor(config, 1000));
        CHECK(factor(config, 0) == factor(config, 1));
    }
}

TEST_CASE("odd schedules stay sensible", "[train]") {
    for (const auto& kind : values_of(ScheduleKind{})) {
        INFO(kind.name);
        // The run ends within its warm-up, or with it.
        CHECK(factor(schedule(kind.value, 50), 20, 20) == about(0.4));
        CHECK(factor(schedule(kind.value, 20), 20, 20) == about(1));
        // One step; none; no learning rate at all.
        for (const std::int64_t steps : {0, 1})
            CHECK(std::isfinite(factor(schedule(kind.value, 0), 1, steps)));
        CHECK(std::isfinite(schedule_factor(schedule(kind.value), 0, kSteps, 500)));
    }
    // The final rate may be above the first.
    CHECK(factor(schedule(ScheduleKind::linear, 0, 0.02), 1000) == about(2));
    // The decay may be all of the run, then it starts after the warm-up; or none of it.
    ScheduleConfig wsd = schedule(ScheduleKind::wsd);
    wsd.decay_fraction = 1;
    CHECK(factor(wsd, 100) == 1);
    CHECK(factor(wsd, 550) == about(0.55));
    wsd.decay_fraction = 0;
    CHECK(factor(wsd, 999) == 1);
}
