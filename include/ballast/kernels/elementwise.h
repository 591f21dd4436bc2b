#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

/// y = a * x + b * z, n elements, parallel.
void axpby(real* y, real a, const real* x, real b, const real* z, std::int64_t n);

/// target (+)= a * x, n elements, parallel.
void add_scaled(Grad target, real a, const real* x, std::int64_t n);

/// Column sums: dbias (+)= sum over rows of dy, [rows, width] -> [width], parallel over columns of fixed width.
void column_sums(Grad dbias, const real* dy, std::int64_t rows, std::int64_t width);

/// Sum of squares, accumulated in double over fixed chunks that are added in index order. NaN and infinity carry
/// through.
double sum_of_squares(const real* x, std::int64_t n);

/// True when no element is NaN or infinite. Parallel.
bool all_finite(const real* x, std::int64_t n);

} // namespace ballast::inline BALLAST_PRECISION
