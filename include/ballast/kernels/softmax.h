#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

/// One row, on one thread, in place: row[i] = exp(row[i] - max). Returns the sum of the results; `max` receives the
/// row's maximum. A NaN anywhere in the row makes the sum NaN.
real exp_row(real* row, std::int64_t n, real& max);

/// One row, on one thread, in place: row[i] = exp(row[i] - shift).
void exp_shifted_row(real* row, std::int64_t n, real shift);

/// y[i] = scale * x[i], on one thread. y may be x.
void scale_row(real* y, const real* x, real scale, std::int64_t n);

/// Sum of a[i] * b[i], on one thread.
real dot_row(const real* a, const real* b, std::int64_t n);

/// Row of the softmax's Jacobian product: ds[i] = p[i] * (dp[i] - delta) * scale, on one thread. ds may be dp.
void softmax_backward_row(real* ds, const real* p, const real* dp, real delta, real scale, std::int64_t n);

/// Target value that marks a row without a target.
inline constexpr std::int32_t kIgnoredTarget = -1;

/// Cross-entropy of softmax(logits) against integer targets, without storing probabilities.
/// logits [rows, classes]; targets [rows], each in [0, classes) or kIgnoredTarget.
/// log_z[rows] receives log sum exp of every row (the ignored ones too); nll[rows] log_z - logit[target], 0 where
/// ignored; max_logit[rows] the largest |logit| of the row. A row with a NaN or +inf gets NaN, not a crash.
void cross_entropy_forward(real* log_z, real* nll, real* max_logit, const real* logits, const std::int32_t* targets,
                           std::int64_t rows, std::int64_t classes);

/// d/dlogits of scale * sum over rows with a target of (nll + z_loss * log_z^2):
/// scale * (p * (1 + 2 z_loss log_z) - onehot); 0 in rows without a target.
/// dlogits.data may be logits when dlogits.add is false.
void cross_entropy_backward(Grad dlogits, const real* logits, const real* log_z, const std::int32_t* targets,
                            std::int64_t rows, std::int64_t classes, real scale, real z_loss);

} // namespace ballast::inline BALLAST_PRECISION
