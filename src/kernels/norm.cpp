// Layer, RMS and scale normalization. A row is read from memory once and then worked on in the first-level cache.
//
// Forward, layer norm: one sweep for the sum, one for the sums of d = x - m and d^2, m the rounded mean; mean(d) is
// what the rounding of m left out, and x - mean = (x - m) - mean(d) keeps the digits of a small deviation on a large
// mean. Forward, RMS norm: one sweep. When the squares leave the range of `real` the row is done again, scaled.
//
// Backward: with xhat the normalized row and g = dy * gain, dx = rstd (g - mean(g) - xhat mean(g xhat)) (RMS norm: no
// mean(g)). Both norms share the code: RMS norm is the case without a mean. The sweep that takes the means also adds
// the row to the sums for gain and bias, which go to one partial buffer per group of rows; in a block of long rows the
// sweep that writes does so, for several rows at a time.
//
// Results that no cache can hold are written past the caches, which saves the reading of what is overwritten. Where
// long rows keep the first-level cache busy, the next ones are fetched by name. docs/performance.md has the figures.
//
// Scale norm is worked out as x over its RMS: the length of a long row leaves the range of `real` before its RMS does.

#include "ballast/kernels/norm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ballast/base/parallel.h"
#include "beyond_cache.h"
#include "moments.h"
#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/norm.cpp"
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

/// How many elements ahead of those worked on are fetched: the next of long rows, and enough of short ones that memory
/// is read while statistics are worked out. RMS and scale norm fetch while they write: what they read then is in the
/// first-level cache, where the sweep before would wait behind what is fetched.
HWY_INLINE std::int64_t elements_ahead(std::int64_t width) { return std::max(width, kLongRow); }

/// Short rows are taken in blocks, each step for the whole block: statistics are long chains of operations, and a
/// processor looks too few instructions ahead to work on many rows at once by itself. In larger blocks it would no
/// longer read from memory while it computes.
constexpr std::int64_t kBlockElements = 1024, kMostRows = 64;

/// What is known of the rows of a block, a number for each; vectors of numbers may reach beyond the last row.
struct Block {
    HWY_ALIGN real mean[kMostRows], rest[kMostRows], rstd[kMostRows];
};

/// body(tag, row) for vectors of the numbers of `rows` rows. Few rows' are short ones, so that they need not wait for
/// several stores of lane sums.
template <class Body>
HWY_INLINE void for_numbers(std::int64_t rows, Body&& body) {
    const D d;
    const CappedTag<real, kTogether> few;
    if (rows < static_cast<std::int64_t>(Lanes(d)))
        for (std::int64_t row = 0; row < rows; row += static_cast<std::int64_t>(Lanes(few)))
            body(few, row);
    else
        for (std::int64_t row = 0; row < rows; row += static_cast<std::int64_t>(Lanes(d)))
            body(d, row);
}

/// in_range of every number of a vector.
template <class D>
HWY_INLINE bool all_in_range(D d, Vec<D> mean_squares) {
    return AllTrue(d, And(Gt(mean_squares, Set(d, kSmallestMeanSquare)),
                          Lt(mean_squares, Set(d, std::numeric_limits<real>::infinity()))));
}

/// The means of `rows` rows, rounded.
HWY_INLINE void rounded_means(Block& block, const real* x, std::int64_t rows, std::int64_t width) {
    sums_of_rows<1>({block.mean}, rows, width,
                    [=](auto at, std::int64_t row, std::int64_t i, auto& sum)
                        BALLAST_INLINE_LAMBDA { sum[0] = Add(sum[0], at.load(D(), x + row * width + i)); });
    for_numbers(rows, [&](auto d, std::int64_t row) BALLAST_INLINE_LAMBDA {
        Store(Div(Load(d, block.mean + row), Set(d, static_cast<real>(width))), d, block.mean + row);
    });
}

