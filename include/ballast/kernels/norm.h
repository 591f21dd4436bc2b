#pragma once

#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Row-wise normalization. x, y, dx, dy are [rows, width]; gain, bias and their gradients [width].
namespace ballast::inline BALLAST_PRECISION {

/// Reals saved per row by layernorm_forward: the mean as an unevaluated sum of two reals (so that x - mean keeps its
/// digits when |mean| is far above the deviation), and 1/sqrt(variance + eps).
inline constexpr std::int64_t kLayerNormStats = 3;

/// y = gain * (x - mean) / sqrt(variance + eps) + bias, the variance biased (Ba et al., 1607.06450, section 3).
/// gain and bias may be null (1 and 0). stats is [rows, kLayerNormStats].
void layernorm_forward(real* y, real* stats, const real* x, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width, real eps);

/// Gradients of layernorm_forward. Sums over rows go through partial buffers, one per fixed-size group of rows, so
/// their bits do not depend on the thread count. `scratch` holds these buffers during the call.
void layernorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, std::int64_t rows, std::int64_t width, Arena& scratch);

/// y = gain * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich, 1910.07467, with eps inside the root). gain may be null.
/// rstd is [rows]: 1/sqrt(mean(x^2) + eps).
void rmsnorm_forward(real* y, real* rstd, const real* x, const real* gain, std::int64_t rows, std::int64_t width,
                     real eps);
void rmsnorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, const real* gain, const real* rstd,
                      std::int64_t rows, std::int64_t width, Arena& scratch);

} // namespace ballast::inline BALLAST_PRECISION
