// Bounded functions in the place of a norm. Backward: with f and f' at u = alpha x + shift and g = dy * gain, one sweep
// over a row gives dx = alpha g f', the row's share of the sums for gain and bias, and the terms of the two scalars'
// gradients, which are summed over a few rows in `real` and from there on in double.
//
// Results that no cache can hold are written past the caches.

#include "ballast/kernels/squash.h"

#include <algorithm>

#include "beyond_cache.h"
#include "row_sums.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/squash.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "math-inl.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

/// Terms of the scalars' gradients that are summed in `real`, rows of them, before they are added in double.
constexpr std::int64_t kScalarTerms = 1024;

/// Elements ahead of those worked on that are fetched: where long rows' gain comes from the second-level cache, the
/// processor itself does not do so in time.
constexpr std::int64_t kAhead = 8192 / sizeof(real);

/// The same of the backward pass; docs/performance.md has the figures.
template <Squash kind>
constexpr std::int64_t kBackwardAhead = kind == Squash::erf ? 2 * kAhead : kAhead;

/// Vectors whose backward pass is worked out side by side, a step of all before the next: the processor looks only so
/// far past the instructions that wait for others, and more of those in sight then wait for none. Where there are 32
/// registers for the numbers; Derf has more to do between memory's reads than DyT. Of long rows from memory, whose gain
/// and sums come from the second-level cache, half as many.
template <Squash kind>
constexpr std::int64_t kSideBySide = HWY_MAX_BYTES < 64    ? 1
                                     : kind == Squash::erf ? 4
                                                           : 2;

template <Squash kind>
HWY_INLINE V squashed(V u) {
    return kind == Squash::tanh ? hyperbolic_tangent(u) : error_function(u);
}

template <Squash kind>
HWY_INLINE void forward_rows(bool stream, real* y, const real* x, real alpha, real shift, const real* gain,
                             const real* bias, std::int64_t rows, std::int64_t width) {
    const D d;
    stream = stream && streamable(d, y, width);
    const auto a = Set(d, alpha), s = Set(d, shift);
    for (std::int64_t row = 0; row < rows; ++row, x += width, y += width)
        for_vectors_to(stream, d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            fetch(x + i + kAhead);
            const auto f = squashed<kind>(MulAdd(a, at.load(d, x + i), s));
            const auto g = load_or(at, d, gain, i, Set(d, real(1)));
            at.store(MulAdd(f, g, load_or(at, d, bias, i, Zero(d))), d, y + i);
        });
    if (stream) hwy::FlushStream();
}

