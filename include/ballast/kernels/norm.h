#pragma once

#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Row-wise normalization. x, y, dx, dy are [rows, width]; gain, bias and their gradients [width].
//
// What is finite in mathematics and in range is finite here, as long as no x - mean leaves the range of `real`:
// elements of up to half the largest number.
//
// Backward: sums over rows go through partial buffers, one per fixed-size group of rows, so their bits do not depend on
// the thread count. `scratch` holds these buffers during the call.
namespace ballast::inline BALLAST_PRECISION {

/// Reals saved per row by layernorm_forward: the mean as an unevaluated sum of two reals (so that x - mean keeps its
/// digits when |mean| is far above the deviation), and 1/sqrt(variance + eps).
inline constexpr std::int64_t kLayerNormStats = 3;

/// y = gain * (x - mean) / sqrt(variance + eps) + bias, the variance biased (Ba et al., 1607.06450, section 3).
/// gain and bias may be null (1 and 0). stats is [rows, kLayerNormStats].
void layernorm_forward(real* y, real* stats, const real* x, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width, real eps);
void layernorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, std::int64_t rows, std::int64_t width, Arena& scratch);

struct RmsNormOptions {
    bool unit_offset = false; ///< the factor is 1 + gain (Gemma); without a gain it is 1 in any case
    double partial = 1;       ///< the mean square is that of the first ceil(partial * width) features (pRMSNorm)
};

/// ceil(partial * width), from 1 to width; a product that rounding has put just above an integer counts as that.
std::int64_t rms_features(double partial, std::int64_t width);

/// y = gain * x / sqrt(mean(x^2) + eps) (Zhang & Sennrich, 1910.07467, with eps inside the root; section 4 has the
/// partial form). gain may be null. rstd is [rows]: 1/sqrt(mean(x^2) + eps).
void rmsnorm_forward(real* y, real* rstd, const real* x, const real* gain, std::int64_t rows, std::int64_t width,
                     real eps, const RmsNormOptions& options = {});
void rmsnorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, const real* gain, const real* rstd,
                      std::int64_t rows, std::int64_t width, Arena& scratch, const RmsNormOptions& options = {});

/// y = gain * x / max(|x|_2, eps), gain a scalar (Nguyen & Salazar, 1910.05895, section 2.2). rstd is [rows]:
/// sqrt(width) / max(|x|_2, eps), a number of ordinary size where that of x is.
void scalenorm_forward(real* y, real* rstd, const real* x, real gain, std::int64_t rows, std::int64_t width, real eps);
/// dgain is a scalar. Where |x|_2 is at most eps, y is linear in x.
void scalenorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, real gain, const real* rstd,
                        std::int64_t rows, std::int64_t width, real eps, Arena& scratch);

} // namespace ballast::inline BALLAST_PRECISION
