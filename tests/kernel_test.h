#pragma once

// What the tests of the vector kernels share. They are compiled for both precisions of `real`; tolerances are in
// units of kEpsilon times the size of the terms that were added or multiplied.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <hwy/targets.h>

#include "ballast/base/parallel.h"
#include "ballast/base/real.h"
#include "ballast/base/rng.h"
#include "catch.h"

namespace kernel_test {

using ballast::real;
using Reals = std::vector<real>;
using Doubles = std::vector<double>;

/// Rounding unit of the results. In the double build the references round, too, and sum in another order: 32 units.
inline constexpr double kEpsilon =
    sizeof(real) == 4 ? std::numeric_limits<float>::epsilon() : 32 * std::numeric_limits<double>::epsilon();
inline constexpr real kNaN = std::numeric_limits<real>::quiet_NaN();
inline constexpr real kInfinity = std::numeric_limits<real>::infinity();
/// Sizes whose squares leave the range of `real`.
inline constexpr real kHuge = sizeof(real) == 4 ? real(1e30) : real(1e200);
inline constexpr real kTiny = sizeof(real) == 4 ? real(1e-30) : real(1e-200);

inline std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

/// n normal numbers, exactly: what a kernel reads beyond them is out of bounds.
inline Reals random_reals(std::int64_t n, std::uint64_t seed, double deviation = 1, double mean = 0) {
    const ballast::RandomStream stream(seed, "kernel tests");
    Reals values(index(n));
    for (std::int64_t i = 0; i < n; ++i)
        values[index(i)] = static_cast<real>(mean + deviation * stream.normal(static_cast<std::uint64_t>(i)));
    return values;
}

inline Doubles to_doubles(const Reals& values) { return Doubles(values.begin(), values.end()); }

/// Largest |actual - expected| / scale, in units of kEpsilon; infinite where one of them is NaN and the other not.
inline double worst_error(const Reals& actual, const Doubles& expected, const Doubles& scale) {
    REQUIRE(actual.size() == expected.size());
    REQUIRE(scale.size() == expected.size());
    double worst = 0;
    for (std::size_t i = 0; i < actual.size(); ++i) {
        if (std::isnan(actual[i]) && std::isnan(expected[i])) continue;
        if (actual[i] == expected[i]) continue;
        const double error = std::abs(actual[i] - expected[i]) / (scale[i] * kEpsilon);
        worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
    }
    return worst;
}

/// The same with scale 1 + |expected|.
inline double worst_error(const Reals& actual, const Doubles& expected) {
    Doubles scale;
    for (const double value : expected)
        scale.push_back(1 + (std::isfinite(value) ? std::abs(value) : 0));
    return worst_error(actual, expected, scale);
}

inline bool same_bits(const Reals& a, const Reals& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(real)) == 0);
}

/// The bits of doubles, for same_bits.
inline Reals bits_of(const Doubles& values) {
    Reals bits(values.size() * sizeof(double) / sizeof(real));
    std::memcpy(bits.data(), values.data(), values.size() * sizeof(double));
    return bits;
}

inline bool all_nan(const real* values, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i)
        if (!std::isnan(values[i])) return false;
    return true;
}

/// Central difference of f at x, with a relative error of about 1e-10 where f is as large as its derivatives.
template <class Function>
double slope(Function&& f, double x) {
    const double step = 1e-5;
    return (f(x + step) - f(x - step)) / (2 * step);
}

/// Runs body once for every instruction set of this machine that the kernels may be dispatched to. (The ones left out
/// are not compiled: CMakeLists.txt.)
template <class Body>
void on_every_target(Body&& body) {
    struct Restore {
        ~Restore() { hwy::SetSupportedTargetsForTest(0); }
    } restore;
    hwy::SetSupportedTargetsForTest(0);
    const std::int64_t targets = hwy::SupportedTargets() & ~(HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL);
    for (std::int64_t rest = targets; rest != 0; rest &= rest - 1) {
        const std::int64_t target = rest & -rest;
        hwy::SetSupportedTargetsForTest(target);
        INFO("Highway target " << hwy::TargetName(target));
        body();
    }
}

/// result() must return the same bits, a list of arrays, at every thread count.
template <class Result>
void check_same_bits_at_any_thread_count(Result&& result) {
    struct Restore {
        ~Restore() { ballast::set_threads(ballast::available_processors()); }
    } restore;
    ballast::set_threads(1);
    const std::vector<Reals> expected = result();
    for (const int threads : {2, 3, 8}) {
        INFO(threads << " threads");
        ballast::set_threads(threads);
        const std::vector<Reals> actual = result();
        REQUIRE(actual.size() == expected.size());
        for (std::size_t i = 0; i < actual.size(); ++i)
            CHECK(same_bits(actual[i], expected[i]));
    }
}

} // namespace kernel_test