/// What the rounding of the means left out, and rstd. Later rows are fetched here and not by the sweep that reads these
/// rows first, which is too short to wait for that.
HWY_INLINE void finish_statistics(Block& block, const real* x, std::int64_t rows, std::int64_t width, real eps) {
    const std::int64_t ahead = elements_ahead(width);
    sums_of_rows<2>({block.rest, block.rstd}, rows, width,
                    [&, ahead](auto at, std::int64_t row, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
                        const D d;
                        const real* const from = x + row * width + i;
                        fetch(from + ahead);
                        const auto deviation = at.keep(d, Sub(at.load(d, from), Set(d, block.mean[row])), Zero(d));
                        sum[0] = Add(sum[0], deviation);
                        sum[1] = MulAdd(deviation, deviation, sum[1]);
                    });
    HWY_ALIGN real mean_squares[kMostRows];
    bool is_done = true;
    for_numbers(rows, [&](auto d, std::int64_t row) BALLAST_INLINE_LAMBDA {
        const auto count = Set(d, static_cast<real>(width));
        const auto rest = Div(Load(d, block.rest + row), count);
        const auto variance = Sub(Div(Load(d, block.rstd + row), count), Mul(rest, rest));
        const auto mean_square = Add(IfThenZeroElse(Lt(variance, Zero(d)), variance), Set(d, eps)); // a NaN stays
        Store(rest, d, block.rest + row);
        Store(Div(Set(d, real(1)), Sqrt(mean_square)), d, block.rstd + row);
        Store(mean_square, d, mean_squares + row);
        is_done = is_done && all_in_range(d, mean_square);
    });
    if (is_done) return;
    for (std::int64_t row = 0; row < rows; ++row) {
        if (in_range(mean_squares[row])) continue;
        const Moments exact = scaled_moments(x + row * width, width, 1, true);
        block.mean[row] = static_cast<real>(exact.mean);
        block.rest[row] = static_cast<real>(exact.mean - static_cast<double>(block.mean[row]));
        block.rstd[row] = static_cast<real>(1 / std::hypot(exact.deviation, std::sqrt(static_cast<double>(eps))));
    }
}

/// Writes a block's statistics as they are kept. `stream`: past the caches where there are whole vectors of them.
HWY_INLINE void put_statistics(bool stream, real* stats, const Block& block, std::int64_t rows) {
    const D d;
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    std::int64_t k = 0;
    stream = stream && streamable(d, stats, lanes);
    for (; k + lanes <= rows; k += lanes) {
        real* const to = stats + k * kLayerNormStats;
        if (!stream) {
            StoreInterleaved3(Load(d, block.mean + k), Load(d, block.rest + k), Load(d, block.rstd + k), d, to);
            continue;
        }
        HWY_ALIGN real together[kLayerNormStats * MaxLanes(d)];
        StoreInterleaved3(Load(d, block.mean + k), Load(d, block.rest + k), Load(d, block.rstd + k), d, together);
        for (std::int64_t i = 0; i < kLayerNormStats * lanes; i += lanes)
            Stream(Load(d, together + i), d, to + i);
    }
    for (; k < rows; ++k) {
        real* const to = stats + k * kLayerNormStats;
        to[0] = block.mean[k];
        to[1] = block.rest[k];
        to[2] = block.rstd[k];
    }
}

void layernorm_rows(bool stream, real* y, real* stats, const real* x, const real* gain, const real* bias,
                    std::int64_t rows, std::int64_t width, real eps) {
    const D d;
    stream = stream && streamable(d, y, width);
    const std::int64_t most = std::clamp(kBlockElements / width, std::int64_t{1}, kMostRows);
    Block block = {};
    for (std::int64_t first = 0; first < rows; first += most) {
        const std::int64_t count = std::min(most, rows - first);
        const real* const from = x + first * width;
        real* const to = y + first * width;
        rounded_means(block, from, count, width);
        finish_statistics(block, from, count, width, eps);
        put_statistics(stream, stats + first * kLayerNormStats, block, count);
        for_rows(width <= kShortRow, 0, count, [&](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA {
            Vec<D> mean[n], rest[n], rstd[n];
            for (std::int64_t k = 0; k < n; ++k) {
                mean[k] = Set(d, block.mean[row + k]);
                rest[k] = Set(d, block.rest[row + k]);
                rstd[k] = Set(d, block.rstd[row + k]);
            }
            for_vectors_to(stream, d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                const auto g = load_or(at, d, gain, i, Set(d, real(1)));
                const auto b = load_or(at, d, bias, i, Zero(d));
                for (std::int64_t k = 0; k < n; ++k) {
                    const auto deviation = Sub(Sub(at.load(d, from + (row + k) * width + i), mean[k]), rest[k]);
                    at.store(MulAdd(Mul(deviation, rstd[k]), g, b), d, to + (row + k) * width + i);
                }
            });
        });
    }
    if (stream) hwy::FlushStream();
}

