#include "ballast/lab/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ballast {

namespace {

/// The continued fraction of the incomplete beta function by Lentz's method; it converges fast for x < (a + 1) / (a + b
/// + 2). Abramowitz and Stegun, 26.5.8.
double beta_fraction(double x, double a, double b) {
    constexpr double kTiny = 1e-300, kPrecision = 1e-16;
    constexpr int kMostTerms = 10000;
    const auto off_zero = [](double value) { return std::abs(value) < kTiny ? kTiny : value; };
    double c = 1, d = 1 / off_zero(1 - (a + b) * x / (a + 1)), result = d;
    for (int m = 1; m < kMostTerms; ++m) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change = 1;
        for (const double term : {even, odd}) {
            d = 1 / off_zero(1 + term * d);
            c = off_zero(1 + term / c);
            change = c * d;
            result *= change;
        }
        if (std::abs(change - 1) < kPrecision) break;
    }
    return result;
}

/// The regularized incomplete beta function I_x(a, b).
double incomplete_beta(double x, double a, double b) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const double front =
        std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(x, a, b) / a;
    return 1 - front * beta_fraction(1 - x, b, a) / b;
}

} // namespace

double larger(double a, double b) { return std::isnan(a) || a > b ? a : b; }

double lower(double a, double b) { return std::isnan(a) || a < b ? a : b; }

std::optional<double> Sample::standard_error() const {
    if (!deviation) return {};
    return *deviation / std::sqrt(static_cast<double>(count));
}

Sample sample_of(std::span<const double> values) {
    Sample sample;
    sample.count = static_cast<std::int64_t>(values.size());
    if (values.empty()) {
        sample.mean = std::numeric_limits<double>::quiet_NaN();
        return sample;
    }
    double sum = 0, squares = 0;
    for (const double value : values)
        sum += value;
    sample.mean = sum / static_cast<double>(sample.count);
    for (const double value : values)
        squares += (value - sample.mean) * (value - sample.mean);
    if (sample.count > 1) sample.deviation = std::sqrt(squares / static_cast<double>(sample.count - 1));
    return sample;
}

double student_cdf(double t, double freedom) {
    const double tail = incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) / 2;
    return t > 0 ? 1 - tail : tail;
}

double student_quantile(double probability, double freedom) {
    if (probability == 0.5) return 0;
    // The lower half, where a tail does not lose its digits in 1 - tail.
    const double tail = std::min(probability, 1 - probability);
    double low = -1, high = 0;
    while (student_cdf(low, freedom) > tail)
        low *= 2;
    while (true) {
        const double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) break;
        (student_cdf(middle, freedom) < tail ? low : high) = middle;
    }
    return probability < 0.5 ? high : -high;
}

std::optional<Interval> confidence_interval(const Sample& sample, double confidence) {
    const std::optional<double> error = sample.standard_error();
    if (!error) return {};
    const double reach = student_quantile((1 + confidence) / 2, static_cast<double>(sample.count - 1)) * *error;
    return Interval{sample.mean - reach, sample.mean + reach};
}

} // namespace ballast
