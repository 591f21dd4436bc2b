// The micro-kernel holds a tile of C in registers, kRows rows of two vectors, and adds to it one column of op(A) times
// one row of a panel at a time: a multiply-add for every vector, an operand from memory for every other one. A band of
// op(A), as many rows, stays in the first-level cache while all panels pass by from the second-level one.
// op(A) is read where it is. Copying it first, too, as is usual, cost more than it gained in every product of a
// training step, also where it is transposed and every term lies on another page: there are huge pages.

#include "gemm_panels.h"

#include <algorithm>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/gemm_panels.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;
using V = Vec<D>;

constexpr std::int64_t kVectors = 2;
/// As many rows as have registers for their sums, beside one row of the panel and an element of A: of 32, or of 16.
constexpr std::int64_t kRows = HWY_MAX_BYTES == 64 ? 12 : HWY_ARCH_ARM ? 8 : 6;

constexpr std::int64_t kCacheLine = 64 / sizeof(real);
/// How far ahead of what is copied memory is fetched: rows, of which a piece each is copied, or elements of a row.
constexpr std::int64_t kPrefetchRows = 8;
constexpr std::int64_t kPrefetchTerms = 4 * kCacheLine;
/// Terms between two steps of FetchAhead.
constexpr std::int64_t kFetchTerms = 64;

/// Into the second-level cache: where rows are a power of two apart, the first one has room for few of them.
HWY_INLINE void fetch_for_later(const real* address) { __builtin_prefetch(address, 0, 2); }

HWY_INLINE std::int64_t lanes() { return static_cast<std::int64_t>(Lanes(D())); }
HWY_INLINE std::int64_t panel_columns() { return kVectors * lanes(); }

std::int64_t size_of_panels(std::int64_t n, std::int64_t k) {
    return (n + panel_columns() - 1) / panel_columns() * panel_columns() * k;
}

/// What becomes of a tile of sums.
struct Result {
    real* c;
    std::int64_t stride;
    real alpha;
    real beta;
};

/// body(0), body(1) ... body(kTimes - 1), each with a constant: what they index stays in registers.
template <std::int64_t kTimes, class Body>
HWY_INLINE void unrolled(Body&& body) {
    [&]<std::int64_t... kIndex>(std::integer_sequence<std::int64_t, kIndex...>) BALLAST_INLINE_LAMBDA {
        (body(std::integral_constant<std::int64_t, kIndex>()), ...);
    }
    (std::make_integer_sequence<std::int64_t, kTimes>());
}

/// Rows [0, kCount) and columns [0, columns) of C; `columns` ends in the last of kWidth vectors. Element (r, i) of
/// op(A) is a[r * stride + i], or a[r + i * stride] when it is transposed.
template <std::int64_t kCount, std::int64_t kWidth, bool kTransposed>
void multiply_tile(std::int64_t k, const real* HWY_RESTRICT a, std::int64_t stride, const real* HWY_RESTRICT panel,
                   const Result& result, std::int64_t columns, FetchAhead& ahead) {
    const D d;
    const auto each_vector = [](auto body) BALLAST_INLINE_LAMBDA {
        unrolled<kCount>(
            [&](auto r) BALLAST_INLINE_LAMBDA { unrolled<kWidth>([&](auto v) BALLAST_INLINE_LAMBDA { body(r, v); }); });
    };
    V sums[kCount][kWidth];
    each_vector([&](auto r, auto v) BALLAST_INLINE_LAMBDA {
        hwy::Prefetch(result.c + r * result.stride + v * lanes());
        sums[r][v] = Zero(d);
    });
    for (; k > 0; k -= kFetchTerms) {
        ahead.step();
        for (std::int64_t i = std::min(k, kFetchTerms); i > 0; --i) {
            V b[kWidth];
            unrolled<kWidth>([&](auto v) BALLAST_INLINE_LAMBDA { b[v] = Load(d, panel + v * lanes()); });
            unrolled<kCount>([&](auto r) BALLAST_INLINE_LAMBDA {
                const auto element = Set(d, kTransposed ? a[r] : a[r * stride]);
                unrolled<kWidth>([&](auto v) BALLAST_INLINE_LAMBDA { sums[r][v] = MulAdd(element, b[v], sums[r][v]); });
            });
            // The next band: processors do not foresee strides as long as rows.
            if (kTransposed) hwy::Prefetch(a + kRows);
            panel += panel_columns();
            a += kTransposed ? stride : 1;
        }
    }
    const auto alpha = Set(d, result.alpha), beta = Set(d, result.beta);
    // `access` is that to the vectors at the end of a row.
    const auto store = [&](auto access) BALLAST_INLINE_LAMBDA {
        each_vector([&](auto r, auto v) BALLAST_INLINE_LAMBDA {
            real* const at = result.c + r * result.stride + v * lanes();
            const V sum = Mul(sums[r][v], alpha);
            if constexpr (v + 1 < kWidth)
                StoreU(result.beta != 0 ? MulAdd(LoadU(d, at), beta, sum) : sum, d, at);
            else
                access.store(result.beta != 0 ? MulAdd(access.load(d, at), beta, sum) : sum, d, at);
        });
    };
    const std::int64_t last_count = columns - (kWidth - 1) * lanes();
    if (last_count == lanes())
        store(Whole{});
    else
        store(Part{static_cast<std::size_t>(last_count)});
}

