// Normalization of columns. Statistics: rows are cut into groups by the shape alone, one task each; a group goes
// through its rows once, in blocks: the sums of d = x - c and d^2, c the rounded mean of the rows before (of the first
// block, of its first rows). Blocks, and then groups, are merged in double and in index order (Chan, Golub & LeVeque,
// 1983, equations 1.5). What c misses a block's mean by costs no digits of the variance: n rows' squares grow by n
// times its square, and what lies between these rows and those before puts at least a half of that (of the first block,
// a third) into the variance. Means are kept as differences from the first row, so that a large one does not cost
// digits.
//
// Backward: with xhat the normalized column and g = dy * gain, dx = rstd (g - mean(g) - xhat mean(g xhat)); the two
// means are the gradients of bias and gain times gain / rows.

#include "ballast/kernels/batchnorm.h"

#include <algorithm>
#include <cmath>

#include "beyond_cache.h"
#include "moments.h"
#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batchnorm.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

/// Rows of a block, and those of the first block whose mean is its center.
constexpr std::int64_t kBlockRows = 32, kCenterRows = 8;
/// Rows this long are worked on in pieces, so that what belongs to the columns of a piece is in the first-level cache.
constexpr std::int64_t kLongRow = 8192 / sizeof(real), kPiece = 4096 / sizeof(real);

/// Elements ahead of those worked on that are fetched: the next row's piece, or what the processor, busy with what
/// belongs to the columns, would not foresee in time.
constexpr std::int64_t ahead(std::int64_t width) { return width < kLongRow ? 8192 / sizeof(real) : width; }

/// body(begin, n) for every piece of the columns.
template <class Body>
HWY_INLINE void for_pieces(std::int64_t width, Body&& body) {
    const std::int64_t piece = width < kLongRow ? width : kPiece;
    for (std::int64_t begin = 0; begin < width; begin += piece)
        body(begin, std::min(piece, width - begin));
}

/// Adds n columns' moments of `b_rows` more rows to those of `a_rows`: mean += and squares +=.
HWY_INLINE void merge(double* mean, double* squares, double a_rows, const double* b_mean, const double* b_squares,
                      double b_rows, std::int64_t n) {
    const double b_share = b_rows / (a_rows + b_rows);
    for (std::int64_t i = 0; i < n; ++i) {
        const double delta = b_mean[i] - mean[i];
        mean[i] += delta * b_share;
        squares[i] += b_squares[i] + delta * delta * a_rows * b_share;
    }
}

/// The mean of each of n columns over some rows, rounded.
HWY_INLINE void rounded_means(real* means, const real* x, std::int64_t rows, std::int64_t width, std::int64_t n) {
    const D d;
    std::fill_n(means, padded_width(n), real(0));
    for (std::int64_t row = 0; row < rows; ++row)
        for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            Store(Add(Load(d, means + i), at.load(d, x + row * width + i)), d, means + i);
        });
    const auto share = Set(d, 1 / static_cast<real>(rows));
    for_vectors(
        d, n, [=](auto, std::int64_t i) BALLAST_INLINE_LAMBDA { Store(Mul(Load(d, means + i), share), d, means + i); });
}

/// Mean, as the difference from `origin`, and sum of the squares of deviations from the mean, of n < kLongRow columns
/// of a block of rows.
HWY_INLINE void block_moments(double* mean, double* squares, const real* x, const real* centers, const real* origin,
                              std::int64_t rows, std::int64_t width, std::int64_t n) {
    const D d;
    HWY_ALIGN real buffers[2][padded_width(kLongRow)];
    real *const rests = buffers[0], *const sums = buffers[1];
    for (real* buffer : buffers)
        std::fill_n(buffer, padded_width(n), real(0));
    const std::int64_t next = ahead(width);
    for (std::int64_t row = 0; row < rows; ++row, x += width)
        for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            fetch(x + next + i);
            const auto deviation = at.keep(d, Sub(at.load(d, x + i), at.load(d, centers + i)), Zero(d));
            Store(Add(Load(d, rests + i), deviation), d, rests + i);
            Store(MulAdd(deviation, deviation, Load(d, sums + i)), d, sums + i);
        });
    const auto count = static_cast<double>(rows);
    const double share = 1 / count;
    for (std::int64_t i = 0; i < n; ++i) {
        const double rest = static_cast<double>(rests[i]) * share;
        mean[i] = static_cast<double>(centers[i]) - static_cast<double>(origin[i]) + rest;
        squares[i] = static_cast<double>(sums[i]) - rest * rest * count;
    }
}

