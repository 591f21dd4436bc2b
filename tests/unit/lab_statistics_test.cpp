// Means, spreads and Student's t.

#include "ballast/lab/statistics.h"

#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

TEST_CASE("quantiles of t are those of the tables") {
    // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2, to three decimals.
    const auto [probability, freedom, expected] = GENERATE(table<double, double, double>({
        {0.90, 1, 3.078},   {0.95, 1, 6.314},   {0.975, 1, 12.706}, {0.99, 1, 31.821},  {0.995, 1, 63.657},
        {0.90, 2, 1.886},   {0.95, 2, 2.920},   {0.975, 2, 4.303},  {0.99, 2, 6.965},   {0.995, 2, 9.925},
        {0.975, 3, 3.182},  {0.975, 4, 2.776},  {0.975, 5, 2.571},  {0.995, 5, 4.032},  {0.975, 9, 2.262},
        {0.975, 10, 2.228}, {0.995, 10, 3.169}, {0.975, 30, 2.042}, {0.995, 30, 2.750}, {0.975, 100, 1.984},
    }));
    CAPTURE(probability, freedom);
    CHECK(std::abs(student_quantile(probability, freedom) - expected) <= 0.0005);
}

TEST_CASE("with one, two and infinitely many degrees of freedom t has closed forms") {
    const double pi = std::acos(-1.0);
    for (const double p : {1e-6, 0.001, 0.025, 0.2, 0.4999, 0.5, 0.7, 0.975, 0.9999}) {
        CAPTURE(p);
        const double cauchy = std::tan(pi * (p - 0.5));
        CHECK(std::abs(student_quantile(p, 1) - cauchy) <= 1e-9 * (1 + std::abs(cauchy)));
        const double two = (2 * p - 1) / std::sqrt(2 * p * (1 - p));
        CHECK(std::abs(student_quantile(p, 2) - two) <= 1e-9 * (1 + std::abs(two)));
        const double normal = std::erfc(-student_quantile(p, 1e6) / std::sqrt(2.0)) / 2;
        CHECK(std::abs(normal - p) <= 1e-3 * p);
    }
}

TEST_CASE("the quantile turns the distribution around, and is symmetric") {
    for (const double freedom : {1.0, 1.5, 2.0, 3.0, 7.0, 29.0, 240.0})
        for (const double p : {0.0001, 0.01, 0.3, 0.6, 0.95, 0.999}) {
            CAPTURE(freedom, p);
            const double t = student_quantile(p, freedom);
            CHECK(std::abs(student_cdf(t, freedom) - p) <= 1e-12);
            CHECK(std::abs(student_quantile(1 - p, freedom) + t) <= 1e-9 * (1 + std::abs(t)));
        }
}

TEST_CASE("a sample has a mean, and from two values on a spread") {
    const Sample none = sample_of({});
    CHECK(none.count == 0);
    CHECK(std::isnan(none.mean));
    const Sample one = sample_of(std::array{3.0});
    CHECK(one.mean == 3);
    CHECK_FALSE(one.deviation);
    CHECK_FALSE(one.standard_error());
    CHECK_FALSE(confidence_interval(one));

    const Sample sample = sample_of(std::array{2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0});
    CHECK(sample.count == 8);
    CHECK(sample.mean == 5);
    CHECK(std::abs(*sample.deviation - std::sqrt(32.0 / 7)) < 1e-15);
    CHECK(std::abs(*sample.standard_error() - std::sqrt(32.0 / 7 / 8)) < 1e-15);
    // A large common part leaves the spread what it is.
    CHECK(std::abs(*sample_of(std::array{1e9 + 1, 1e9 + 2, 1e9 + 3}).deviation - 1) < 1e-6);
}

TEST_CASE("the larger and the lower of two numbers do not lose a NaN") {
    const double nan = std::nan("");
    CHECK(larger(1, 2) == 2);
    CHECK(larger(2, 1) == 2);
    CHECK(lower(1, 2) == 1);
    CHECK(lower(2, 1) == 1);
    for (const double value : {-1.0, 0.0, 1.0, nan}) {
        CHECK(std::isnan(larger(value, nan)));
        CHECK(std::isnan(larger(nan, value)));
        CHECK(std::isnan(lower(value, nan)));
        CHECK(std::isnan(lower(nan, value)));
    }
}

TEST_CASE("a confidence interval of three values") {
    const Sample sample = sample_of(std::array{1.0, 2.0, 3.0});
    const auto interval = confidence_interval(sample);
    REQUIRE(interval);
    CHECK(std::abs(interval->high - (2 + 4.302653 / std::sqrt(3.0))) < 1e-6);
    CHECK(std::abs(interval->low + interval->high - 4) < 1e-12);
    CHECK(confidence_interval(sample, 0.99)->high > interval->high);
}

TEST_CASE("95 of 100 intervals hold the mean that the values were drawn around") {
    const RandomStream random(7, "statistics");
    constexpr int kTrials = 4000, kValues = 3;
    int held = 0;
    std::uint64_t drawn = 0;
    for (int trial = 0; trial < kTrials; ++trial) {
        std::vector<double> values;
        for (int i = 0; i < kValues; ++i)
            values.push_back(10 + 2 * random.normal(drawn++));
        const auto interval = confidence_interval(sample_of(values));
        if (interval->low <= 10 && 10 <= interval->high) ++held;
    }
    CHECK(std::abs(held - 0.95 * kTrials) < 4 * std::sqrt(0.05 * 0.95 * kTrials));
}