/// All panels times `rows` rows of op(A), at most kCount.
template <std::int64_t kCount, bool kTransposed>
void multiply_band(std::int64_t rows, std::int64_t n, std::int64_t k, const real* a, std::int64_t stride,
                   const real* panels, Result result, FetchAhead& ahead) {
    if constexpr (kCount > 1)
        if (rows < kCount) return multiply_band<kCount - 1, kTransposed>(rows, n, k, a, stride, panels, result, ahead);
    for (; n > 0; n -= panel_columns(), panels += panel_columns() * k, result.c += panel_columns()) {
        if (n > lanes())
            multiply_tile<kCount, kVectors, kTransposed>(k, a, stride, panels, result, std::min(n, panel_columns()),
                                                         ahead);
        else
            multiply_tile<kCount, 1, kTransposed>(k, a, stride, panels, result, n, ahead);
    }
}

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const real* panels,
              real beta, real* c, std::int64_t c_stride, FetchAhead ahead) {
    const auto parts = [](std::int64_t extent, std::int64_t size) { return (extent + size - 1) / size; };
    ahead.spread(parts(m, kRows) * parts(n, panel_columns()) * parts(k, kFetchTerms));
    for (std::int64_t row = 0; row < m; row += kRows) {
        const std::int64_t rows = std::min(kRows, m - row);
        const Result result{c + row * c_stride, c_stride, alpha, beta};
        if (a.transposed)
            multiply_band<kRows, true>(rows, n, k, a.data + row, a.stride, panels, result, ahead);
        else
            multiply_band<kRows, false>(rows, n, k, a.data + row * a.stride, a.stride, panels, result, ahead);
    }
}

/// The panels of rows of memory: op(B) = B. A row goes into all of them before the next, as long rows are read faster.
HWY_INLINE void copy_panels(real* panels, const real* b, std::int64_t stride, std::int64_t n, std::int64_t k) {
    const D d;
    for (std::int64_t i = 0; i < k; ++i, b += stride, panels += panel_columns()) {
        const real* const ahead = b + std::min(kPrefetchRows, k - 1 - i) * stride;
        for (std::int64_t j = 0; j < n; j += kCacheLine)
            fetch_for_later(ahead + j);
        real* panel = panels;
        for (std::int64_t column = 0; column < n; column += panel_columns(), panel += panel_columns() * k)
            for (std::int64_t v = 0; v < kVectors; ++v) {
                const real* const from = b + column + v * lanes();
                const std::int64_t count = std::clamp<std::int64_t>(n - column - v * lanes(), 0, lanes());
                Store(count == lanes() ? LoadU(d, from) : Part{static_cast<std::size_t>(count)}.load(d, from), d,
                      panel + v * lanes());
            }
    }
}

/// Small blocks, in 16 bytes a row, for transposing: of four floats, or of two doubles.
constexpr std::int64_t kBlock = HWY_TARGET == HWY_SCALAR ? 1 : 16 / sizeof(real);

