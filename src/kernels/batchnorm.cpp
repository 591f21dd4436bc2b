// Normalization of columns. Statistics: rows are cut into groups by the shape alone, one task each; a group goes
// through its rows once, in blocks: the sums of d = x - c and d^2, c the rounded mean of the rows before (of the first
// block, of its first rows). Blocks, and then groups, are merged in double and in index order (Chan, Golub & LeVeque,
// 1983, equations 1.5). What c misses a block's mean by costs no digits of the variance: n rows' squares grow by n
// times its square, and what lies between these rows and those before puts at least a half of that (of the first block,
// a third) into the variance. Means are kept as differences from the first row, so that a large one does not cost
// digits.
//
// Backward: with xhat the normalized column and g = dy * gain, dx = rstd (g - mean(g) - xhat mean(g xhat)); the two
// means are the gradients of bias and gain times gain / rows. What the rounding of a mean left out belongs to the
// column: it is added to its sums, not to every element.
//
// Rows that are not short are worked on side by side: what belongs to their columns is read and written once for
// several. Long ones are read from memory in order before. docs/performance.md has the figures.

#include "ballast/kernels/batchnorm.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "beyond_cache.h"
#include "moments.h"
#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/batchnorm.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "rows-inl.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

/// Rows of a block, and those of the first block whose mean is its center.
constexpr std::int64_t kBlockRows = 64, kCenterRows = 16;
/// Long rows are worked on in pieces, so that what belongs to the columns of a piece is in the first-level cache.
constexpr std::int64_t kPiece = 4096 / sizeof(real);

/// Elements of long rows that are brought in together.
constexpr std::int64_t kBroughtIn = 131072 / sizeof(real);

/// Elements ahead of those worked on that are fetched: pieces of the rows to come, or what the processor, busy with
/// what belongs to the columns, would not foresee in time.
constexpr std::int64_t ahead(std::int64_t width) { return width < kLongRow ? 8192 / sizeof(real) : 2 * width; }

/// Reads arrays of n elements from memory into the second-level cache. The processor foresees the reads of a few arrays
/// in order, but not those of several rows side by side; and it drops fetches by name when many are under way.
template <std::size_t kArrays>
HWY_INLINE void bring_in(const real* const (&arrays)[kArrays], std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += 64 / static_cast<std::int64_t>(sizeof(real)))
        for (const real* array : arrays)
            static_cast<void>(*static_cast<const volatile real*>(array + i));
}

/// body(begin, n) for every piece of the columns.
template <class Body>
HWY_INLINE void for_pieces(std::int64_t width, Body&& body) {
    const std::int64_t piece = width < kLongRow ? width : kPiece;
    for (std::int64_t begin = 0; begin < width; begin += piece)
        body(begin, std::min(piece, width - begin));
}

/// Adds the moments of `b_rows` more rows to those of `a_rows`: mean += and squares +=.
HWY_INLINE void merge(double& mean, double& squares, double a_rows, double b_mean, double b_squares, double b_rows) {
    const double b_share = b_rows / (a_rows + b_rows), delta = b_mean - mean;
    mean += delta * b_share;
    squares += b_squares + delta * delta * a_rows * b_share;
}

