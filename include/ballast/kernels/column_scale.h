#pragma once

#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Learned factors of the columns of a matrix [rows, width]: one for all (ReZero, SkipInit), one for each column
// (LayerScale) or one for each group of adjacent columns (a head's). `scale` is [factors], `factors` divides width.
namespace ballast::inline BALLAST_PRECISION {

/// y = a * x + b * scale * branch. x may be null (0).
void column_scale_forward(real* y, real a, const real* x, real b, const real* branch, const real* scale,
                          std::int64_t factors, std::int64_t rows, std::int64_t width, Arena& scratch);

/// dbranch (+)= b * scale * dy; dscale (+)= b * sum of branch * dy over the rows and over the columns of a factor.
void column_scale_backward(Grad dbranch, Grad dscale, const real* dy, real b, const real* branch, const real* scale,
                           std::int64_t factors, std::int64_t rows, std::int64_t width, Arena& scratch);

} // namespace ballast::inline BALLAST_PRECISION