void group_moments(double* mean, double* squares, const real* x, const real* origin, std::int64_t rows,
                   std::int64_t width) {
    for_pieces(width, [=](std::int64_t begin, std::int64_t n) HWY_ATTR {
        HWY_ALIGN real centers[padded_width(kLongRow)];
        double block_mean[kLongRow], block_squares[kLongRow];
        double *const to_mean = mean + begin, *const to_squares = squares + begin;
        const real *const from = x + begin, *const start = origin + begin;
        const std::int64_t first = std::min(kBlockRows, rows);
        rounded_means(centers, from, std::min(kCenterRows, rows), width, n);
        block_moments(to_mean, to_squares, from, centers, start, first, width, n);
        for (std::int64_t row = first; row < rows; row += kBlockRows) {
            for (std::int64_t i = 0; i < n; ++i)
                centers[i] = static_cast<real>(static_cast<double>(start[i]) + to_mean[i]);
            const std::int64_t more = std::min(kBlockRows, rows - row);
            block_moments(block_mean, block_squares, from + row * width, centers, start, more, width, n);
            merge(to_mean, to_squares, static_cast<double>(row), block_mean, block_squares, static_cast<double>(more),
                  n);
        }
    });
}

void merge_groups(double* mean, double* squares, std::int64_t groups, std::int64_t group_rows, std::int64_t rows,
                  std::int64_t width) {
    for (std::int64_t group = 1; group < groups; ++group) {
        const std::int64_t before = group * group_rows;
        merge(mean, squares, static_cast<double>(before), mean + group * width, squares + group * width,
              static_cast<double>(std::min(group_rows, rows - before)), width);
    }
}

/// Statistics as they are kept, column by column, in vectors.
struct Columns {
    const real *mean, *rest, *rstd;

    Columns(const real* stats, std::int64_t width) : mean(stats), rest(stats + 2 * width), rstd(stats + 3 * width) {}

    template <class Access>
    HWY_INLINE Vec<D> normalized(Access at, Vec<D> x, std::int64_t i) const {
        const D d;
        const auto deviation = Sub(Sub(x, at.load(d, mean + i)), at.load(d, rest + i));
        return Mul(deviation, at.load(d, rstd + i));
    }
};

void normalize_rows(bool stream, real* y, const real* x, const real* stats, const real* gain, const real* bias,
                    std::int64_t rows, std::int64_t width) {
    const D d;
    stream = stream && streamable(d, y, width);
    const Columns columns(stats, width);
    const std::int64_t next = ahead(width);
    for_pieces(width, [=](std::int64_t begin, std::int64_t n) BALLAST_INLINE_LAMBDA {
        for (std::int64_t row = 0; row < rows; ++row)
            for_vectors_to(stream, d, n, [=](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
                const std::int64_t i = begin + j, element = row * width + i;
                fetch(x + element + next);
                const auto xhat = columns.normalized(at, at.load(d, x + element), i);
                const auto g = load_or(at, d, gain, i, Set(d, real(1)));
                at.store(MulAdd(xhat, g, load_or(at, d, bias, i, Zero(d))), d, y + element);
            });
    });
    if (stream) hwy::FlushStream();
}

/// Adds kRows rows' dy * xhat and dy to sums that have room for a whole last vector.
template <int kRows>
HWY_INLINE void add_rows(real* dgain, real* dbias, const real* dy, const real* x, const Columns& columns,
                         std::int64_t width) {
    const D d;
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    const std::int64_t next = std::max(ahead(width), kRows * width);
    for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        auto products = LoadU(d, dgain + i), sums = LoadU(d, dbias + i);
        for (int k = 0; k < kRows; ++k) {
            // In the order in which the next rows lie in memory.
            const std::int64_t element = k * width + i, later = next + kRows * i + k * lanes;
            fetch(x + later);
            fetch(dy + later);
            const auto v = at.load(d, dy + element);
            products = MulAdd(v, columns.normalized(at, at.load(d, x + element), i), products);
            sums = Add(v, sums);
        }
        StoreU(products, d, dgain + i);
        StoreU(sums, d, dbias + i);
    });
}

/// Sums of dy * xhat and of dy. Several long rows are taken side by side: what belongs to their columns comes from the
/// second-level cache, and is read once for all of them.
void gradient_sums(real* dgain, real* dbias, const real* dy, const real* x, const real* stats, std::int64_t rows,
                   std::int64_t width) {
    constexpr int kSideBySide = 4;
    const Columns columns(stats, width);
    for (real* sums : {dgain, dbias})
        std::fill_n(sums, padded_width(width), real(0));
    std::int64_t row = 0;
    for (; width >= kLongRow && row + kSideBySide <= rows; row += kSideBySide)
        add_rows<kSideBySide>(dgain, dbias, dy + row * width, x + row * width, columns, width);
    for (; row < rows; ++row)
        add_rows<1>(dgain, dbias, dy + row * width, x + row * width, columns, width);
}