/// body(n, row, begin, end) for n rows at a time, 1 or several side by side, and some of their columns. Long rows go in
/// blocks: read(first, last) brings these rows in before.
template <class Read, class Body>
HWY_INLINE void for_blocks(std::int64_t rows, std::int64_t width, Read&& read, Body&& body) {
    if (width < kLongRow)
        return for_rows(false, 0, rows,
                        [=](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA { body(n, row, 0, width); });
    const std::int64_t block = std::max(kBroughtIn / width, kTogether) / kTogether * kTogether;
    for (std::int64_t first = 0; first < rows; first += block) {
        const std::int64_t last = std::min(first + block, rows);
        read(first, last);
        for_pieces(width, [=](std::int64_t begin, std::int64_t n) BALLAST_INLINE_LAMBDA {
            for_rows(true, first, last, [=](auto side_by_side, std::int64_t row) BALLAST_INLINE_LAMBDA {
                body(side_by_side, row, begin, begin + n);
            });
        });
    }
}

/// for_blocks of a matrix, from two places of which at once the processor reads faster than from one.
template <class Body>
HWY_INLINE void for_blocks_of(const real* x, std::int64_t rows, std::int64_t width, Body&& body) {
    const auto read = [=](std::int64_t first, std::int64_t last) BALLAST_INLINE_LAMBDA {
        const std::int64_t half = (last - first + 1) / 2;
        bring_in({x + first * width, x + (last - half) * width}, half * width);
    };
    for_blocks(rows, width, read, body);
}

/// The mean of each column over some rows, rounded. `means` has room for a whole last vector.
HWY_INLINE void rounded_means(real* means, const real* x, std::int64_t rows, std::int64_t width) {
    const D d;
    std::fill_n(means, padded_width(width), real(0));
    for_blocks_of(x, rows, width,
                  [=](auto n, std::int64_t row, std::int64_t begin, std::int64_t end) BALLAST_INLINE_LAMBDA {
                      for_vectors(d, end - begin, [=](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
                          const std::int64_t i = begin + j;
                          auto sum = LoadU(d, means + i);
                          for (std::int64_t k = 0; k < n; ++k)
                              sum = Add(sum, at.load(d, x + (row + k) * width + i));
                          StoreU(sum, d, means + i);
                      });
                  });
    const auto share = Set(d, 1 / static_cast<real>(rows));
    for_vectors(d, width, [=](auto, std::int64_t i) BALLAST_INLINE_LAMBDA {
        StoreU(Mul(LoadU(d, means + i), share), d, means + i);
    });
}

/// Sums of d = x - center and of d^2 over a block of rows. All three arrays have room for a whole last vector.
HWY_INLINE void add_deviations(real* rests, real* sums, const real* x, const real* centers, std::int64_t rows,
                               std::int64_t width) {
    const D d;
    for (real* result : {rests, sums})
        std::fill_n(result, padded_width(width), real(0));
    const std::int64_t next = ahead(width);
    for_blocks_of(x, rows, width,
                  [=](auto n, std::int64_t row, std::int64_t begin, std::int64_t end) BALLAST_INLINE_LAMBDA {
                      for_vectors(d, end - begin, [=](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
                          const std::int64_t i = begin + j;
                          const auto center = LoadU(d, centers + i);
                          auto rest = LoadU(d, rests + i), sum = LoadU(d, sums + i);
                          for (std::int64_t k = 0; k < n; ++k) {
                              const std::int64_t element = (row + k) * width + i;
                              if (n == 1) fetch(x + element + next);
                              const auto deviation = at.keep(d, Sub(at.load(d, x + element), center), Zero(d));
                              rest = Add(rest, deviation);
                              sum = MulAdd(deviation, deviation, sum);
                          }
                          StoreU(rest, d, rests + i);
                          StoreU(sum, d, sums + i);
                      });
                  });
}

/// Mean, as the difference from `origin`, and sum of the squares of deviations from the mean, of a group of rows.
/// centers, rests and sums are room for padded_width(width) numbers.
void group_moments(double* mean, double* squares, real* centers, real* rests, real* sums, const real* x,
                   const real* origin, std::int64_t rows, std::int64_t width) {
    rounded_means(centers, x, std::min(kCenterRows, rows), width);
    for (double* moment : {mean, squares})
        std::fill_n(moment, width, 0.0);
    for (std::int64_t row = 0; row < rows; row += kBlockRows) {
        const std::int64_t block_rows = std::min(kBlockRows, rows - row);
        if (row > 0)
            for (std::int64_t i = 0; i < width; ++i)
                centers[i] = static_cast<real>(static_cast<double>(origin[i]) + mean[i]);
        add_deviations(rests, sums, x + row * width, centers, block_rows, width);
        const auto before = static_cast<double>(row), count = static_cast<double>(block_rows);
        const double share = 1 / count;
        for (std::int64_t i = 0; i < width; ++i) {
            const double rest = static_cast<double>(rests[i]) * share;
            const double block_mean = static_cast<double>(centers[i]) - static_cast<double>(origin[i]) + rest;
            merge(mean[i], squares[i], before, block_mean, static_cast<double>(sums[i]) - rest * rest * count, count);
        }
    }
}

/// Merges the moments of all groups, `width` apart, into those of the first: of n columns.
void merge_groups(double* mean, double* squares, std::int64_t groups, std::int64_t group_rows, std::int64_t rows,
                  std::int64_t width, std::int64_t n) {
    for (std::int64_t group = 1; group < groups; ++group) {
        const std::int64_t before = group * group_rows;
        const auto a_rows = static_cast<double>(before),
                   b_rows = static_cast<double>(std::min(group_rows, rows - before));
        const double *const b_mean = mean + group * width, *const b_squares = squares + group * width;
        for (std::int64_t i = 0; i < n; ++i)
            merge(mean[i], squares[i], a_rows, b_mean[i], b_squares[i], b_rows);
    }
}

/// Statistics as they are kept.
struct Columns {
    const real *mean, *rest, *rstd;

    Columns(const real* stats, std::int64_t width) : mean(stats), rest(stats + 2 * width), rstd(stats + 3 * width) {}
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
                const auto deviation =
                    Sub(Sub(at.load(d, x + element), at.load(d, columns.mean + i)), at.load(d, columns.rest + i));
                const auto xhat = Mul(deviation, at.load(d, columns.rstd + i));
                const auto g = load_or(at, d, gain, i, Set(d, real(1)));
                at.store(MulAdd(xhat, g, load_or(at, d, bias, i, Zero(d))), d, y + element);
            });
    });
    if (stream) hwy::FlushStream();
}

