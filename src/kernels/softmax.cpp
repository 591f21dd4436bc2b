// Row pieces of softmax for the attention kernel, and softmax cross-entropy.
//
// Cross-entropy reads the logits from memory once: pieces of a row that fit the first-level cache are swept twice (for
// their maximum, then for the exponentials), and the sum so far is rescaled whenever the maximum grows. A row of 50 000
// classes never has to stay in a cache. The sums of the pieces are added in double.

#include "ballast/kernels/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ballast/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/softmax.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

constexpr real kInfinity = std::numeric_limits<real>::infinity();

/// Smallest and largest of n elements. Where there is a NaN either may or may not be NaN.
HWY_INLINE void extremes(const real* x, std::int64_t n, real& smallest, real& largest) {
    const D d;
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    auto low = Set(d, kInfinity), high = Set(d, -kInfinity);
    auto low2 = low, high2 = high;
    std::int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const auto a = LoadU(d, x + i), b = LoadU(d, x + i + lanes);
        low = Min(low, a);
        high = Max(high, a);
        low2 = Min(low2, b);
        high2 = Max(high2, b);
    }
    for_vectors(d, n - i, [&](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
        const auto a = at.load(d, x + i + j);
        low = Min(low, at.keep(d, a, low));
        high = Max(high, at.keep(d, a, high));
    });
    smallest = GetLane(MinOfLanes(d, Min(low, low2)));
    largest = GetLane(MaxOfLanes(d, Max(high, high2)));
}

real exp_in_place(real* row, std::int64_t n, real& max) {
    const D d;
    real min = 0;
    extremes(row, n, min, max);
    const auto shift = Set(d, max);
    return one_sum(d, n, [&](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
        const auto e = exp_of(d, Sub(at.load(d, row + i), shift));
        at.store(e, d, row + i);
        sum = Add(sum, at.keep(d, e, Zero(d)));
    });
}

void exp_shifted_in_place(real* row, std::int64_t n, real shift_by) {
    const D d;
    const auto shift = Set(d, shift_by);
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        at.store(exp_of(d, Sub(at.load(d, row + i), shift)), d, row + i);
    });
}

void scale(real* y, const real* x, real by, std::int64_t n) {
    const D d;
    const auto factor = Set(d, by);
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        at.store(Mul(at.load(d, x + i), factor), d, y + i);
    });
}

real dot(const real* a, const real* b, std::int64_t n) {
    const D d;
    return one_sum(d, n, [=](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
        sum = MulAdd(at.load(d, a + i), at.load(d, b + i), sum);
    });
}

void softmax_backward(real* ds, const real* p, const real* dp, real delta, real scale_by, std::int64_t n) {
    const D d;
    const auto mean = Set(d, delta), factor = Set(d, scale_by);
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        at.store(Mul(Mul(at.load(d, p + i), Sub(at.load(d, dp + i), mean)), factor), d, ds + i);
    });
}

HWY_INLINE real sum_exp(const real* x, std::int64_t n, real shift_by) {
    const D d;
    const auto shift = Set(d, shift_by);
    return one_sum(d, n, [=](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
        sum = Add(sum, at.keep(d, exp_of(d, Sub(at.load(d, x + i), shift)), Zero(d)));
    });
}