/// Mean of the squares of n elements.
HWY_INLINE real mean_square_of(const real* x, std::int64_t n) {
    const D d;
    const real squares = one_sum(d, n, [=](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
        const auto v = at.load(d, x + i);
        sum = MulAdd(v, v, sum);
    });
    return squares / static_cast<real>(n);
}

/// gain[i] + offset, or 1 without a gain.
template <class Access>
HWY_INLINE Vec<D> offset_gain(Access at, const real* gain, real offset, std::int64_t i) {
    const D d;
    return Add(load_or(at, d, gain, i, Set(d, 1 - offset)), Set(d, offset));
}

/// One over the RMS of a row whose mean square, with eps, is out of range.
real exact_rstd(const real* x, std::int64_t features, real eps) {
    return static_cast<real>(
        1 / std::hypot(scaled_moments(x, features, 1, false).deviation, std::sqrt(static_cast<double>(eps))));
}

/// Rows of RMS norm this short are taken in blocks, too; where memory is the limit, those above half of it few at a
/// time.
constexpr std::int64_t kShortestRow = 256 / sizeof(real);

/// One over the RMS of each of `rows` short rows; `rstds` is aligned and has room for whole vectors.
HWY_INLINE void short_rows_rstd(real* rstds, const real* x, std::int64_t rows, std::int64_t width,
                                std::int64_t features, real eps) {
    HWY_ALIGN real squares[kMostRows] = {};
    bool is_done = true;
    sums_of_rows<1>({squares}, rows, features,
                    [=](auto at, std::int64_t row, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
                        const auto v = at.load(D(), x + row * width + i);
                        sum[0] = MulAdd(v, v, sum[0]);
                    });
    for_numbers(rows, [&](auto d, std::int64_t row) BALLAST_INLINE_LAMBDA {
        const auto mean_square = Add(Div(Load(d, squares + row), Set(d, static_cast<real>(features))), Set(d, eps));
        Store(mean_square, d, squares + row);
        Store(Div(Set(d, real(1)), Sqrt(mean_square)), d, rstds + row);
        is_done = is_done && all_in_range(d, mean_square);
    });
    if (is_done) return;
    for (std::int64_t row = 0; row < rows; ++row)
        if (!in_range(squares[row])) rstds[row] = exact_rstd(x + row * width, features, eps);
}

void rmsnorm_rows(bool stream, real* y, real* rstds, const real* x, const real* gain, real gain_offset,
                  std::int64_t rows, std::int64_t width, std::int64_t features, real eps) {
    const D d;
    stream = stream && streamable(d, y, width);
    const std::int64_t ahead = elements_ahead(width);
    const bool is_short = width <= kShortestRow;
    const bool in_large_blocks = width <= (stream ? kShortestRow / 2 : kShortestRow);
    const std::int64_t most = in_large_blocks ? std::min(kBlockElements / width, kMostRows) : kTogether;
    const std::int64_t block = is_short ? most : 1;
    HWY_ALIGN real short_rstds[kMostRows];
    for (std::int64_t first = 0; first < rows; first += block) {
        const std::int64_t count = std::min(block, rows - first);
        real* const to = rstds + first;
        const real* const block_rstds = is_short ? short_rstds : to;
        if (is_short) {
            short_rows_rstd(short_rstds, x + first * width, count, width, features, eps);
            for_vectors_to(stream && streamable(d, to, count), d, count,
                           [&](auto at, std::int64_t i)
                               BALLAST_INLINE_LAMBDA { at.store(at.load(d, short_rstds + i), d, to + i); });
        } else {
            const real mean_square = mean_square_of(x + first * width, features) + eps;
            to[0] = in_range(mean_square) ? 1 / std::sqrt(mean_square) : exact_rstd(x + first * width, features, eps);
        }
        for_rows(width <= kShortRow, first, first + count, [&](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA {
            Vec<D> rstd[n];
            for (std::int64_t k = 0; k < n; ++k)
                rstd[k] = Set(d, block_rstds[row + k - first]);
            for_vectors_to(stream, d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                const auto g = offset_gain(at, gain, gain_offset, i);
                for (std::int64_t k = 0; k < n; ++k) {
                    const std::int64_t element = (row + k) * width + i;
                    fetch(x + element + ahead);
                    at.store(Mul(Mul(at.load(d, x + element), rstd[k]), g), d, y + element);
                }
            });
        });
    }
    if (stream) hwy::FlushStream();
}

