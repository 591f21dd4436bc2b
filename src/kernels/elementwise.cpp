// Loops over flat arrays, bound by memory bandwidth, and sums in numbered partial results.

#include "ballast/kernels/elementwise.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ballast/base/parallel.h"
#include "beyond_cache.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/elementwise.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

void axpby_range(bool stream, real* y, real a, const real* x, real b, const real* z, std::int64_t n) {
    const D d;
    const auto va = Set(d, a), vb = Set(d, b);
    stream = stream && streamable(d, y, n);
    for_vectors_to(stream, d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        at.store(MulAdd(va, at.load(d, x + i), Mul(vb, at.load(d, z + i))), d, y + i);
    });
    if (stream) hwy::FlushStream();
}

void add_scaled_range(Grad target, real a, const real* x, std::int64_t n) {
    const D d;
    const auto va = Set(d, a);
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        put(at, d, target, i, Mul(va, at.load(d, x + i)));
    });
}

void put_range(Grad target, const real* x, std::int64_t n) {
    const D d;
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA { put(at, d, target, i, at.load(d, x + i)); });
}

/// target (+)= sum of `rows` rows, `stride` apart, over `columns` columns. Four rows at a time, so that the sums go
/// through the first-level cache a quarter as often.
void sum_rows(Grad target, const real* x, std::int64_t rows, std::int64_t stride, std::int64_t columns) {
    const D d;
    std::int64_t row = rows % 4;
    for_vectors(d, columns, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        auto sum = Zero(d);
        for (std::int64_t k = 0; k < row; ++k)
            sum = Add(sum, at.load(d, x + k * stride + i));
        put(at, d, target, i, sum);
    });
    for (target.add = true; row < rows; row += 4) {
        const real* const first = x + row * stride;
        for_vectors(d, columns, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const real* const from = first + i;
            const auto low = Add(at.load(d, from), at.load(d, from + stride));
            const auto high = Add(at.load(d, from + 2 * stride), at.load(d, from + 3 * stride));
            put(at, d, target, i, Add(low, high));
        });
    }
}

double squares_range(const real* x, std::int64_t n) {
    const HalfRealTag d;
    return one_sum(DoubleTag(), n, [=](auto at, std::int64_t i, auto& sum) BALLAST_INLINE_LAMBDA {
        const auto v = to_double(at.load(d, x + i));
        sum = MulAdd(v, v, sum);
    });
}

/// x - x is 0 where x is finite and NaN elsewhere.
bool finite_range(const real* x, std::int64_t n) {
    const D d;
    const real sum = one_sum(d, n, [=](auto at, std::int64_t i, auto& zeros) BALLAST_INLINE_LAMBDA {
        const auto v = at.load(d, x + i);
        zeros = Add(zeros, Sub(v, v));
    });
    return sum == 0;
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(axpby_range);
HWY_EXPORT(add_scaled_range);
HWY_EXPORT(put_range);
HWY_EXPORT(sum_rows);
HWY_EXPORT(squares_range);
HWY_EXPORT(finite_range);

constexpr std::int64_t kGrain = rows_per_task(1);

/// Elements per chunk, so that a reduction has at most kChunks partial results.
constexpr std::int64_t kChunks = 256;
std::int64_t chunk_size(std::int64_t n) { return std::max(kGrain, (n + kChunks - 1) / kChunks); }

} // namespace

void axpby(real* y, real a, const real* x, real b, const real* z, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(axpby_range)(beyond_cache(n), y + begin, a, x + begin, b, z + begin, end - begin);
    });
}

void add_scaled(Grad target, real a, const real* x, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(add_scaled_range)({target.data + begin, target.add}, a, x + begin, end - begin);
    });
}

void put_rows(Grad target, std::int64_t target_stride, const real* x, std::int64_t x_stride, std::int64_t rows,
              std::int64_t columns) {
    parallel_ranges(rows, rows_per_task(columns), [=](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
            HWY_DYNAMIC_DISPATCH(put_range)({target.data + row * target_stride, target.add}, x + row * x_stride,
                                            columns);
    });
}

void column_sums(Grad dbias, const real* dy, std::int64_t rows, std::int64_t width, std::int64_t stride) {
    // Strips of columns are enough tasks where the matrix is wide. Where it is narrow, groups of rows multiply them;
    // their sums, at most kTasks * kStrip numbers, are added at the end.
    constexpr std::int64_t kStrip = 1024, kTasks = 16, kFewestRows = 256;
    const std::int64_t strips = (width + kStrip - 1) / kStrip;
    const std::int64_t groups = std::clamp<std::int64_t>(kTasks / std::max<std::int64_t>(strips, 1), 1,
                                                         std::max<std::int64_t>(rows / kFewestRows, 1));
    const std::int64_t grain = (rows + groups - 1) / groups;
    alignas(64) std::array<real, kTasks * kStrip> partials;
    parallel_for(strips * groups, [&](std::int64_t task) {
        const std::int64_t column = task % strips * kStrip, group = task / strips;
        const std::int64_t begin = std::min(group * grain, rows), end = std::min(begin + grain, rows);
        const Grad target = groups == 1 ? Grad{dbias.data + column, dbias.add}
                                        : Grad{partials.data() + group * strips * kStrip + column, false};
        HWY_DYNAMIC_DISPATCH(sum_rows)(target, dy + begin * stride + column, end - begin, stride,
                                       std::min(kStrip, width - column));
    });
    if (groups > 1) HWY_DYNAMIC_DISPATCH(sum_rows)(dbias, partials.data(), groups, strips * kStrip, width);
}

double sum_of_squares(const real* x, std::int64_t n) {
    std::array<double, kChunks> sums;
    const std::int64_t chunk = chunk_size(n);
    parallel_ranges(n, chunk, [&](std::int64_t begin, std::int64_t end) {
        sums[static_cast<std::size_t>(begin / chunk)] = HWY_DYNAMIC_DISPATCH(squares_range)(x + begin, end - begin);
    });
    double total = 0;
    for (std::int64_t i = 0; i * chunk < n; ++i)
        total += sums[static_cast<std::size_t>(i)];
    return total;
}

bool all_finite(const real* x, std::int64_t n) {
    std::array<bool, kChunks> finite;
    const std::int64_t chunk = chunk_size(n);
    parallel_ranges(n, chunk, [&](std::int64_t begin, std::int64_t end) {
        finite[static_cast<std::size_t>(begin / chunk)] = HWY_DYNAMIC_DISPATCH(finite_range)(x + begin, end - begin);
    });
    return std::all_of(finite.begin(), finite.begin() + (n + chunk - 1) / chunk, [](bool ok) { return ok; });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