/// dgain and dbias are the sums over all rows, `share` is one over their number, or 0 for constant statistics.
void input_gradient_rows(bool stream, Grad dx, const real* dy, const real* x, const real* gain, const real* stats,
                         const real* dgain, const real* dbias, real share, std::int64_t rows, std::int64_t width) {
    const D d;
    stream = stream && !dx.add && streamable(d, dx.data, width);
    const Columns columns(stats, width);
    const auto each = Set(d, share);
    const std::int64_t next = ahead(width);
    for_pieces(width, [=](std::int64_t begin, std::int64_t n) BALLAST_INLINE_LAMBDA {
        for (std::int64_t row = 0; row < rows; ++row)
            for_vectors_to(stream, d, n, [=](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
                const std::int64_t i = begin + j, element = row * width + i;
                fetch(x + element + next);
                fetch(dy + element + next);
                const auto scale = Mul(at.load(d, columns.rstd + i), load_or(at, d, gain, i, Set(d, real(1))));
                auto g = at.load(d, dy + element);
                if (share != 0) {
                    const auto xhat = columns.normalized(at, at.load(d, x + element), i);
                    const auto means = MulAdd(xhat, at.load(d, dgain + i), at.load(d, dbias + i));
                    g = NegMulAdd(means, each, g);
                }
                put(at, d, dx, element, Mul(g, scale));
            });
    });
    if (stream) hwy::FlushStream();
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(group_moments);
HWY_EXPORT(merge_groups);
HWY_EXPORT(normalize_rows);
HWY_EXPORT(gradient_sums);
HWY_EXPORT(input_gradient_rows);

/// Writes one column's statistics; its mean is high + low.
void put_statistics(real* stats, std::int64_t width, double high, double low, double variance, double rstd) {
    stats[0] = static_cast<real>(high + low);
    stats[width] = static_cast<real>(variance);
    stats[2 * width] = static_cast<real>(high - static_cast<double>(stats[0]) + low);
    stats[3 * width] = static_cast<real>(rstd);
}

} // namespace

void batchnorm_statistics(real* stats, const real* x, std::int64_t rows, std::int64_t width, real eps, Arena& scratch) {
    const Arena::Mark mark(scratch);
    const std::int64_t groups = row_groups(rows, width);
    auto* means = scratch.allocate<double>(groups * width);
    auto* squares = scratch.allocate<double>(groups * width);
    for_row_groups(rows, width, [=](std::int64_t group, std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(group_moments)(means + group * width, squares + group * width, x + begin * width, x,
                                            end - begin, width);
    });
    HWY_DYNAMIC_DISPATCH(merge_groups)(means, squares, groups, rows_per_group(rows, width), rows, width);
    const auto e = static_cast<double>(eps);
    for (std::int64_t i = 0; i < width; ++i) {
        const double variance = std::max(squares[i] / static_cast<double>(rows), 0.0);
        if (in_range(static_cast<real>(variance + e))) {
            put_statistics(stats + i, width, static_cast<double>(x[i]), means[i], variance,
                           1 / std::sqrt(variance + e));
        } else {
            const Moments exact = scaled_moments(x + i, rows, width, true);
            put_statistics(stats + i, width, exact.mean, 0, exact.deviation * exact.deviation,
                           1 / std::hypot(exact.deviation, std::sqrt(e)));
        }
    }
}

void batchnorm_given_statistics(real* stats, const real* mean, const real* variance, std::int64_t width, real eps) {
    for (std::int64_t i = 0; i < width; ++i)
        put_statistics(stats + i, width, static_cast<double>(mean[i]), 0, static_cast<double>(variance[i]),
                       1 / std::sqrt(static_cast<double>(variance[i]) + static_cast<double>(eps)));
}

void batchnorm_forward(real* y, const real* x, const real* stats, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width) {
    parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(normalize_rows)(beyond_cache(rows * width), y + begin * width, x + begin * width, stats,
                                             gain, bias, end - begin, width);
    });
}

void batchnorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, bool constant_statistics, std::int64_t rows, std::int64_t width,
                        Arena& scratch) {
    const Arena::Mark mark(scratch);
    const Grad products{scratch.allocate<real>(width), false}, sums{scratch.allocate<real>(width), false};
    sum_over_rows({products, sums}, rows, width, scratch,
                  [=](std::int64_t, std::int64_t begin, std::int64_t end, real* const* partials) {
                      HWY_DYNAMIC_DISPATCH(gradient_sums)(partials[0], partials[1], dy + begin * width,
                                                          x + begin * width, stats, end - begin, width);
                  });
    if (dx) {
        const real share = constant_statistics ? real(0) : 1 / static_cast<real>(rows);
        parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
            HWY_DYNAMIC_DISPATCH(input_gradient_rows)(beyond_cache(rows * width), offset(dx, begin * width),
                                                      dy + begin * width, x + begin * width, gain, stats, products.data,
                                                      sums.data, share, end - begin, width);
        });
    }
    if (dgain) add_scaled(dgain, 1, products.data, width);
    if (dbias) add_scaled(dbias, 1, sums.data, width);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