/// dgain and dbias are this group's own sums, or null; dalpha and dshift too. Works on kVectors vectors side by side.
/// kJoined: a power of two of rows, of whole vectors each, fill these exactly and go together as if they were one.
template <Squash kind, std::int64_t kVectors, bool kJoined>
void backward_rows(bool stream, Grad dx, double& dalpha, double& dshift, real* dgain, real* dbias, const real* dy,
                   const real* x, real alpha, real shift, const real* gain, std::int64_t rows, std::int64_t width) {
    const D d;
    stream = stream && dx && !dx.add && streamable(d, dx.data, width);
    const auto a = Set(d, alpha), s = Set(d, shift);
    for (real* sums : {dgain, dbias})
        if (sums != nullptr) std::fill_n(sums, padded_width(width), real(0));
    // Written once: the scalars of groups that others work on lie beside these, in the same cache line.
    double alpha_sum = 0, shift_sum = 0;
    const std::int64_t piece = std::max(kScalarTerms / width, std::int64_t{1});
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    for (std::int64_t begin = 0, count = 0; begin < rows; begin += count) {
        auto alpha_terms = Zero(d), shift_terms = Zero(d);
        count = std::min(piece, rows - begin);
        for (std::int64_t row = begin, n = kJoined ? count : 1; row < begin + count; row += n) {
            const real *const in_row = x + row * width, *const v_row = dy + row * width;
            for_vector_groups_to<kVectors>(
                stream, d, n * width, [&](auto vectors, auto at, std::int64_t first) BALLAST_INLINE_LAMBDA {
                    constexpr std::int64_t kCount = decltype(vectors)::value;
                    V in[kCount], v[kCount], u[kCount], f[kCount], slope[kCount];
                    const auto each = [=](auto body) BALLAST_INLINE_LAMBDA {
                        for (std::int64_t k = 0; k < kCount; ++k)
                            body(k, first + k * lanes);
                    };
                    each([&](std::int64_t k, std::int64_t i) BALLAST_INLINE_LAMBDA {
                        // Past the end of the row x and dy are 0.
                        in[k] = at.load(d, in_row + i);
                        v[k] = at.load(d, v_row + i);
                        u[k] = MulAdd(a, in[k], s);
                    });
                    each([&](std::int64_t k, std::int64_t) BALLAST_INLINE_LAMBDA {
                        if (kind == Squash::tanh)
                            f[k] = hyperbolic_tangent(u[k]);
                        else
                            slope[k] = error_function_slope(u[k]);
                    });
                    each([&](std::int64_t k, std::int64_t) BALLAST_INLINE_LAMBDA {
                        if (kind == Squash::tanh)
                            slope[k] = hyperbolic_tangent_slope(f[k]);
                        else
                            f[k] = error_function_with(slope[k], u[k]);
                    });
                    each([&](std::int64_t k, std::int64_t i) BALLAST_INLINE_LAMBDA {
                        const std::int64_t column = kJoined ? i & (width - 1) : i;
                        const auto du = Mul(Mul(v[k], load_or(at, d, gain, column, Set(d, real(1)))), slope[k]);
                        alpha_terms = MulAdd(du, in[k], alpha_terms);
                        shift_terms = Add(shift_terms, du);
                        if (dgain != nullptr) StoreU(MulAdd(v[k], f[k], LoadU(d, dgain + column)), d, dgain + column);
                        if (dbias != nullptr) StoreU(Add(v[k], LoadU(d, dbias + column)), d, dbias + column);
                        if (dx) put(at, d, dx, row * width + i, Mul(a, du));
                        fetch(in_row + i + kBackwardAhead<kind>);
                        fetch(v_row + i + kBackwardAhead<kind>);
                    });
                });
        }
        alpha_sum += static_cast<double>(GetLane(SumOfLanes(d, alpha_terms)));
        shift_sum += static_cast<double>(GetLane(SumOfLanes(d, shift_terms)));
    }
    dalpha = alpha_sum;
    dshift = shift_sum;
    if (stream) hwy::FlushStream();
}

void squash_rows(Squash kind, bool stream, real* y, const real* x, real alpha, real shift, const real* gain,
                 const real* bias, std::int64_t rows, std::int64_t width) {
    if (kind == Squash::tanh)
        forward_rows<Squash::tanh>(stream, y, x, alpha, shift, gain, bias, rows, width);
    else
        forward_rows<Squash::erf>(stream, y, x, alpha, shift, gain, bias, rows, width);
}

void squash_backward_rows(Squash kind, bool stream, Grad dx, double& dalpha, double& dshift, real* dgain, real* dbias,
                          const real* dy, const real* x, real alpha, real shift, const real* gain, std::int64_t rows,
                          std::int64_t width) {
    const auto lanes = static_cast<std::int64_t>(Lanes(D()));
    const auto backward = [=, &dalpha, &dshift](auto kind_constant) BALLAST_INLINE_LAMBDA {
        constexpr Squash kKind = decltype(kind_constant)::value;
        constexpr std::int64_t kMost = kSideBySide<kKind>;
        const auto rows_backward = stream && width >= kLongRow ? backward_rows<kKind, (kMost + 1) / 2, false>
                                   : width % lanes == 0 && kMost * lanes % width == 0
                                       ? backward_rows<kKind, kMost, true>
                                       : backward_rows<kKind, kMost, false>;
        rows_backward(stream, dx, dalpha, dshift, dgain, dbias, dy, x, alpha, shift, gain, rows, width);
    };
    if (kind == Squash::tanh)
        backward(std::integral_constant<Squash, Squash::tanh>());
    else
        backward(std::integral_constant<Squash, Squash::erf>());
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
    parallel_ranges(rows, rows_per_group(rows, width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(squash_rows)(kind, beyond_cache(rows * width), y + begin * width, x + begin * width, alpha,
                                          shift, gain, bias, end - begin, width);
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
                          kind, beyond_cache(rows * width), offset(grads.x, begin * width), alpha_sums[group],
                          shift_sums[group], sums[0], sums[1], dy + begin * width, x + begin * width, alpha, shift,
                          gain, end - begin, width);
                  });
    add_in_order(grads.alpha, alpha_sums, groups);
    add_in_order(grads.shift, shift_sums, groups);
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
