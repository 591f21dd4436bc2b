// Layer and RMS normalization. A row is read from memory once and then worked on in the first-level cache.
//
// Forward, layer norm: one sweep for the sum, one for the sums of d = x - m and d^2, m the rounded mean; mean(d) is
// what the rounding of m left out, and x - mean = (x - m) - mean(d) keeps the digits of a small deviation on a large
// mean. Forward, RMS norm: one sweep. When the squares leave the range of `real` the row is done again, scaled.
//
// Backward: with xhat the normalized row and g = dy * gain, dx = rstd (g - mean(g) - xhat mean(g xhat)) (RMS norm: no
// mean(g)). Both norms share the code: RMS norm is the case without a mean. The sweep that takes the means also adds
// the row to the sums for gain and bias, which go to one partial buffer per group of rows.

#include "ballast/kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ballast/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

/// A mean square below this may have lost terms to underflow; one above, or not finite, may have overflowed.
constexpr real kSmallestMeanSquare = std::numeric_limits<real>::min() * real(1e12);

HWY_INLINE bool in_range(real mean_square) {
    return mean_square > kSmallestMeanSquare && mean_square < std::numeric_limits<real>::infinity();
}

/// A row of partial sums, rounded up to whole vectors of any instruction set (at most 2048 bits).
constexpr std::int64_t padded_width(std::int64_t width) { return (width + 63) / 64 * 64; }

struct Moments {
    double mean;
    double rstd;
};

/// Mean (0 unless asked for) and 1/sqrt(variance + eps) of a row whose squares are out of range: in double, scaled by
/// the largest element. A row with a NaN or infinity gets NaNs.
HWY_NOINLINE Moments scaled_moments(const real* x, std::int64_t n, real eps, bool centered) {
    double scale = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(x[i])) return {std::nan(""), std::nan("")};
        scale = std::max(scale, std::abs(static_cast<double>(x[i])));
    }
    if (scale == 0) return {0.0, 1.0 / std::sqrt(static_cast<double>(eps))};
    double mean = 0;
    // The second round adds what the rounding of the first left out; it makes the mean of equal elements exact.
    for (int round = 0; centered && round < 2; ++round) {
        double sum = 0;
        for (std::int64_t i = 0; i < n; ++i)
            sum += x[i] / scale - mean;
        mean += sum / static_cast<double>(n);
    }
    double squares = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        const double deviation = x[i] / scale - mean;
        squares += deviation * deviation;
    }
    const double deviation = scale * std::sqrt(squares / static_cast<double>(n));
    return {scale * mean, 1.0 / std::hypot(deviation, std::sqrt(static_cast<double>(eps)))};
}

/// stats: mean, its correction, rstd.
HWY_INLINE void layernorm_moments(real* stats, const real* x, std::int64_t width, real eps) {
    const D d;
    const auto n = static_cast<real>(width);
    const real total = one_sum(
        d, width, [=](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA { sum = Add(sum, at.load(d, x + i)); });
    const real mean = total / n;
    const auto center = Set(d, mean);
    real sum = 0, squares = 0;
    two_sums(d, width, sum, squares, [&](auto at, std::int64_t i, auto& s, auto& q) BALLAST_INLINE_LAMBDA {
        const auto deviation = at.keep(d, Sub(at.load(d, x + i), center), Zero(d));
        s = Add(s, deviation);
        q = MulAdd(deviation, deviation, q);
    });
    const real correction = sum / n;
    const real variance = squares / n - correction * correction;
    const real mean_square = (variance < 0 ? 0 : variance) + eps;
    if (in_range(mean_square)) {
        stats[0] = mean;
        stats[1] = correction;
        stats[2] = 1 / std::sqrt(mean_square);
    } else {
        const Moments exact = scaled_moments(x, width, eps, true);
        stats[0] = static_cast<real>(exact.mean);
        stats[1] = static_cast<real>(exact.mean - static_cast<double>(stats[0]));
        stats[2] = static_cast<real>(exact.rstd);
    }
}

void layernorm_rows(real* y, real* stats, const real* x, const real* gain, const real* bias, std::int64_t rows,
                    std::int64_t width, real eps) {
    const D d;
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width, stats += kLayerNormStats) {
        layernorm_moments(stats, x, width, eps);
        const auto mean = Set(d, stats[0]), correction = Set(d, stats[1]), rstd = Set(d, stats[2]);
        for_vectors(d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto xhat = Mul(Sub(Sub(at.load(d, x + i), mean), correction), rstd);
            const auto g = load_or(at, d, gain, i, Set(d, real(1)));
            at.store(MulAdd(xhat, g, load_or(at, d, bias, i, Zero(d))), d, y + i);
        });
    }
}

