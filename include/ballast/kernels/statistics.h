#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/attention.h"

// What probes measure. Sums are accumulated in double over pieces that the shape decides, and added in order. NaN and
// infinity carry through.
namespace ballast::inline BALLAST_PRECISION {

struct Moments {
    double mean = 0;
    double rms = 0;
    double kurtosis = 0; ///< fourth central moment over the squared variance: 3 for a normal distribution
};

/// Moments of n numbers. Parallel.
Moments moments(const real* x, std::int64_t n);

/// Number of the first `columns` columns of x [rows, stride] in which no element is above 0. Parallel.
std::int64_t columns_never_positive(const real* x, std::int64_t rows, std::int64_t columns, std::int64_t stride);

/// Mean over the rows of two matrices [rows, width] of the angle between a row of one and that of the other, in units
/// of pi (Gromov et al., 2403.17887, section 3.1). Parallel.
double mean_angle(const real* a, const real* b, std::int64_t rows, std::int64_t width);

/// Of the first `sequences` sequences of a call of attention (kernels/attention.h), for each of its heads: the largest
/// logit that a query may see, and the mean over queries of the entropy of the attention in nats. Parallel over heads.
void attention_statistics(double* max_logits, double* entropies, const real* qkv, const AttentionShape& shape,
                          std::int64_t sequences);

} // namespace ballast::inline BALLAST_PRECISION
