#include "moments.h"

#include <algorithm>
#include <cmath>

namespace ballast::inline BALLAST_PRECISION {

Moments scaled_moments(const real* x, std::int64_t n, std::int64_t stride, bool centered) {
    double scale = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const auto value = static_cast<double>(x[i * stride]);
        if (!std::isfinite(value)) return {std::nan(""), std::nan("")};
        scale = std::max(scale, std::abs(value));
    }
    if (scale == 0) return {0.0, 0.0};
    double mean = 0;
    // The second round adds what the rounding of the first left out; it makes the mean of equal elements exact.
    for (int round = 0; centered && round < 2; ++round) {
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i)
            sum += x[i * stride] / scale - mean;
        mean += sum / static_cast<double>(n);
    }
    double squares = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double deviation = x[i * stride] / scale - mean;
        squares += deviation * deviation;
    }
    return {scale * mean, scale * std::sqrt(squares / static_cast<double>(n))};
}

} // namespace ballast::inline BALLAST_PRECISION
