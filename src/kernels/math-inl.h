// Functions of vectors of `real` from which activations and squashing norms are made. Compiled once per Highway target,
// hence the toggling guard in place of `#pragma once`. A kernel file includes it after hwy/foreach_target.h.

#if defined(BALLAST_KERNELS_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BALLAST_KERNELS_MATH_INL_H_
#undef BALLAST_KERNELS_MATH_INL_H_
#else
#define BALLAST_KERNELS_MATH_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <type_traits>

#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {

using D = ScalableTag<real>;
using V = Vec<D>;

HWY_INLINE V constant(double value) { return Set(D(), static_cast<real>(value)); }

/// f of every lane, where the C library's function is the best there is (the double build).
template <class F>
HWY_INLINE V each_lane(V v, F f) {
    HWY_ALIGN real lanes[MaxLanes(D())];
    Store(v, D(), lanes);
    for (std::size_t i = 0; i < Lanes(D()); ++i)
        lanes[i] = f(lanes[i]);
    return Load(D(), lanes);
}

/// c[0] + c[1] x + c[2] x^2 + ...
template <std::size_t N>
HWY_INLINE V polynomial(V x, const float (&c)[N]) {
    auto sum = constant(c[N - 1]);
    for (std::size_t i = N - 1; i > 0; --i)
        sum = MulAdd(sum, x, constant(c[i - 1]));
    return sum;
}

/// |x|, or `most` where it is larger. NaN stays NaN.
HWY_INLINE V bounded_magnitude(V x, double most) {
    const auto magnitude = Abs(x);
    return IfThenElse(Gt(magnitude, constant(most)), constant(most), magnitude);
}

// The float approximations below are weighted minimax fits of the relative error in double precision (linear least
// squares, weights by Lawson's algorithm; rational ones linearised), then rounded to float. Figures in ulp are the
// largest error found over every float from 2^-14 to 16.

/// gauss = exp(-x^2 / 2); result Phi(-b), b = |x|: gauss p(b) / q(b), where p / q fits Phi(-b) exp(b^2 / 2) on
/// [0, 13.3] to 5.0e-9. All coefficients are positive: nothing cancels. Where b > 14 both results are 0.
[[maybe_unused]] HWY_INLINE V normal_tail(V x, V& gauss) {
    static constexpr float kP[] = {0.500000002f, 0.435685769f, 0.181306343f, 0.0399840295f, 0.00402016846f};
    static constexpr float kQ[] = {1.0f, 1.66925646f, 1.19448251f, 0.464379233f, 0.10023248f, 0.0100769247f};
    const auto b = bounded_magnitude(x, 14);
    gauss = exp_of(D(), Mul(constant(-0.5), Mul(b, b)));
    return Div(Mul(gauss, polynomial(b, kP)), polynomial(b, kQ));
}

/// Phi(x), the normal distribution, and its density. float: the absolute error is below 1e-7; in the negative tail the
/// relative error grows with x^2 (the rounding of the exponent) to 4e-6 at x = -10.
HWY_INLINE void normal_distribution(V x, V& phi, V& density) {
    V gauss;
    if constexpr (std::is_same_v<real, double>) {
        gauss = exp_of(D(), Mul(constant(-0.5), Mul(x, x)));
        phi = each_lane(x, [](real lane) { return 0.5 * std::erfc(-0.70710678118654752440 * lane); });
    } else {
        const auto tail = normal_tail(x, gauss);
        phi = IfThenElse(Lt(x, Zero(D())), tail, Sub(constant(1), tail));
    }
    density = Mul(gauss, constant(0.39894228040143267794));
}

/// sigmoid(v) and its derivative.
HWY_INLINE void logistic(V v, V& value, V& slope) {
    const D d;
    const auto e = exp_of(d, Neg(Abs(v)));
    const auto one = constant(1);
    const auto r = Div(one, Add(one, e));
    value = Mul(r, IfThenElse(Lt(v, Zero(d)), e, one));
    slope = Mul(Mul(e, r), r);
}

/// erf(x) and its derivative. float: 2.2 ulp. double: the C library's.
HWY_INLINE V error_function(V x, V& slope) {
    const auto peak = constant(1.12837916709551257390); // 2 / sqrt(pi)
    if constexpr (std::is_same_v<real, double>) {
        slope = Mul(exp_of(D(), Neg(Mul(x, x))), peak);
        return each_lane(x, [](real lane) { return std::erf(lane); });
    } else {
        // erf(x) = x + x p(x^2) on [0, 0.8], to 3.0e-9; beyond, 1 - 2 Phi(-sqrt(2) |x|).
        static constexpr float kP[] = {0.128379164f,   -0.376126014f,  0.112831128f,
                                       -0.0268208067f, 0.00508513046f, -0.000653523617f};
        V gauss; // exp(-x^2)
        const auto tail = normal_tail(Mul(x, constant(1.41421356237309504880)), gauss);
        slope = Mul(gauss, peak);
        const auto far = CopySign(NegMulAdd(constant(2), tail, constant(1)), x);
        const auto near = MulAdd(x, polynomial(Mul(x, x), kP), x);
        return IfThenElse(Lt(Abs(x), constant(0.8)), near, far);
    }
}

/// tanh(x) and its derivative, 4 sigmoid'(2x). float: 1.6 ulp. double: Highway's, 4 ulp.
HWY_INLINE V hyperbolic_tangent(V x, V& slope) {
    const auto one = constant(1);
    const auto e = exp_of(D(), Mul(constant(-2), Abs(x)));
    const auto r = Div(one, Add(one, e));
    slope = Mul(Mul(constant(4), Mul(e, r)), r);
    if constexpr (std::is_same_v<real, double>) {
        return hwy::HWY_NAMESPACE::Tanh(D(), x);
    } else {
        // tanh(x) = x + x^3 p(x^2) on [0, 0.55], to 1.0e-9; beyond, (1 - e) / (1 + e) with e = exp(-2 |x|).
        static constexpr float kP[] = {-0.333333176f, 0.133325861f, -0.0538523099f, 0.021071679f, -0.00627423944f};
        const auto far = CopySign(Mul(Sub(one, e), r), x);
        const auto t = Mul(x, x);
        const auto near = MulAdd(Mul(x, t), polynomial(t, kP), x);
        return IfThenElse(Lt(Abs(x), constant(0.55)), near, far);
    }
}

} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#endif // BALLAST_KERNELS_MATH_INL_H_