void rmsnorm_rows(real* y, real* rstds, const real* x, const real* gain, std::int64_t rows, std::int64_t width,
                  real eps) {
    const D d;
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width) {
        const real squares = one_sum(d, width, [&](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
            const auto v = at.load(d, x + i);
            sum = MulAdd(v, v, sum);
        });
        const real mean_square = squares / static_cast<real>(width) + eps;
        rstds[row] = in_range(mean_square) ? 1 / std::sqrt(mean_square)
                                           : static_cast<real>(scaled_moments(x, width, eps, false).rstd);
        const auto rstd = Set(d, rstds[row]);
        for_vectors(d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto xhat = Mul(at.load(d, x + i), rstd);
            at.store(Mul(xhat, load_or(at, d, gain, i, Set(d, real(1)))), d, y + i);
        });
    }
}

/// Backward of `rows` rows. dgain and dbias are this group's own sums, or null; they have room for a whole last vector
/// (storing part of a vector and loading it with the next row would stall). kCentered: layer norm, stats as it
/// saves them; otherwise RMS norm, stats is rstd.
template <bool kCentered>
HWY_INLINE void norm_backward_rows(Grad dx, real* dgain, real* dbias, const real* dy, const real* x, const real* gain,
                                   const real* stats, std::int64_t rows, std::int64_t width) {
    const D d;
    const auto one = Set(d, real(1));
    for (real* sums : {dgain, dbias})
        if (sums != nullptr) std::fill_n(sums, padded_width(width), real(0));
    for (std::int64_t row = 0; row < rows; ++row, x += width, dy += width, stats += kCentered ? kLayerNormStats : 1) {
        const auto mean = kCentered ? Set(d, stats[0]) : Zero(d);
        const auto correction = kCentered ? Set(d, stats[1]) : Zero(d);
        const auto rstd = Set(d, kCentered ? stats[2] : stats[0]);
        const auto normalized = [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto v = at.load(d, x + i);
            return Mul(kCentered ? Sub(Sub(v, mean), correction) : v, rstd);
        };
        real g_sum = 0, gx_sum = 0;
        two_sums(d, width, g_sum, gx_sum, [&](auto at, std::int64_t i, auto& s, auto& sx) BALLAST_INLINE_LAMBDA {
            // Past the end of the row dy is 0, but 0 times an xhat that is not finite would not be.
            const auto xhat = at.keep(d, normalized(at, i), Zero(d));
            const auto v = at.load(d, dy + i);
            const auto g = Mul(v, load_or(at, d, gain, i, one));
            s = Add(s, g);
            sx = MulAdd(g, xhat, sx);
            if (dgain != nullptr) StoreU(MulAdd(v, xhat, LoadU(d, dgain + i)), d, dgain + i);
            if (dbias != nullptr) StoreU(Add(v, LoadU(d, dbias + i)), d, dbias + i);
        });
        if (!dx) continue;
        const auto g_mean = Set(d, kCentered ? g_sum / static_cast<real>(width) : real(0));
        const auto gx_mean = Set(d, gx_sum / static_cast<real>(width));
        for_vectors(d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto g = Mul(at.load(d, dy + i), load_or(at, d, gain, i, one));
            const auto centered = kCentered ? Sub(g, g_mean) : g;
            put(at, d, dx, row * width + i, Mul(NegMulAdd(normalized(at, i), gx_mean, centered), rstd));
        });
    }
}

void layernorm_backward_rows(Grad dx, real* dgain, real* dbias, const real* dy, const real* x, const real* gain,
                             const real* stats, std::int64_t rows, std::int64_t width) {
    norm_backward_rows<true>(dx, dgain, dbias, dy, x, gain, stats, rows, width);
}

void rmsnorm_backward_rows(Grad dx, real* dgain, const real* dy, const real* x, const real* gain, const real* rstd,
                           std::int64_t rows, std::int64_t width) {
    norm_backward_rows<false>(dx, dgain, nullptr, dy, x, gain, rstd, rows, width);
}

