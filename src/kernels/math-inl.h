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

/// c[0] + c[1] x + c[2] x^2 + ..., by Horner's rule in x^2 for pairs of terms: one multiplication more, but half as
/// long a chain, so that the processor has more vectors under way.
template <std::size_t N>
HWY_INLINE V polynomial(V x, const float (&c)[N]) {
    const auto square = Mul(x, x);
    const auto pair = [&](std::size_t i) BALLAST_INLINE_LAMBDA {
        return i + 1 < N ? MulAdd(constant(c[i + 1]), x, constant(c[i])) : constant(c[i]);
    };
    std::size_t i = (N - 1) / 2 * 2;
    auto sum = pair(i);
    while (i > 0)
        sum = MulAdd(sum, square, pair(i -= 2));
    return sum;
}

/// The same sum by Horner's rule alone: fewer operations, where several chains are under way.
template <std::size_t N>
HWY_INLINE V horner(V x, const float (&c)[N]) {
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

// The float approximations below are weighted minimax fits of the relative error, in double precision or better, at the
// Chebyshev points of their range (linear least squares, weights by Lawson's algorithm; quotients linearised, each
// round with the denominator of the one before as a further weight), then rounded to float. Figures in ulp are the
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

/// An odd function that grows from 0 to 1, which it is, in float, from `edge` on: x p(x^2) / q(x^2) below. All
/// coefficients are positive: nothing cancels. The result is never above 1, 1 at infinity, -0 at -0 and NaN at NaN.
template <std::size_t N, std::size_t M>
HWY_INLINE V odd_quotient(V x, double edge, const float (&p)[N], const float (&q)[M]) {
    const auto one = constant(1);
    const auto t = Mul(x, x);
    const auto below = Div(Mul(x, polynomial(t, p)), polynomial(t, q));
    const auto full = Or(Ge(t, constant(edge * edge)), Gt(Abs(below), one));
    return IfThenElse(full, CopySign(one, x), below);
}

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3 && !defined(BALLAST_DOUBLE)
// AVX-512 does in one instruction what takes others several, and in chains of operations like these every instruction
// counts alike, whichever unit it is for (docs/performance.md).

/// erf(x), to 2.8 ulp: b p(b - c), b = |x|, where c is the multiple of 1/4 next to b, and p's coefficients are those of
/// c, fitted to 1.1e-7 and then improved among the floats around; the last are chosen so that no product is above 1 and
/// that of the greatest b, from which on b is the same, is 1.
HWY_INLINE V error_function(V x) {
    HWY_ALIGN static constexpr float kP[][16] = {
        {1.12837911f, 1.10530555f, 1.04099977f, 0.948207498f, 0.842700779f, 0.738320112f, 0.644070089f, 0.563812375f,
         0.497661144f, 0.44379434f, 0.399837226f, 0.363599777f, 0.333325982f, 0.307690978f, 0.28571406f, 0.266666651f},
        {2.24665015e-07f, -0.181163162f, -0.324430555f, -0.407032341f, -0.427592367f, -0.401439816f, -0.350094438f,
         -0.292022467f, -0.23849766f, -0.194067791f, -0.159063593f, -0.132004872f, -0.111062244f, -0.094665125f,
         -0.0816310197f, -0.0711106658f},
        {-0.376139045f, -0.335343778f, -0.229913175f, -0.100218304f, 0.0124832001f, 0.0846268907f, 0.114464715f,
         0.114094563f, 0.0985810906f, 0.0791110843f, 0.0614469908f, 0.0474154577f, 0.0368806273f, 0.0290988516f,
         0.0233180039f, 0.0189606436f},
        {0.000257579435f, 0.104022846f, 0.165925547f, 0.168612003f, 0.125645682f, 0.0664911494f, 0.0165237505f,
         -0.0133854579f, -0.0250063818f, -0.0254371725f, -0.0212302543f, -0.0162520446f, -0.012047979f, -0.00890717562f,
         -0.00665993523f, -0.00506931869f},
        {0.111089058f, 0.0884894952f, 0.0322391354f, -0.0246013831f, -0.0562826209f, -0.0576748475f, -0.0404136665f,
         -0.0197042674f, -0.00471417746f, 0.00278839306f, 0.00501268171f, 0.00470858533f, 0.003661111f, 0.00265026372f,
         0.00188294612f, 0.00135704561f}};
    const D d;
    // Of a number and NaN the second is the minimum.
    const auto b = Min(constant(3.8749998), Abs(x));
    // Floats around this one are a quarter apart: the last bits of the sum count quarters.
    const auto quarters = _mm512_castps_si512(Add(b, constant(3145728)).raw);
    const V h{_mm512_reduce_ps(b.raw, 2 << 4)};
    const auto coefficient = [&](std::size_t i) BALLAST_INLINE_LAMBDA {
        return V{_mm512_permutexvar_ps(quarters, Load(d, kP[i]).raw)};
    };
    auto p = coefficient(4);
    for (std::size_t i = 4; i > 0; --i)
        p = MulAdd(p, h, coefficient(i - 1));
    return CopySign(Mul(b, p), x);
}

/// erf'(x) = 2 / sqrt(pi) exp(-x^2): the relative error is below 1.9e-7 beside that of the exponent, x^2 2^-22 or less;
/// 0 where exp(-x^2) would be subnormal, which is slow to work with, or is within rounding of that.
HWY_INLINE V error_function_slope(V x) {
    // 2 / sqrt(pi) 2^r on [0, 1], fitted to 7.5e-8; with rounded coefficients it is off by 9.5e-8 at most.
    static constexpr float kExp2[] = {1.12837911f,   0.78213948f,   0.270984352f,
                                      0.0629932508f, 0.0101433853f, 0.00211861776f};
    const auto t = Mul(x, Mul(x, constant(-1.44269504088896340736))); // -x^2 log2(e)
    const V r{_mm512_reduce_ps(t.raw, _MM_FROUND_TO_NEG_INF)};
    const auto normal_or_nan = _mm512_cmp_ps_mask(t.raw, constant(-126).raw, _CMP_NLT_UQ);
    return V{_mm512_maskz_scalef_ps(normal_or_nan, horner(r, kExp2).raw, t.raw)};
}

/// erf(x) where `slope`, erf'(x), is at hand: of no help here.
HWY_INLINE V error_function_with(V /*slope*/, V x) { return error_function(x); }

#else

/// erf(x). float: 6 ulp; the quotient fits to 1.9e-8. double: the C library's.
HWY_INLINE V error_function(V x) {
    if constexpr (std::is_same_v<real, double>) {
        return each_lane(x, [](real lane) { return std::erf(lane); });
    } else {
        static constexpr float kP[] = {1.12837915f,    0.190752174f,    0.0527856046f,
                                       0.00377812177f, 0.000284753798f, 2.04193193e-06f};
        static constexpr float kQ[] = {1.0f,          0.502382441f,   0.114243991f,
                                       0.0149944674f, 0.00116481264f, 3.80008101e-05f};
        return odd_quotient(x, 3.93, kP, kQ);
    }
}

/// x^2 log2(e), so that exp(-x^2) = 2^-exponent. In float both are rounded.
HWY_INLINE V gauss_exponent(V x) { return Mul(x, Mul(x, constant(1.44269504088896340736))); }

/// In float, exp(-x^2) is subnormal, or within 1 % of it, where gauss_exponent(x) is above.
inline constexpr double kLargestExponent = 125.99;

/// erf'(x) = 2 / sqrt(pi) exp(-x^2). float: the relative error is below 1.7e-7 beside that of the exponent, x^2 2^-22
/// or less; 0 where the exponent is above the largest, which is from |x| = 9.345 on.
HWY_INLINE V error_function_slope(V x) {
    const D d;
    if constexpr (std::is_same_v<real, double>) {
        return Mul(exp_of(d, Neg(Mul(x, x))), constant(1.12837916709551257390)); // 2 / sqrt(pi)
    } else {
        // -t = n + r, n an integer and |r| <= 1/2, by additions, for which many processors have units beside those of
        // the multiplications. The polynomial is 2 / sqrt(pi) 2^r, fitted to 7.5e-8; with rounded coefficients it is
        // off by 1.2e-7 at most.
        static constexpr float kExp2[] = {1.1283792f, 0.7821326f, 0.2710606f, 0.06263309f, 0.010917679f, 0.0014980881f};
        const RebindToSigned<D> di;
        const auto t = gauss_exponent(x), magic = constant(12582912);
        const auto shifted = Sub(magic, t), r = Sub(Sub(magic, shifted), t);
        const auto y = Add(BitCast(di, polynomial(r, kExp2)), ShiftLeft<23>(BitCast(di, shifted)));
        // The bits added to the exponent of a NaN may have made y a number.
        const auto zero_or_nan = IfThenZeroElse(Eq(x, x), x);
        return IfThenElse(Le(t, constant(kLargestExponent)), BitCast(d, y), zero_or_nan);
    }
}

/// erf(x) where `slope`, erf'(x), is at hand: without a division. float: 3.5 ulp; 4.2 without fused multiply-adds.
/// Below 0.75 x p(t), t the exponent of the slope, which fits to 7.2e-8; beyond 1 - erf'(x) q(|x|), to 8.1e-8.
HWY_INLINE V error_function_with(V slope, V x) {
    if constexpr (std::is_same_v<real, double>) {
        return error_function(x);
    } else {
        static constexpr float kP[] = {1.12837911f, -0.260706037f, 0.0541649982f, -0.0087786084f, 0.0009600005f};
        // q's even terms and its odd ones.
        static constexpr float kEven[] = {0.880246878f, 0.528656065f, 0.0899737403f, 0.00282589253f};
        static constexpr float kOdd[] = {-0.959064782f, -0.310615212f, -0.0249615107f, -0.000203963966f};
        const auto t = gauss_exponent(x), b = Abs(x), one = constant(1);
        const auto tail = NegMulAdd(slope, MulAdd(b, horner(t, kOdd), horner(t, kEven)), one);
        const auto far = CopySign(IfThenElse(Gt(t, constant(kLargestExponent)), one, tail), x);
        return IfThenElse(Lt(t, constant(0.81151598)), Mul(x, horner(t, kP)), far);
    }
}

#endif

/// tanh(x). float: 6 ulp; the quotient fits to 2.1e-8. double: Highway's, 4 ulp.
HWY_INLINE V hyperbolic_tangent(V x) {
    if constexpr (std::is_same_v<real, double>) {
        return hwy::HWY_NAMESPACE::Tanh(D(), x);
    } else {
        static constexpr float kP[] = {0.99999998f, 0.133796668f, 0.00349396918f, 2.05822475e-05f, 1.33171183e-08f};
        static constexpr float kQ[] = {1.0f, 0.467129823f, 0.0258708362f, 0.000328297874f, 7.7612688e-07f};
        return odd_quotient(x, 9.02, kP, kQ);
    }
}

/// tanh'(x) from tanh(x), with an absolute error of 7e-7 in float: 0 where tanh(x) is 1 in this format.
HWY_INLINE V hyperbolic_tangent_slope(V tanh) { return NegMulAdd(tanh, tanh, constant(1)); }

} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#endif // BALLAST_KERNELS_MATH_INL_H_