void scalenorm_rows(bool stream, real* y, real* rstds, const real* x, real factor, std::int64_t rows,
                    std::int64_t width, double smallest_rms) {
    const D d;
    stream = stream && streamable(d, y, width);
    const std::int64_t ahead = elements_ahead(width);
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width) {
        const real mean_square = mean_square_of(x, width);
        const double rms = in_range(mean_square) ? std::sqrt(static_cast<double>(mean_square))
                                                 : scaled_moments(x, width, 1, false).deviation;
        rstds[row] = static_cast<real>(1 / std::max(rms, smallest_rms)); // in this order a NaN stays
        const auto rstd = Set(d, rstds[row]), g = Set(d, factor);
        for_vectors_to(stream, d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            fetch(x + i + ahead);
            at.store(Mul(Mul(at.load(d, x + i), rstd), g), d, y + i);
        });
    }
    if (stream) hwy::FlushStream();
}

/// A row in the backward pass. kCentered: layer norm, stats as it saves them; otherwise stats is rstd.
template <bool kCentered>
struct BackwardRow {
    static constexpr std::int64_t kStats = kCentered ? kLayerNormStats : 1;

    const real *x, *dy, *gain;
    real gain_offset;
    Vec<D> mean, correction, rstd;

    BackwardRow() = default;
    HWY_INLINE BackwardRow(const real* row_x, const real* row_dy, const real* gains, real offset, const real* stats)
        : x(row_x), dy(row_dy), gain(gains), gain_offset(offset), mean(Set(D(), stats[0])),
          correction(Set(D(), stats[kCentered ? 1 : 0])), rstd(Set(D(), stats[kCentered ? 2 : 0])) {}

    /// The normalized row, negated: mean - x is an instruction less than x - mean, as x need not be loaded before.
    template <class Access>
    HWY_INLINE Vec<D> opposite(Access at, std::int64_t i) const {
        const auto v = at.load(D(), x + i);
        return kCentered ? Mul(Add(Sub(mean, v), correction), rstd) : Mul(v, Neg(rstd));
    }
    /// dy times the gain.
    template <class Access>
    HWY_INLINE Vec<D> gained(Access at, std::int64_t i) const {
        const D d;
        return Mul(at.load(d, dy + i),
                   kCentered ? load_or(at, d, gain, i, Set(d, real(1))) : offset_gain(at, gain, gain_offset, i));
    }
};

/// What the gradient of a row's x needs beside the row: the means of g and of g times the normalized row.
struct RowMeans {
    real g, gx;
};

/// Takes a row's means, and adds the row to the sums for gain and bias, which may be null. RMS norm is that of the
/// first `features` elements.
template <bool kCentered>
HWY_INLINE RowMeans take_means(const BackwardRow<kCentered>& r, real* dgain, real* dbias, std::int64_t width,
                               std::int64_t features) {
    const D d;
    real g_sum = 0, gx_sum = 0;
    two_sums(d, width, g_sum, gx_sum, [&](auto at, std::int64_t i, auto& s, auto& sx) BALLAST_INLINE_LAMBDA {
        // Past the end of the row dy is 0, but 0 times an xhat that is not finite would not be.
        const auto opposite = at.keep(d, r.opposite(at, i), Zero(d));
        const auto v = at.load(d, r.dy + i), g = r.gained(at, i);
        s = Add(s, g);
        sx = NegMulAdd(g, opposite, sx);
        if (dgain != nullptr) StoreU(NegMulAdd(v, opposite, LoadU(d, dgain + i)), d, dgain + i);
        if (dbias != nullptr) StoreU(Add(v, LoadU(d, dbias + i)), d, dbias + i);
    });
    return {kCentered ? g_sum / static_cast<real>(width) : real(0), gx_sum / static_cast<real>(features)};
}

