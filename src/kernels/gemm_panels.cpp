// The micro-kernel holds a tile of C in registers, kRows rows of two vectors, and adds to it one column of op(A) times
// one row of a panel at a time: a multiply-add for every vector, an operand from memory for every other one. A band of
// op(A), as many rows, stays in the first-level cache while all panels pass by from the second-level one.
// op(A) is read where it is. Copying it first, too, as is usual, cost more than it gained in every product of a
// training step, also where it is transposed and every term lies on another page: there are huge pages.
// op(B) is packed while the first band is multiplied, in the places that multiply-adds leave free.

#include "gemm_panels.h"

#include <algorithm>
#include <type_traits>
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
constexpr std::int64_t kFetchTerms = 32;

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

/// Small blocks, in 16 bytes a row, for transposing: of four floats, or of two doubles.
constexpr std::int64_t kBlock = HWY_TARGET == HWY_SCALAR ? 1 : 16 / sizeof(real);

/// Transposes every block of as many rows: rows[i] has row i of each.
HWY_INLINE void transpose_blocks(auto d, Vec<decltype(d)> (&rows)[kBlock]) {
    if constexpr (kBlock == 4) {
        const RepartitionToWide<decltype(d)> wide;
        const auto low01 = BitCast(wide, InterleaveLower(d, rows[0], rows[1]));
        const auto low23 = BitCast(wide, InterleaveLower(d, rows[2], rows[3]));
        const auto high01 = BitCast(wide, InterleaveUpper(d, rows[0], rows[1]));
        const auto high23 = BitCast(wide, InterleaveUpper(d, rows[2], rows[3]));
        rows[0] = BitCast(d, InterleaveLower(wide, low01, low23));
        rows[1] = BitCast(d, InterleaveUpper(wide, low01, low23));
        rows[2] = BitCast(d, InterleaveLower(wide, high01, high23));
        rows[3] = BitCast(d, InterleaveUpper(wide, high01, high23));
    } else if constexpr (kBlock == 2) {
        const auto lower = InterleaveLower(d, rows[0], rows[1]);
        rows[1] = InterleaveUpper(d, rows[0], rows[1]);
        rows[0] = lower;
    }
}

// Packers: pack() writes the next kTerms terms of a panel; their number divides that of all terms.

/// For a panel that is there already.
struct Packed {
    static constexpr std::int64_t kTerms = 1;
    HWY_INLINE void pack(real* /*panel*/) {}
};

/// Packs rows of memory: op(B) = B.
struct CopyRows {
    static constexpr std::int64_t kTerms = 1;
    const real* from;
    std::int64_t stride;

    HWY_INLINE void pack(real* panel) {
        const D d;
        for (std::int64_t v = 0; v < kVectors; ++v) {
            fetch(from + kPrefetchRows * stride + v * lanes());
            Store(LoadU(d, from + v * lanes()), d, panel + v * lanes());
        }
        from += stride;
    }
};

/// The blocks of a vector, `stride` apart.
HWY_INLINE void store_blocks(auto d, Vec<decltype(d)> v, real* to, std::int64_t stride) {
    if constexpr (MaxLanes(d) <= kBlock) {
        Store(v, d, to);
    } else {
        const Half<decltype(d)> half;
        store_blocks(half, LowerHalf(half, v), to, stride);
        store_blocks(half, UpperHalf(half, v), to + static_cast<std::int64_t>(Lanes(half)) / kBlock * stride, stride);
    }
}

/// A cache line of each of `columns` rows of memory, whole blocks of them, becomes columns of a panel. A line is read
/// once: where rows are a power of two apart, the first-level cache has room for few of them. What lies `ahead` of it
/// is fetched.
HWY_INLINE void transpose_lines(auto d, real* panel, const real* from, std::int64_t stride, std::int64_t columns,
                                std::int64_t ahead) {
    for (std::int64_t column = 0; column < columns; column += kBlock)
        for (std::int64_t i = 0; i < kCacheLine; i += static_cast<std::int64_t>(Lanes(d))) {
            Vec<decltype(d)> rows[kBlock];
            for (std::int64_t row = 0; row < kBlock; ++row) {
                const real* const at = from + (column + row) * stride + i;
                fetch(at + ahead);
                rows[row] = LoadU(d, at);
            }
            transpose_blocks(d, rows);
            for (std::int64_t row = 0; row < kBlock; ++row)
                store_blocks(d, rows[row], panel + (i + row) * panel_columns() + column, kBlock * panel_columns());
        }
}