/// Rows of the backward pass that are not short.
constexpr std::int64_t kSideBySideWidth = kLongRow / 2;

/// Sums of dy * (x - mean) * rstd and of dy. What is missing of xhat belongs to the column: finish_sums adds it.
void gradient_sums(real* products, real* sums, const real* dy, const real* x, const real* stats, std::int64_t rows,
                   std::int64_t width) {
    const D d;
    const Columns columns(stats, width);
    const std::int64_t next = ahead(width);
    // On the stack, in one place: the loop needs its registers for the addresses of the rows.
    constexpr std::int64_t kMost = kLongRow + MaxLanes(d);
    HWY_ALIGN real means[kMost], rstds[kMost], piece_products[kMost], piece_sums[kMost];
    for_pieces(width, [&](std::int64_t begin, std::int64_t count) BALLAST_INLINE_LAMBDA {
        for_vectors(d, count, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            Store(at.load(d, columns.mean + begin + i), d, means + i);
            Store(at.load(d, columns.rstd + begin + i), d, rstds + i);
            Store(Zero(d), d, piece_products + i);
            Store(Zero(d), d, piece_sums + i);
        });
        const real *const from_x = x + begin, *const from_dy = dy + begin;
        for_rows(width >= kSideBySideWidth, 0, rows, [&](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA {
            for_vectors(d, count, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                const auto mean = Load(d, means + i), rstd = Load(d, rstds + i);
                auto product = Load(d, piece_products + i), sum = Load(d, piece_sums + i);
                for (std::int64_t k = 0; k < n; ++k) {
                    const std::int64_t element = (row + k) * width + i;
                    if (n == 1) {
                        fetch(from_x + element + next);
                        fetch(from_dy + element + next);
                    }
                    const auto v = at.load(d, from_dy + element);
                    const auto opposite = Mul(Sub(mean, at.load(d, from_x + element)), rstd);
                    product = NegMulAdd(v, opposite, product);
                    sum = Add(v, sum);
                }
                Store(product, d, piece_products + i);
                Store(sum, d, piece_sums + i);
            });
        });
        std::copy_n(piece_products, count, products + begin);
        std::copy_n(piece_sums, count, sums + begin);
    });
}

/// What the gradient of x needs of each column, dx = scale (dy - level - slope (x - mean) rstd): a vector of each of
/// these five after the other, so that they are one array to read beside dy and x, not five.
constexpr std::int64_t kTerms = 5;
constexpr std::int64_t terms_size(std::int64_t width) { return kTerms * padded_width(width); }

/// Completes the products, sums over all rows by now, and works out the terms. `share` is one over the number of rows.
void finish_sums(real* products, real* terms, const real* sums, const real* gain, const real* stats, real share,
                 std::int64_t width) {
    const D d;
    const Columns columns(stats, width);
    const auto each = Set(d, share);
    for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        const auto rstd = at.load(d, columns.rstd + i), rest = Mul(at.load(d, columns.rest + i), rstd);
        const auto sum = at.load(d, sums + i), product = NegMulAdd(rest, sum, at.load(d, products + i));
        at.store(product, d, products + i);
        const Vec<D> values[kTerms] = {at.load(d, columns.mean + i), rstd,
                                       Mul(rstd, load_or(at, d, gain, i, Set(d, real(1)))),
                                       Mul(NegMulAdd(rest, product, sum), each), Mul(product, each)};
        for (std::int64_t k = 0; k < kTerms; ++k)
            Store(values[k], d, terms + i * kTerms + k * static_cast<std::int64_t>(Lanes(d)));
    });
}