/// The gradient of a row's x, whose first element is that at `to`.
template <bool kCentered>
HWY_INLINE void put_input_gradient(bool stream, Grad dx, std::int64_t to, const BackwardRow<kCentered>& r,
                                   const RowMeans& means, std::int64_t width, std::int64_t features) {
    const D d;
    const auto g_mean = Set(d, means.g), gx_mean = Set(d, means.gx);
    for_vectors_to(stream, d, features, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        const auto g = r.gained(at, i), centered = kCentered ? Sub(g, g_mean) : g;
        put(at, d, dx, to + i, Mul(MulAdd(r.opposite(at, i), gx_mean, centered), r.rstd));
    });
    for_vectors(d, width - features, [&](auto at, std::int64_t j) BALLAST_INLINE_LAMBDA {
        const std::int64_t i = features + j;
        put(at, d, dx, to + i, Mul(r.gained(at, i), r.rstd));
    });
}

/// The gradients of kRows rows' x, the first element that at `to`, side by side, and their share of the sums for gain
/// and bias: what belongs to the columns, which the first-level cache cannot keep beside long rows, is read once for
/// all of them.
template <bool kCentered, int kRows>
HWY_INLINE void put_gradients(bool stream, Grad dx, std::int64_t to, real* dgain, real* dbias, const real* dy,
                              const real* x, const real* gain, real gain_offset, const real* stats,
                              const RowMeans* means, std::int64_t width) {
    using Row = BackwardRow<kCentered>;
    const D d;
    Row row[kRows];
    Vec<D> g_mean[kRows], gx_mean[kRows];
    for (int k = 0; k < kRows; ++k) {
        row[k] = Row(x + k * width, dy + k * width, gain, gain_offset, stats + k * Row::kStats);
        g_mean[k] = Set(d, means[k].g);
        gx_mean[k] = Set(d, means[k].gx);
    }
    for_vectors_to(stream, d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        auto products = dgain != nullptr ? LoadU(d, dgain + i) : Zero(d);
        auto sums = dbias != nullptr ? LoadU(d, dbias + i) : Zero(d);
        for (int k = 0; k < kRows; ++k) {
            const auto opposite = row[k].opposite(at, i);
            const auto v = at.load(d, row[k].dy + i), g = row[k].gained(at, i);
            put(at, d, dx, to + k * width + i,
                Mul(MulAdd(opposite, gx_mean[k], kCentered ? Sub(g, g_mean[k]) : g), row[k].rstd));
            products = NegMulAdd(v, opposite, products);
            sums = Add(v, sums);
        }
        if (dgain != nullptr) StoreU(products, d, dgain + i);
        if (dbias != nullptr) StoreU(sums, d, dbias + i);
    });
}

/// Long rows are taken in blocks that the second-level cache keeps, means first: then memory is read in order, in a
/// sweep that has as little else to do as can be.
template <bool kCentered>
HWY_INLINE void long_rows_backward(bool stream, Grad dx, real* dgain, real* dbias, const real* dy, const real* x,
                                   const real* gain, real gain_offset, const real* stats, std::int64_t rows,
                                   std::int64_t width) {
    using Row = BackwardRow<kCentered>;
    constexpr std::int64_t kElements = (128 << 10) / sizeof(real), kMost = 16;
    const std::int64_t block = std::clamp(kElements / width / kTogether * kTogether, kTogether, kMost);
    RowMeans means[kMost];
    for (std::int64_t first = 0; first < rows; first += block) {
        const std::int64_t end = std::min(first + block, rows);
        for (std::int64_t row = first; row < end; ++row)
            means[row - first] =
                take_means(Row(x + row * width, dy + row * width, gain, gain_offset, stats + row * Row::kStats),
                           nullptr, nullptr, width, width);
        for_rows(true, first, end, [&](auto n, std::int64_t row) BALLAST_INLINE_LAMBDA {
            put_gradients<kCentered, n>(stream, dx, row * width, dgain, dbias, dy + row * width, x + row * width, gain,
                                        gain_offset, stats + row * Row::kStats, means + (row - first), width);
        });
    }
}