/// target (+)= sum of `count` partial buffers, `stride` apart, over n columns.
void add_partials(Grad target, const real* partials, std::int64_t count, std::int64_t stride, std::int64_t n) {
    const D d;
    for_vectors(d, n, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        auto sum = at.load(d, partials + i);
        for (std::int64_t k = 1; k < count; ++k)
            sum = Add(sum, at.load(d, partials + k * stride + i));
        put(at, d, target, i, sum);
    });
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(layernorm_rows);
HWY_EXPORT(rmsnorm_rows);
HWY_EXPORT(layernorm_backward_rows);
HWY_EXPORT(rmsnorm_backward_rows);
HWY_EXPORT(add_partials);

Grad offset(Grad grad, std::int64_t by) { return grad ? Grad{grad.data + by, grad.add} : grad; }

/// Groups of rows for the sums over rows: at least 16 rows in each, so that writing and adding the partial sums stays
/// small beside reading the rows, and at most 64 groups.
std::int64_t rows_per_group(std::int64_t rows, std::int64_t width) {
    return std::max({rows_per_task(width), std::int64_t{16}, (rows + 63) / 64});
}

/// Calls body(begin, end, sums) for every group of rows, then adds up what the groups left in their partial buffers:
/// `sums` has, for each of the targets, this group's buffer, or null where there is no target.
template <std::size_t N, class Body>
void sum_over_rows(const Grad (&targets)[N], std::int64_t rows, std::int64_t width, Arena& scratch, Body&& body) {
    const Arena::Mark mark(scratch);
    const std::int64_t grain = rows_per_group(rows, width);
    const std::int64_t groups = (rows + grain - 1) / grain;
    const std::int64_t stride = HWY_STATIC_DISPATCH(padded_width)(width);
    real* partials[N];
    for (std::size_t k = 0; k < N; ++k)
        partials[k] = targets[k] ? scratch.allocate<real>(groups * stride) : nullptr;
    parallel_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) {
        real* sums[N];
        for (std::size_t k = 0; k < N; ++k)
            sums[k] = partials[k] != nullptr ? partials[k] + begin / grain * stride : nullptr;
        body(begin, end, sums);
    });
    constexpr std::int64_t kColumns = 1024;
    for (std::size_t k = 0; k < N; ++k) {
        if (!targets[k]) continue;
        parallel_ranges(width, kColumns, [&](std::int64_t begin, std::int64_t end) {
            HWY_DYNAMIC_DISPATCH(add_partials)(offset(targets[k], begin), partials[k] + begin, groups, stride,
                                               end - begin);
        });
    }
}

} // namespace

void layernorm_forward(real* y, real* stats, const real* x, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width, real eps) {
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(layernorm_rows)(y + begin * width, stats + begin * kLayerNormStats, x + begin * width,
                                             gain, bias, end - begin, width, eps);
    });
}

void layernorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, std::int64_t rows, std::int64_t width, Arena& scratch) {
    sum_over_rows({dgain, dbias}, rows, width, scratch, [=](std::int64_t begin, std::int64_t end, real* const* sums) {
        HWY_DYNAMIC_DISPATCH(layernorm_backward_rows)(offset(dx, begin * width), sums[0], sums[1], dy + begin * width,
                                                      x + begin * width, gain, stats + begin * kLayerNormStats,
                                                      end - begin, width);
    });
}

void rmsnorm_forward(real* y, real* rstd, const real* x, const real* gain, std::int64_t rows, std::int64_t width,
                     real eps) {
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(rmsnorm_rows)(y + begin * width, rstd + begin, x + begin * width, gain, end - begin, width,
                                           eps);
    });
}

void rmsnorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, const real* gain, const real* rstd,
                      std::int64_t rows, std::int64_t width, Arena& scratch) {
    sum_over_rows({dgain}, rows, width, scratch, [=](std::int64_t begin, std::int64_t end, real* const* sums) {
        HWY_DYNAMIC_DISPATCH(rmsnorm_backward_rows)(offset(dx, begin * width), sums[0], dy + begin * width,
                                                    x + begin * width, gain, rstd + begin, end - begin, width);
    });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