void cross_entropy_rows(real* log_z, real* nll, real* max_logit, const real* logits, const std::int32_t* targets,
                        std::int64_t rows, std::int64_t classes) {
    constexpr std::int64_t kPiece = 2048;
    for (std::int64_t row = 0; row < rows; ++row, logits += classes) {
        real smallest = kInfinity, largest = -kInfinity;
        double sum = 0;
        for (std::int64_t i = 0; i < classes; i += kPiece) {
            const std::int64_t n = std::min(kPiece, classes - i);
            real piece_smallest = 0, piece_largest = 0;
            extremes(logits + i, n, piece_smallest, piece_largest);
            const real previous = largest;
            smallest = std::min(smallest, piece_smallest);
            largest = std::max(largest, piece_largest);
            // While all logits are -inf (their terms are 0), shifting by it would give inf - inf.
            const real shift = largest == -kInfinity ? real(0) : largest;
            if (previous < largest) sum *= std::exp(static_cast<double>(previous) - static_cast<double>(largest));
            sum += sum_exp(logits + i, n, shift);
        }
        // The sum has seen every element: a NaN is in it, and a +inf has become one.
        const double log_sum = std::log(sum);
        log_z[row] = static_cast<real>(largest + log_sum);
        max_logit[row] = std::isnan(sum) ? static_cast<real>(sum) : std::max(std::abs(smallest), std::abs(largest));
        // (largest - target) first: both may be large, and log_z has been rounded.
        nll[row] = targets[row] == kIgnoredTarget
                       ? real(0)
                       : static_cast<real>((static_cast<double>(largest) - logits[targets[row]]) + log_sum);
    }
}

void cross_entropy_backward_rows(Grad dlogits, const real* logits, const real* log_z, const std::int32_t* targets,
                                 std::int64_t rows, std::int64_t classes, real scale_by, real z_loss) {
    const D d;
    for (std::int64_t row = 0; row < rows; ++row, logits += classes, dlogits.data += classes) {
        if (targets[row] == kIgnoredTarget) {
            if (!dlogits.add) std::fill_n(dlogits.data, classes, real(0));
            continue;
        }
        const auto shift = Set(d, log_z[row]);
        const auto factor = Set(d, scale_by * (1 + 2 * z_loss * log_z[row]));
        for_vectors(d, classes, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            put(at, d, dlogits, i, Mul(exp_of(d, Sub(at.load(d, logits + i), shift)), factor));
        });
        dlogits.data[targets[row]] -= scale_by;
    }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(exp_in_place);
HWY_EXPORT(exp_shifted_in_place);
HWY_EXPORT(scale);
HWY_EXPORT(dot);
HWY_EXPORT(softmax_backward);
HWY_EXPORT(cross_entropy_rows);
HWY_EXPORT(cross_entropy_backward_rows);

} // namespace

real exp_row(real* row, std::int64_t n, real& max) { return HWY_DYNAMIC_DISPATCH(exp_in_place)(row, n, max); }

void exp_shifted_row(real* row, std::int64_t n, real shift) {
    HWY_DYNAMIC_DISPATCH(exp_shifted_in_place)(row, n, shift);
}

void scale_row(real* y, const real* x, real factor, std::int64_t n) { HWY_DYNAMIC_DISPATCH(scale)(y, x, factor, n); }

real dot_row(const real* a, const real* b, std::int64_t n) { return HWY_DYNAMIC_DISPATCH(dot)(a, b, n); }

void softmax_backward_row(real* ds, const real* p, const real* dp, real delta, real scale_by, std::int64_t n) {
    HWY_DYNAMIC_DISPATCH(softmax_backward)(ds, p, dp, delta, scale_by, n);
}

void cross_entropy_forward(real* log_z, real* nll, real* max_logit, const real* logits, const std::int32_t* targets,
                           std::int64_t rows, std::int64_t classes) {
    parallel_ranges(rows, rows_per_task(classes), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(cross_entropy_rows)(log_z + begin, nll + begin, max_logit + begin,
                                                 logits + begin * classes, targets + begin, end - begin, classes);
    });
}

void cross_entropy_backward(Grad dlogits, const real* logits, const real* log_z, const std::int32_t* targets,
                            std::int64_t rows, std::int64_t classes, real scale_by, real z_loss) {
    parallel_ranges(rows, rows_per_task(classes), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(cross_entropy_backward_rows)({dlogits.data + begin * classes, dlogits.add},
                                                          logits + begin * classes, log_z + begin, targets + begin,
                                                          end - begin, classes, scale_by, z_loss);
    });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