void input_gradient_rows(bool stream, Grad dx, const real* dy, const real* x, const real* terms,
                         bool constant_statistics, std::int64_t rows, std::int64_t width) {
    const D d;
    stream = stream && !dx.add && streamable(d, dx.data, width);
    const auto each = [=](auto n, std::int64_t row, std::int64_t begin, std::int64_t end) BALLAST_INLINE_LAMBDA {
        for_vectors_to(stream, d, end - begin, [=](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
            const std::int64_t i = begin + j;
            const auto term = [=](std::int64_t k) BALLAST_INLINE_LAMBDA {
                return Load(d, terms + i * kTerms + k * static_cast<std::int64_t>(Lanes(d)));
            };
            const auto mean = term(0), rstd = term(1), scale = term(2), level = term(3), slope = term(4);
            for (std::int64_t k = 0; k < n; ++k) {
                const std::int64_t element = (row + k) * width + i;
                auto g = at.load(d, dy + element);
                if (!constant_statistics) {
                    const auto opposite = Mul(Sub(mean, at.load(d, x + element)), rstd);
                    g = MulAdd(opposite, slope, Sub(g, level));
                }
                put(at, d, dx, element, Mul(g, scale));
            }
        });
    };
    if (stream)
        for_blocks(
            rows, width,
            [=](std::int64_t first, std::int64_t last) BALLAST_INLINE_LAMBDA {
                bring_in({x + first * width, dy + first * width}, (last - first) * width);
            },
            each);
    else
        for_rows(true, 0, rows, [=](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA { each(n, row, 0, width); });
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
HWY_EXPORT(finish_sums);
HWY_EXPORT(input_gradient_rows);

/// Rows of a group whose statistics are taken by one task; more of them where rows are long, as each group's take
/// memory, and time to be merged.
std::int64_t statistics_rows(std::int64_t rows, std::int64_t width) {
    const std::int64_t fewest = width < kLongRow ? 1 : std::min<std::int64_t>(256, rows / 16);
    return std::max(rows_per_group(rows, width), fewest);
}

/// Columns whose groups are merged in one task.
constexpr std::int64_t kStrip = 512;

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
    const std::int64_t group_rows = statistics_rows(rows, width), groups = (rows + group_rows - 1) / group_rows;
    auto* means = scratch.allocate<double>(groups * width);
    auto* squares = scratch.allocate<double>(groups * width);
    parallel_ranges(rows, group_rows, [=](std::int64_t begin, std::int64_t end) {
        const std::int64_t group = begin / group_rows;
        Arena& buffers = worker_scratch();
        const Arena::Mark task(buffers);
        const std::int64_t padded = padded_width(width);
        real* const centers = buffers.allocate<real>(padded);
        real* const rests = buffers.allocate<real>(padded);
        real* const sums = buffers.allocate<real>(padded);
        HWY_DYNAMIC_DISPATCH(group_moments)(means + group * width, squares + group * width, centers, rests, sums,
                                            x + begin * width, x, end - begin, width);
    });
    const auto e = static_cast<double>(eps);
    parallel_ranges(width, kStrip, [=](std::int64_t first, std::int64_t last) {
        HWY_DYNAMIC_DISPATCH(merge_groups)(means + first, squares + first, groups, group_rows, rows, width,
                                           last - first);
        for (std::int64_t i = first; i < last; ++i) {
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
    });
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
    auto* terms = scratch.allocate<real>(HWY_NAMESPACE::terms_size(width));
    HWY_DYNAMIC_DISPATCH(finish_sums)(products.data, terms, sums.data, gain, stats, 1 / static_cast<real>(rows), width);
    if (dx)
        parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
            HWY_DYNAMIC_DISPATCH(input_gradient_rows)(beyond_cache(rows * width), offset(dx, begin * width),
                                                      dy + begin * width, x + begin * width, terms, constant_statistics,
                                                      end - begin, width);
        });
    if (dgain) add_scaled(dgain, 1, products.data, width);
    if (dbias) add_scaled(dbias, 1, sums.data, width);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