/// to[i, j] = from[j, i] for a block of as many rows and columns as `d` has lanes.
template <class BlockTag>
HWY_INLINE void transpose_block(BlockTag d, real* to, std::int64_t to_stride, const real* from,
                                std::int64_t from_stride) {
    if constexpr (kBlock == 1) {
        *to = *from;
    } else if constexpr (kBlock == 4) {
        const RepartitionToWide<BlockTag> wide;
        const auto r0 = LoadU(d, from), r1 = LoadU(d, from + from_stride), r2 = LoadU(d, from + 2 * from_stride),
                   r3 = LoadU(d, from + 3 * from_stride);
        const auto low01 = BitCast(wide, InterleaveLower(d, r0, r1)), low23 = BitCast(wide, InterleaveLower(d, r2, r3));
        const auto high01 = BitCast(wide, InterleaveUpper(d, r0, r1)),
                   high23 = BitCast(wide, InterleaveUpper(d, r2, r3));
        Store(BitCast(d, InterleaveLower(wide, low01, low23)), d, to);
        Store(BitCast(d, InterleaveUpper(wide, low01, low23)), d, to + to_stride);
        Store(BitCast(d, InterleaveLower(wide, high01, high23)), d, to + 2 * to_stride);
        Store(BitCast(d, InterleaveUpper(wide, high01, high23)), d, to + 3 * to_stride);
    } else {
        const auto r0 = LoadU(d, from), r1 = LoadU(d, from + from_stride);
        Store(InterleaveLower(d, r0, r1), d, to);
        Store(InterleaveUpper(d, r0, r1), d, to + to_stride);
    }
}

/// A panel of columns of memory: op(B) = B^T; `next_columns` belong to the panel that follows. A cache line of each row
/// of memory at a time, for which all of its part of the panel stays in the first-level cache.
HWY_INLINE void transpose_panel(real* panel, const real* b, std::int64_t stride, std::int64_t columns, std::int64_t k,
                                std::int64_t next_columns) {
    const std::int64_t width = panel_columns();
    const std::int64_t whole_columns = columns / kBlock * kBlock, whole_lines = k / kCacheLine * kCacheLine;
    for (std::int64_t line = 0; line < whole_lines; line += kCacheLine) {
        const bool ends = line + kPrefetchTerms >= k;
        const real* const ahead = b + line + kPrefetchTerms + (ends ? width * stride - k : 0);
        for (std::int64_t j = 0; j < (ends ? next_columns : columns); ++j)
            fetch_for_later(ahead + j * stride);
        for (std::int64_t j = 0; j < whole_columns; j += kBlock)
            for (std::int64_t i = line; i < line + kCacheLine; i += kBlock)
                transpose_block(CappedTag<real, kBlock>(), panel + i * width + j, width, b + j * stride + i, stride);
    }
    for (std::int64_t j = 0; j < width; ++j)
        for (std::int64_t i = j < whole_columns ? whole_lines : 0; i < k; ++i)
            panel[i * width + j] = j < columns ? b[j * stride + i] : 0;
}

void pack(real* panels, const MatrixRef& b, std::int64_t n, std::int64_t k) {
    if (!b.transposed) return copy_panels(panels, b.data, b.stride, n, k);
    for (std::int64_t column = 0; column < n; column += panel_columns(), panels += panel_columns() * k) {
        const std::int64_t columns = std::min(panel_columns(), n - column);
        const std::int64_t next_columns = std::min(panel_columns(), n - column - columns);
        transpose_panel(panels, b.data + column * b.stride, b.stride, columns, k, next_columns);
    }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {
HWY_EXPORT(size_of_panels);
HWY_EXPORT(pack);
HWY_EXPORT(multiply);
} // namespace

std::int64_t panels_size(std::int64_t n, std::int64_t k) { return HWY_DYNAMIC_DISPATCH(size_of_panels)(n, k); }

void pack_panels(real* panels, const MatrixRef& b, std::int64_t n, std::int64_t k) {
    HWY_DYNAMIC_DISPATCH(pack)(panels, b, n, k);
}

void multiply_panels(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const real* panels,
                     real beta, real* c, std::int64_t c_stride, FetchAhead ahead) {
    HWY_DYNAMIC_DISPATCH(multiply)(m, n, k, alpha, a, panels, beta, c, c_stride, ahead);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
