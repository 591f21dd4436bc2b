#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

/// y = a * x + b * z, n elements, parallel.
void axpby(real* y, real a, const real* x, real b, const real* z, std::int64_t n);

/// target (+)= a * x, n elements, parallel.
void add_scaled(Grad target, real a, const real* x, std::int64_t n);

/// target (+)= x for matrices of [rows, columns] in memory where a row begins `stride` reals after the last, parallel.
void put_rows(Grad target, std::int64_t target_stride, const real* x, std::int64_t x_stride, std::int64_t rows,
              std::int64_t columns);

/// Column sums: dbias (+)= sum over rows of dy, [rows, width] -> [width], parallel over columns of fixed width. A row
/// begins `stride` reals after the last.
void column_sums(Grad dbias, const real* dy, std::int64_t rows, std::int64_t width, std::int64_t stride);
inline void column_sums(Grad dbias, const real* dy, std::int64_t rows, std::int64_t width) {
    column_sums(dbias, dy, rows, width, width);
}

/// Sum of squares, accumulated in double over fixed chunks that are added in index order. NaN and infinity carry
/// through.
double sum_of_squares(const real* x, std::int64_t n);

/// True when no element is NaN or infinite. Parallel.
bool all_finite(const real* x, std::int64_t n);

} // namespace ballast::inline BALLAST_PRECISION
