#pragma once

#include <cstdint>
#include <optional>
#include <span>

// Statistics of few runs.

namespace ballast {

/// The larger and the lower one of two numbers. A NaN is not lost, as std::max and std::min would lose it: a figure
/// that is missing decides nothing.
double larger(double a, double b);
double lower(double a, double b);

/// Mean and spread of a sample.
struct Sample {
    std::int64_t count = 0;
    double mean = 0;                              ///< NaN when there is nothing
    std::optional<double> deviation;              ///< standard deviation, by n - 1; from two values on
    std::optional<double> standard_error() const; ///< of the mean
};

/// `values` are finite.
Sample sample_of(std::span<const double> values);

/// Share of Student's t distribution with `freedom` degrees of freedom (above 0) that is below `t`.
double student_cdf(double t, double freedom);

/// The t that the share `probability`, between 0 and 1, of that distribution is below.
double student_quantile(double probability, double freedom);

struct Interval {
    double low = 0;
    double high = 0;
};

/// Confidence interval of a mean whose values are normally distributed around it: mean ± t · standard error, t the
/// quantile of Student's distribution with n - 1 degrees of freedom. Nothing from a single value.
std::optional<Interval> confidence_interval(const Sample& sample, double confidence = 0.95);

} // namespace ballast