/// Packs columns of memory: op(B) = B^T.
struct TransposeColumns {
    static constexpr std::int64_t kTerms = kCacheLine;
    const real* from;
    std::int64_t stride;

    HWY_INLINE void pack(real* panel) {
        transpose_lines(D(), panel, from, stride, panel_columns(), kPrefetchTerms);
        from += kTerms;
    }
};

/// Rows [0, kCount) and columns [0, columns) of C; `columns` ends in the last of kWidth vectors. Element (r, i) of
/// op(A) is a[r * stride + i], or a[r + i * stride] when it is transposed. `packer` writes the panel where that is not
/// done yet. k is above 0.
template <std::int64_t kCount, std::int64_t kWidth, bool kTransposed, class Packer>
void multiply_tile(std::int64_t k, const real* HWY_RESTRICT a, std::int64_t stride, real* panel, const Result& result,
                   std::int64_t columns, FetchAhead& ahead, Packer packer) {
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
    static_assert(kFetchTerms % Packer::kTerms == 0);
    packer.pack(panel);
    for (; k > 0; k -= kFetchTerms) {
        ahead.step();
        for (std::int64_t i = std::min(k, kFetchTerms); i > 0; i -= Packer::kTerms) {
            // The terms after these: a vector cannot be read from parts that are just being stored.
            if (i > Packer::kTerms || k > kFetchTerms) packer.pack(panel + Packer::kTerms * panel_columns());
            for (std::int64_t term = 0; term < Packer::kTerms; ++term) {
                V b[kWidth];
                unrolled<kWidth>([&](auto v) BALLAST_INLINE_LAMBDA { b[v] = Load(d, panel + v * lanes()); });
                unrolled<kCount>([&](auto r) BALLAST_INLINE_LAMBDA {
                    const auto element = Set(d, kTransposed ? a[r] : a[r * stride]);
                    unrolled<kWidth>([&](auto v)
                                         BALLAST_INLINE_LAMBDA { sums[r][v] = MulAdd(element, b[v], sums[r][v]); });
                });
                // The next band: processors do not foresee strides as long as rows.
                if (kTransposed) hwy::Prefetch(a + kRows);
                panel += panel_columns();
                a += kTransposed ? stride : 1;
            }
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

/// The panels of rows of memory: op(B) = B. A row goes into all of them before the next, as long rows are read faster.
HWY_INLINE void copy_panels(real* panels, const real* b, std::int64_t stride, std::int64_t n, std::int64_t k) {
    const D d;
    for (std::int64_t i = 0; i < k; ++i, b += stride, panels += panel_columns()) {
        const real* const ahead = b + std::min(kPrefetchRows, k - 1 - i) * stride;
        for (std::int64_t j = 0; j < n; j += kCacheLine)
            fetch(ahead + j);
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

/// A panel of columns of memory: op(B) = B^T.
HWY_INLINE void transpose_panel(real* panel, const real* b, std::int64_t stride, std::int64_t columns, std::int64_t k) {
    const std::int64_t width = panel_columns();
    const std::int64_t whole_columns = columns / kBlock * kBlock, whole_lines = k / kCacheLine * kCacheLine;
    for (std::int64_t line = 0; line < whole_lines; line += kCacheLine)
        transpose_lines(CappedTag<real, kBlock>(), panel + line * width, b + line, stride, whole_columns,
                        line + kPrefetchTerms < k ? kPrefetchTerms : kPrefetchTerms - k + width * stride); // next panel
    for (std::int64_t j = 0; j < width; ++j)
        for (std::int64_t i = j < whole_columns ? whole_lines : 0; i < k; ++i)
            panel[i * width + j] = j < columns ? b[j * stride + i] : 0;
}

void pack(real* panels, const MatrixRef& b, std::int64_t n, std::int64_t k) {
    if (!b.transposed) return copy_panels(panels, b.data, b.stride, n, k);
    for (std::int64_t column = 0; column < n; column += panel_columns(), panels += panel_columns() * k)
        transpose_panel(panels, b.data + column * b.stride, b.stride, std::min(panel_columns(), n - column), k);
}

/// All panels times `rows` rows of op(A), at most kCount.
template <std::int64_t kCount, bool kTransposed>
void multiply_band(std::int64_t rows, std::int64_t n, std::int64_t k, const real* a, std::int64_t stride, real* panels,
                   Result result, FetchAhead& ahead) {
    if constexpr (kCount > 1)
        if (rows < kCount) return multiply_band<kCount - 1, kTransposed>(rows, n, k, a, stride, panels, result, ahead);
    for (; n > 0; n -= panel_columns(), panels += panel_columns() * k, result.c += panel_columns()) {
        if (n > lanes())
            multiply_tile<kCount, kVectors, kTransposed>(k, a, stride, panels, result, std::min(n, panel_columns()),
                                                         ahead, Packed());
        else
            multiply_tile<kCount, 1, kTransposed>(k, a, stride, panels, result, n, ahead, Packed());
    }
}

/// The panels of the whole op(B) times a whole band of op(A), which packs them.
template <bool kTransposed, class Packer>
void multiply_first_band(std::int64_t n, std::int64_t k, const real* a, std::int64_t stride, const MatrixRef& b,
                         real* panels, Result result, FetchAhead& ahead) {
    std::int64_t column = 0;
    for (; column + panel_columns() <= n; column += panel_columns()) {
        const Packer packer{sub_matrix(b, 0, column).data, b.stride};
        multiply_tile<kRows, kVectors, kTransposed>(k, a, stride, panels + column * k, result, panel_columns(), ahead,
                                                    packer);
        result.c += panel_columns();
    }
    if (column == n) return;
    pack(panels + column * k, sub_matrix(b, 0, column), n - column, k);
    multiply_band<kRows, kTransposed>(kRows, n - column, k, a, stride, panels + column * k, result, ahead);
}

/// Rows of the next band of `rows` that are left: two that are nearly equal at the end rather than one of few rows,
/// which are too few sums for the latency of a multiply-add.
std::int64_t band_of(std::int64_t rows) {
    const std::int64_t rest = rows - kRows;
    return rest <= 0 || rest >= kRows * 2 / 3 ? std::min(rows, kRows) : (rows + 1) / 2;
}

void multiply(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
              real* panels, real beta, real* c, std::int64_t c_stride, FetchAhead ahead) {
    const auto parts = [](std::int64_t extent, std::int64_t size) { return (extent + size - 1) / size; };
    ahead.spread(parts(m, kRows) * parts(n, panel_columns()) * parts(k, kFetchTerms));
    const bool packs_first = band_of(m) < kRows || (b.transposed && k % TransposeColumns::kTerms != 0);
    if (packs_first) pack(panels, b, n, k);
    for (std::int64_t row = 0, rows = 0; row < m; row += rows) {
        rows = band_of(m - row);
        const Result result{c + row * c_stride, c_stride, alpha, beta};
        const real* const band = sub_matrix(a, row, 0).data;
        const auto each_layout = [&](auto transposed) {
            constexpr bool kTransposed = decltype(transposed)::value;
            if (packs_first || row > 0)
                multiply_band<kRows, kTransposed>(rows, n, k, band, a.stride, panels, result, ahead);
            else if (b.transposed)
                multiply_first_band<kTransposed, TransposeColumns>(n, k, band, a.stride, b, panels, result, ahead);
            else
                multiply_first_band<kTransposed, CopyRows>(n, k, band, a.stride, b, panels, result, ahead);
        };
        if (a.transposed)
            each_layout(std::true_type());
        else
            each_layout(std::false_type());
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
HWY_EXPORT(multiply);
} // namespace

std::int64_t panels_size(std::int64_t n, std::int64_t k) { return HWY_DYNAMIC_DISPATCH(size_of_panels)(n, k); }

void multiply_panels(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                     real* panels, real beta, real* c, std::int64_t c_stride, FetchAhead ahead) {
    HWY_DYNAMIC_DISPATCH(multiply)(m, n, k, alpha, a, b, panels, beta, c, c_stride, ahead);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