/// Backward of `rows` rows: in blocks where they are at least `long_row` wide, or, where no cache holds the matrix,
/// half of that; the results are the same bits. dgain and dbias are this group's own sums, or null.
template <bool kCentered>
HWY_INLINE void norm_backward_rows(std::int64_t long_row, bool stream, Grad dx, real* dgain, real* dbias,
                                   const real* dy, const real* x, const real* gain, real gain_offset, const real* stats,
                                   std::int64_t rows, std::int64_t width, std::int64_t features) {
    using Row = BackwardRow<kCentered>;
    const bool in_blocks = dx && features == width && width >= (stream ? long_row / 2 : long_row);
    stream = stream && dx && !dx.add && features == width && streamable(D(), dx.data, width);
    for (real* sums : {dgain, dbias})
        if (sums != nullptr) std::fill_n(sums, padded_width(width), real(0));
    if (in_blocks) {
        long_rows_backward<kCentered>(stream, dx, dgain, dbias, dy, x, gain, gain_offset, stats, rows, width);
    } else {
        for (std::int64_t row = 0; row < rows; ++row) {
            const Row r(x + row * width, dy + row * width, gain, gain_offset, stats + row * Row::kStats);
            const RowMeans means = take_means(r, dgain, dbias, width, features);
            if (dx) put_input_gradient(stream, dx, row * width, r, means, width, features);
        }
    }
    if (stream) hwy::FlushStream();
}

void layernorm_backward_rows(bool stream, Grad dx, real* dgain, real* dbias, const real* dy, const real* x,
                             const real* gain, const real* stats, std::int64_t rows, std::int64_t width) {
    norm_backward_rows<true>(kLongRow, stream, dx, dgain, dbias, dy, x, gain, 0, stats, rows, width, width);
}

void rmsnorm_backward_rows(bool stream, Grad dx, real* dgain, const real* dy, const real* x, const real* gain,
                           real gain_offset, const real* rstd, std::int64_t rows, std::int64_t width,
                           std::int64_t features) {
    // Without a bias's sums there is room for longer rows in the first-level cache.
    norm_backward_rows<false>(2 * kLongRow, stream, dx, dgain, nullptr, dy, x, gain, gain_offset, rstd, rows, width,
                              features);
}

/// With c the factor and xhat the row over its RMS: dx = c rstd (dy - xhat mean(dy xhat)), or c rstd dy where the RMS
/// is not above the least. Returns the sum of dy xhat over all rows.
double scalenorm_backward_rows(bool stream, Grad dx, const real* dy, const real* x, real factor, const real* rstds,
                               std::int64_t rows, std::int64_t width, real largest_rstd) {
    const D d;
    stream = stream && dx && !dx.add && streamable(d, dx.data, width);
    double total = 0;
    for (std::int64_t row = 0; row < rows; ++row, x += width, dy += width) {
        const auto rstd = Set(d, rstds[row]);
        const std::int64_t next = width >= kLongRow && row + 1 < rows ? width : 0; // 0: not fetched
        const real sum = one_sum(d, width, [=](auto at, std::int64_t i, auto& s) BALLAST_INLINE_LAMBDA {
            if (next > 0) {
                fetch(x + next + i);
                fetch(dy + next + i);
            }
            const auto xhat = at.keep(d, Mul(at.load(d, x + i), rstd), Zero(d));
            s = MulAdd(at.load(d, dy + i), xhat, s);
        });
        total += static_cast<double>(sum);
        if (!dx) continue;
        const auto mean = Set(d, rstds[row] >= largest_rstd ? real(0) : sum / static_cast<real>(width));
        const auto scale = Set(d, factor * rstds[row]);
        for_vectors_to(stream, d, width, [&](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto xhat = Mul(at.load(d, x + i), rstd);
            put(at, d, dx, row * width + i, Mul(NegMulAdd(xhat, mean, at.load(d, dy + i)), scale));
        });
    }
    if (stream) hwy::FlushStream();
    return total;
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(layernorm_rows);
HWY_EXPORT(layernorm_backward_rows);
HWY_EXPORT(rmsnorm_rows);
HWY_EXPORT(rmsnorm_backward_rows);
HWY_EXPORT(scalenorm_rows);
HWY_EXPORT(scalenorm_backward_rows);

/// The least RMS of a row by which scalenorm divides: one over it is finite, as 0 times infinity would be no number.
double smallest_rms(real eps, std::int64_t width) {
    constexpr double kFinite = 1.01 / static_cast<double>(std::numeric_limits<real>::max());
    return std::max(static_cast<double>(eps) / std::sqrt(static_cast<double>(width)), kFinite);
}

/// The gain of rows that are divided by their RMS rather than by their length.
real rms_factor(real gain, std::int64_t width) {
    return static_cast<real>(static_cast<double>(gain) / std::sqrt(static_cast<double>(width)));
}

} // namespace

