#pragma once

#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Normalization of every column over all rows (Ioffe & Szegedy, 1502.03167). x, y, dx, dy are [rows, width]; gain,
// bias and their gradients [width].
namespace ballast::inline BALLAST_PRECISION {

/// Statistics of the columns, [kBatchNormStats, width]: mean; biased variance; what the rounding of the mean left out
/// (so that x - mean keeps its digits when |mean| is far above the deviation); 1/sqrt(variance + eps).
inline constexpr std::int64_t kBatchNormStats = 4;

/// Of the rows of x: deviations from the mean of a block of rows, the blocks merged in double and in index order.
void batchnorm_statistics(real* stats, const real* x, std::int64_t rows, std::int64_t width, real eps, Arena& scratch);
/// Of given (running) means and variances [width].
void batchnorm_given_statistics(real* stats, const real* mean, const real* variance, std::int64_t width, real eps);

/// y = gain * (x - mean) / sqrt(variance + eps) + bias. gain and bias may be null (1 and 0).
void batchnorm_forward(real* y, const real* x, const real* stats, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width);
/// `constant_statistics`: they do not depend on x (given ones).
void batchnorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, bool constant_statistics, std::int64_t rows, std::int64_t width,
                        Arena& scratch);

} // namespace ballast::inline BALLAST_PRECISION
