#pragma once

#include <cstdint>
#include <limits>

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// A mean square below this may have lost terms to underflow; one above, or not finite, may have overflowed.
inline constexpr real kSmallestMeanSquare = std::numeric_limits<real>::min() * real(1e12);

inline bool in_range(real mean_square) {
    return mean_square > kSmallestMeanSquare && mean_square < std::numeric_limits<real>::infinity();
}

struct Moments {
    double mean;
    double deviation; ///< root of the mean square of x - mean
};

/// Mean (0 unless `centered`) and deviation of n numbers, `stride` apart, whose squares are out of range: in double,
/// scaled by the largest of them. NaN where one of them is NaN or infinite.
Moments scaled_moments(const real* x, std::int64_t n, std::int64_t stride, bool centered);

} // namespace ballast::inline BALLAST_PRECISION