void layernorm_forward(real* y, real* stats, const real* x, const real* gain, const real* bias, std::int64_t rows,
                       std::int64_t width, real eps) {
    parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(layernorm_rows)(beyond_cache(rows * width), y + begin * width,
                                             stats + begin * kLayerNormStats, x + begin * width, gain, bias,
                                             end - begin, width, eps);
    });
}

void layernorm_backward(Grad dx, Grad dgain, Grad dbias, const real* dy, const real* x, const real* gain,
                        const real* stats, std::int64_t rows, std::int64_t width, Arena& scratch) {
    sum_over_rows({dgain, dbias}, rows, width, scratch,
                  [=](std::int64_t, std::int64_t begin, std::int64_t end, real* const* sums) {
                      HWY_DYNAMIC_DISPATCH(layernorm_backward_rows)(
                          beyond_cache(rows * width), offset(dx, begin * width), sums[0], sums[1], dy + begin * width,
                          x + begin * width, gain, stats + begin * kLayerNormStats, end - begin, width);
                  });
}

std::int64_t rms_features(double partial, std::int64_t width) {
    const double features = partial * static_cast<double>(width);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(std::ceil(features * (1 - 1e-12))), 1, width);
}

void rmsnorm_forward(real* y, real* rstd, const real* x, const real* gain, std::int64_t rows, std::int64_t width,
                     real eps, const RmsNormOptions& options) {
    const std::int64_t features = rms_features(options.partial, width);
    const real gain_offset = options.unit_offset ? 1 : 0;
    parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(rmsnorm_rows)(beyond_cache(rows * width), y + begin * width, rstd + begin,
                                           x + begin * width, gain, gain_offset, end - begin, width, features, eps);
    });
}

void rmsnorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, const real* gain, const real* rstd,
                      std::int64_t rows, std::int64_t width, Arena& scratch, const RmsNormOptions& options) {
    const std::int64_t features = rms_features(options.partial, width);
    const real gain_offset = options.unit_offset ? 1 : 0;
    sum_over_rows(
        {dgain}, rows, width, scratch, [=](std::int64_t, std::int64_t begin, std::int64_t end, real* const* sums) {
            HWY_DYNAMIC_DISPATCH(rmsnorm_backward_rows)(beyond_cache(rows * width), offset(dx, begin * width), sums[0],
                                                        dy + begin * width, x + begin * width, gain, gain_offset,
                                                        rstd + begin, end - begin, width, features);
        });
}

void scalenorm_forward(real* y, real* rstd, const real* x, real gain, std::int64_t rows, std::int64_t width, real eps) {
    const real factor = rms_factor(gain, width);
    const double least = smallest_rms(eps, width);
    parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(scalenorm_rows)(beyond_cache(rows * width), y + begin * width, rstd + begin,
                                             x + begin * width, factor, end - begin, width, least);
    });
}

void scalenorm_backward(Grad dx, Grad dgain, const real* dy, const real* x, real gain, const real* rstd,
                        std::int64_t rows, std::int64_t width, real eps, Arena& scratch) {
    const Arena::Mark mark(scratch);
    const std::int64_t groups = row_groups(rows, width);
    auto* sums = scratch.allocate<double>(groups);
    const real factor = rms_factor(gain, width);
    const real largest_rstd = static_cast<real>(1 / smallest_rms(eps, width));
    for_row_groups(rows, width, [=](std::int64_t group, std::int64_t begin, std::int64_t end) {
        const double sum = HWY_DYNAMIC_DISPATCH(scalenorm_backward_rows)(
            beyond_cache(rows * width), offset(dx, begin * width), dy + begin * width, x + begin * width, factor,
            rstd + begin, end - begin, width, largest_rstd);
        sums[group] = sum / std::sqrt(static_cast<double>(width));
    });
    add_in_order(dgain, sums, groups);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
