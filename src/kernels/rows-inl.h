// Numbers of several rows of a matrix at a time: short rows would otherwise wait for one sum, quotient and root after
// the other. Compiled once per Highway target, hence the toggling guard in place of `#pragma once`. A kernel file
// includes it after hwy/foreach_target.h.

#if defined(BALLAST_KERNELS_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BALLAST_KERNELS_ROWS_INL_H_
#undef BALLAST_KERNELS_ROWS_INL_H_
#else
#define BALLAST_KERNELS_ROWS_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {

/// Rows whose numbers are worked out together. They have the same bits in such a group and alone.
constexpr std::int64_t kTogether = 4;

/// A vector for each row of a group.
using RowVectors = Vec<ScalableTag<real>>[kTogether];

/// v's halves added to each other, until 128 bits are left.
template <class D>
HWY_INLINE auto fold(D d, Vec<D> v) {
    if constexpr (MaxLanes(d) * sizeof(TFromD<D>) <= 16) {
        return v;
    } else {
        const Half<D> half;
        return fold(half, Add(LowerHalf(half, v), UpperHalf(half, v)));
    }
}

/// The sums of the lanes of each vector, written to `sums`, which is aligned to as many numbers. An addition serves as
/// many rows as 128 bits have lanes.
template <class D>
HWY_INLINE void put_lane_sums(real* sums, D d, const Vec<D> (&v)[kTogether]) {
    const CappedTag<TFromD<D>, 16 / sizeof(TFromD<D>)> d128;
    if constexpr (MaxLanes(d) == 1) {
        for (std::int64_t k = 0; k < kTogether; ++k)
            sums[k] = GetLane(v[k]);
    } else {
        const auto low = Add(InterleaveLower(d, v[0], v[1]), InterleaveUpper(d, v[0], v[1]));
        const auto high = Add(InterleaveLower(d, v[2], v[3]), InterleaveUpper(d, v[2], v[3]));
        if constexpr (sizeof(TFromD<D>) == 8) {
            Store(fold(d, low), d128, sums);
            Store(fold(d, high), d128, sums + 2);
        } else {
            const RepartitionToWide<D> pairs;
            const auto a = BitCast(pairs, low), b = BitCast(pairs, high);
            const auto all = Add(BitCast(d, InterleaveLower(pairs, a, b)), BitCast(d, InterleaveUpper(pairs, a, b)));
            Store(fold(d, all), d128, sums);
        }
    }
}

/// Rows this short are read side by side, which costs the fewest instructions; the processor does not foresee the reads
/// of longer ones in this order.
constexpr std::int64_t kShortRow = 256 / sizeof(real);

/// body(n, row) for all rows from begin to end: for n rows at a time, kTogether where they go side by side, or 1, an
/// integral constant.
template <class Body>
HWY_INLINE void for_rows(bool side_by_side, std::int64_t begin, std::int64_t end, Body&& body) {
    std::int64_t row = begin;
    if (side_by_side)
        for (; row + kTogether <= end; row += kTogether)
            body(std::integral_constant<std::int64_t, kTogether>(), row);
    for (; row < end; ++row)
        body(std::integral_constant<std::int64_t, 1>(), row);
}

/// Adds up kRows rows from `first` on, side by side, to sums[...][at] and so on; two accumulators hide the latency of
/// the additions.
template <int kRows, std::size_t kSums, class Body>
HWY_INLINE void add_up(std::int64_t first, std::int64_t width, RowVectors (&sums)[kSums], Body& body,
                       std::int64_t at = 0) {
    const ScalableTag<real> d;
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    Vec<decltype(d)> even[kRows][kSums], odd[kRows][kSums];
    for (int k = 0; k < kRows; ++k)
        for (std::size_t n = 0; n < kSums; ++n)
            even[k][n] = odd[k][n] = Zero(d);
    std::int64_t i = 0;
    for (; i + 2 * lanes <= width; i += 2 * lanes)
        for (int k = 0; k < kRows; ++k) {
            body(Whole{}, first + k, i, even[k]);
            body(Whole{}, first + k, i + lanes, odd[k]);
        }
    if (i + lanes <= width) {
        for (int k = 0; k < kRows; ++k)
            body(Whole{}, first + k, i, even[k]);
        i += lanes;
    }
    if (i < width)
        for (int k = 0; k < kRows; ++k)
            body(Part{static_cast<std::size_t>(width - i)}, first + k, i, odd[k]);
    for (int k = 0; k < kRows; ++k)
        for (std::size_t n = 0; n < kSums; ++n)
            sums[n][at + k] = Add(even[k][n], odd[k][n]);
}

/// kSums sums for each of `rows` rows, written to results[0], results[1]..., which have room for whole groups of rows:
/// body(access, row, i, sums) adds what the vectors at i of the row have to sums[0], sums[1]...
template <std::size_t kSums, class Body>
HWY_INLINE void sums_of_rows(real* const (&results)[kSums], std::int64_t rows, std::int64_t width, Body&& body) {
    const ScalableTag<real> d;
    for (std::int64_t first = 0; first < rows; first += kTogether) {
        RowVectors sums[kSums];
        if (first + kTogether <= rows && width <= kShortRow) {
            add_up<kTogether>(first, width, sums, body);
        } else {
            for (RowVectors& of_rows : sums)
                for (auto& sum : of_rows)
                    sum = Zero(d);
            for (std::int64_t k = 0; k < std::min(kTogether, rows - first); ++k)
                add_up<1>(first + k, width, sums, body, k);
        }
        for (std::size_t n = 0; n < kSums; ++n)
            put_lane_sums(results[n] + first, d, sums[n]);
    }
}

} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#endif // BALLAST_KERNELS_ROWS_INL_H_
