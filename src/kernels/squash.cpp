// Bounded functions in the place of a norm. Backward: with f and f' at u = alpha x + shift and g = dy * gain, one sweep
// over a row gives dx = alpha g f', the row's share of the sums for gain and bias, and the terms of the two scalars'
// gradients, which are summed per row in `real` and from row to row in double.

#include "ballast/kernels/squash.h"

#include <algorithm>

#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/squash.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "math-inl.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

template <Squash kind>
HWY_INLINE V squashed(V x, V& slope) {
    return kind == Squash::tanh ? hyperbolic_tangent(x, slope) : error_function(x, slope);
}

template <Squash kind>
HWY_INLINE void forward_rows(real* y, const real* x, real alpha, real shift, const real* gain, const real* bias,
                             std::int64_t rows, std::int64_t width) {
    const D d;
    const auto a = Set(d, alpha), s = Set(d, shift);
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width)
        for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            V slope;
            const auto f = squashed<kind>(MulAdd(a, at.load(d, x + i), s), slope);
            const auto g = load_or(at, d, gain, i, Set(d, real(1)));
            at.store(MulAdd(f, g, load_or(at, d, bias, i, Zero(d))), d, y + i);
        });
}

/// dgain and dbias are this group's own sums, or null; dalpha and dshift too.
template <Squash kind>
HWY_INLINE void backward_rows(Grad dx, double& dalpha, double& dshift, real* dgain, real* dbias, const real* dy,
                              const real* x, real alpha, real shift, const real* gain, std::int64_t rows,
                              std::int64_t width) {
    const D d;
    const auto a = Set(d, alpha), s = Set(d, shift);
    for (real* sums : {dgain, dbias})
        if (sums != nullptr) std::fill_n(sums, padded_width(width), real(0));
    dalpha = dshift = 0;
    for (std::int64_t row = 0; row < rows; ++row, x += width, dy += width) {
        real alpha_sum = 0, shift_sum = 0;
        two_sums(d, width, alpha_sum, shift_sum,
                 [&](auto at, std::int64_t i, auto& alpha_terms, auto& shift_terms) BALLAST_INLINE_LAMBDA {
                     // Past the end of the row x and dy are 0.
                     const auto in = at.load(d, x + i), v = at.load(d, dy + i);
                     V slope;
                     const auto f = squashed<kind>(MulAdd(a, in, s), slope);
                     const auto du = Mul(Mul(v, load_or(at, d, gain, i, Set(d, real(1)))), slope);
                     alpha_terms = MulAdd(du, in, alpha_terms);
                     shift_terms = Add(shift_terms, du);
                     if (dgain != nullptr) StoreU(MulAdd(v, f, LoadU(d, dgain + i)), d, dgain + i);
                     if (dbias != nullptr) StoreU(Add(v, LoadU(d, dbias + i)), d, dbias + i);
                     if (dx) put(at, d, dx, row * width + i, Mul(a, du));
                 });
        dalpha += static_cast<double>(alpha_sum);
        dshift += static_cast<double>(shift_sum);
    }
}

void squash_rows(Squash kind, real* y, const real* x, real alpha, real shift, const real* gain, const real* bias,
                 std::int64_t rows, std::int64_t width) {
    if (kind == Squash::tanh)
        forward_rows<Squash::tanh>(y, x, alpha, shift, gain, bias, rows, width);
    else
        forward_rows<Squash::erf>(y, x, alpha, shift, gain, bias, rows, width);
}

void squash_backward_rows(Squash kind, Grad dx, double& dalpha, double& dshift, real* dgain, real* dbias,
                          const real* dy, const real* x, real alpha, real shift, const real* gain, std::int64_t rows,
                          std::int64_t width) {
    if (kind == Squash::tanh)
        backward_rows<Squash::tanh>(dx, dalpha, dshift, dgain, dbias, dy, x, alpha, shift, gain, rows, width);
    else
        backward_rows<Squash::erf>(dx, dalpha, dshift, dgain, dbias, dy, x, alpha, shift, gain, rows, width);
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {
HWY_EXPORT(squash_rows);
HWY_EXPORT(squash_backward_rows);
} // namespace

void squash_forward(Squash kind, real* y, const real* x, real alpha, real shift, const real* gain, const real* bias,
                    std::int64_t rows, std::int64_t width) {
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(squash_rows)(kind, y + begin * width, x + begin * width, alpha, shift, gain, bias,
                                          end - begin, width);
    });
}

void squash_backward(Squash kind, const SquashGrads& grads, const real* dy, const real* x, real alpha, real shift,
                     const real* gain, std::int64_t rows, std::int64_t width, Arena& scratch) {
    const Arena::Mark mark(scratch);
    const std::int64_t groups = row_groups(rows, width);
    auto* alpha_sums = scratch.allocate<double>(groups);
    auto* shift_sums = scratch.allocate<double>(groups);
    sum_over_rows({grads.gain, grads.bias}, rows, width, scratch,
                  [=](std::int64_t group, std::int64_t begin, std::int64_t end, real* const* sums) {
                      HWY_DYNAMIC_DISPATCH(squash_backward_rows)(
                          kind, offset(grads.x, begin * width), alpha_sums[group], shift_sums[group], sums[0], sums[1],
                          dy + begin * width, x + begin * width, alpha, shift, gain, end - begin, width);
                  });
    add_in_order(grads.alpha, alpha_sums, groups);
    add_in_order(grads.shift, shift_sums, groups);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
