#include "ballast/kernels/column_scale.h"

#include <algorithm>

#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/column_scale.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;

/// `scale` has one factor a column.
void scaled_rows(real* y, real a, const real* x, real b, const real* branch, const real* scale, std::int64_t rows,
                 std::int64_t width) {
    const D d;
    const auto va = Set(d, a), vb = Set(d, b);
    for (std::int64_t start = 0; start < rows * width; start += width)
        for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto scaled = Mul(Mul(vb, at.load(d, scale + i)), at.load(d, branch + start + i));
            at.store(x != nullptr ? MulAdd(va, at.load(d, x + start + i), scaled) : scaled, d, y + start + i);
        });
}

/// sums[i] = b * sum over the rows of dy * branch; it has room for a whole last vector, and may be null.
void scaled_backward_rows(Grad dbranch, real* sums, const real* dy, real b, const real* branch, const real* scale,
                          std::int64_t rows, std::int64_t width) {
    const D d;
    const auto vb = Set(d, b);
    if (sums != nullptr) std::fill_n(sums, padded_width(width), real(0));
    for (std::int64_t start = 0; start < rows * width; start += width)
        for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            const auto v = Mul(vb, at.load(d, dy + start + i));
            if (dbranch) put(at, d, dbranch, start + i, Mul(v, at.load(d, scale + i)));
            if (sums != nullptr) StoreU(MulAdd(v, at.load(d, branch + start + i), LoadU(d, sums + i)), d, sums + i);
        });
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(scaled_rows);
HWY_EXPORT(scaled_backward_rows);

/// One factor a column.
const real* factors_of_columns(const real* scale, std::int64_t factors, std::int64_t width, Arena& scratch) {
    if (factors == width) return scale;
    real* columns = scratch.allocate<real>(width);
    for (std::int64_t i = 0; i < width; ++i)
        columns[i] = scale[i / (width / factors)];
    return columns;
}

} // namespace

void column_scale_forward(real* y, real a, const real* x, real b, const real* branch, const real* scale,
                          std::int64_t factors, std::int64_t rows, std::int64_t width, Arena& scratch) {
    const Arena::Mark mark(scratch);
    const real* const columns = factors_of_columns(scale, factors, width, scratch);
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(scaled_rows)(y + begin * width, a, x != nullptr ? x + begin * width : nullptr, b,
                                          branch + begin * width, columns, end - begin, width);
    });
}

void column_scale_backward(Grad dbranch, Grad dscale, const real* dy, real b, const real* branch, const real* scale,
                           std::int64_t factors, std::int64_t rows, std::int64_t width, Arena& scratch) {
    const Arena::Mark mark(scratch);
    const real* const columns = factors_of_columns(scale, factors, width, scratch);
    Grad target = dscale;
    if (dscale && factors != width) target = {scratch.allocate<real>(width), false};
    sum_over_rows(
        {target}, rows, width, scratch, [=](std::int64_t, std::int64_t begin, std::int64_t end, real* const* sums) {
            HWY_DYNAMIC_DISPATCH(scaled_backward_rows)(offset(dbranch, begin * width), sums[0], dy + begin * width, b,
                                                       branch + begin * width, columns, end - begin, width);
        });
    if (!dscale || factors == width) return;
    const std::int64_t columns_each = width / factors;
    for (std::int64_t factor = 0; factor < factors; ++factor) {
        double sum = 0;
        for (std::int64_t i = factor * columns_each; i < (factor + 1) * columns_each; ++i)
            sum += static_cast<double>(target.data[i]);
        add_in_order({dscale.data + factor, dscale.add}, &sum, 1);
    }
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
