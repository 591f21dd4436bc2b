// Non-linearities. Each is a struct with its value and its slope, from which two loops over arrays are made: forward
// and backward. Bias and gates are rows, or pieces of rows, around these two while they are in the first-level cache.
//
// Those built on the logistic function share one form: with e = exp(-|v|), which cannot overflow, sigmoid(v) is
// 1/(1+e) or e/(1+e) by the sign of v, and its slope e/(1+e)^2. Nothing is computed as 1 - (almost 1), so that tails
// keep their relative accuracy; GPT-2's GELU is x sigmoid(2u), as (1 + tanh u)/2 = sigmoid(2u).

#include "ballast/kernels/activation.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "ballast/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

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

/// float: 2.2 ulp. double: the C library's.
HWY_INLINE V error_function(V x) {
    if constexpr (std::is_same_v<real, double>) {
        return each_lane(x, [](real lane) { return std::erf(lane); });
    } else {
        // erf(x) = x + x p(x^2) on [0, 0.8], to 3.0e-9; beyond, 1 - 2 Phi(-sqrt(2) |x|).
        static constexpr float kP[] = {0.128379164f,   -0.376126014f,  0.112831128f,
                                       -0.0268208067f, 0.00508513046f, -0.000653523617f};
        V gauss;
        const auto tail = normal_tail(Mul(x, constant(1.41421356237309504880)), gauss);
        const auto far = CopySign(NegMulAdd(constant(2), tail, constant(1)), x);
        const auto near = MulAdd(x, polynomial(Mul(x, x), kP), x);
        return IfThenElse(Lt(Abs(x), constant(0.8)), near, far);
    }
}

/// float: 1.6 ulp. double: Highway's, 4 ulp.
HWY_INLINE V hyperbolic_tangent(V x) {
    if constexpr (std::is_same_v<real, double>) {
        return hwy::HWY_NAMESPACE::Tanh(D(), x);
    } else {
        // tanh(x) = x + x^3 p(x^2) on [0, 0.55], to 1.0e-9; beyond, (1 - e) / (1 + e) with e = exp(-2 |x|).
        static constexpr float kP[] = {-0.333333176f, 0.133325861f, -0.0538523099f, 0.021071679f, -0.00627423944f};
        const auto one = constant(1);
        const auto e = exp_of(D(), Mul(constant(-2), Abs(x)));
        const auto far = CopySign(Div(Sub(one, e), Add(one, e)), x);
        const auto t = Mul(x, x);
        const auto near = MulAdd(Mul(x, t), polynomial(t, kP), x);
        return IfThenElse(Lt(Abs(x), constant(0.55)), near, far);
    }
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

struct Identity {
    HWY_INLINE V value(V x) const { return x; }
    HWY_INLINE V slope(V) const { return constant(1); }
};

/// x Phi(x); slope Phi(x) + x phi(x), Phi and phi the normal distribution and its density.
struct Gelu {
    HWY_INLINE V value(V x) const {
        V phi, density;
        normal_distribution(x, phi, density);
        return Mul(x, phi);
    }
    HWY_INLINE V slope(V x) const {
        V phi, density;
        normal_distribution(x, phi, density);
        return MulAdd(x, density, phi);
    }
};

struct GeluTanh {
    // 2u and d(2u)/dx, u = sqrt(2/pi) (x + 0.044715 x^3).
    static constexpr double kLinear = 1.59576912160573071176;
    static constexpr double kCubic = kLinear * 0.044715;

    HWY_INLINE V argument(V x) const { return Mul(x, MulAdd(Mul(x, x), constant(kCubic), constant(kLinear))); }
    HWY_INLINE V value(V x) const {
        V s, slope;
        logistic(argument(x), s, slope);
        return Mul(x, s);
    }
    HWY_INLINE V slope(V x) const {
        // Beyond 32 the slope is 0 or 1 and x^3 might overflow.
        const auto near = CopySign(bounded_magnitude(x, 32), x);
        V s, s_slope;
        logistic(argument(near), s, s_slope);
        const auto inner = MulAdd(Mul(near, near), constant(3 * kCubic), constant(kLinear));
        return MulAdd(Mul(near, inner), s_slope, s);
    }
};

struct Relu {
    HWY_INLINE V value(V x) const { return IfThenZeroElse(Lt(x, Zero(D())), x); }
    HWY_INLINE V slope(V x) const { return IfThenZeroElse(Le(x, Zero(D())), constant(1)); }
};

struct Relu2 {
    HWY_INLINE V value(V x) const {
        const auto r = Relu().value(x);
        return Mul(r, r);
    }
    HWY_INLINE V slope(V x) const {
        const auto r = Relu().value(x);
        return Add(r, r);
    }
};

struct Silu {
    HWY_INLINE V value(V x) const {
        V s, slope;
        logistic(x, s, slope);
        return Mul(x, s);
    }
    HWY_INLINE V slope(V x) const {
        V s, slope;
        logistic(x, s, slope);
        return MulAdd(x, slope, s);
    }
};

struct Sigmoid {
    HWY_INLINE V value(V x) const {
        V s, slope;
        logistic(x, s, slope);
        return s;
    }
    HWY_INLINE V slope(V x) const {
        V s, slope;
        logistic(x, s, slope);
        return slope;
    }
};

/// tanh(x) = 2 sigmoid(2x) - 1, hence the slope 4 sigmoid'(2x).
struct Tanh {
    HWY_INLINE V value(V x) const { return hyperbolic_tangent(x); }
    HWY_INLINE V slope(V x) const { return Mul(constant(4), Sigmoid().slope(Add(x, x))); }
};

struct Erf {
    HWY_INLINE V value(V x) const { return error_function(x); }
    HWY_INLINE V slope(V x) const { return Mul(exp_of(D(), Neg(Mul(x, x))), constant(1.12837916709551257390)); }
};

struct Exponential {
    HWY_INLINE V value(V x) const { return exp_of(D(), x); }
    HWY_INLINE V slope(V x) const { return exp_of(D(), x); }
};

/// body(f), f the struct of `kind`.
template <class Body>
HWY_INLINE void with_function(Activation kind, Body&& body) {
    switch (kind) {
    case Activation::identity: return body(Identity());
    case Activation::gelu: return body(Gelu());
    case Activation::gelu_tanh: return body(GeluTanh());
    case Activation::relu: return body(Relu());
    case Activation::relu2: return body(Relu2());
    case Activation::silu: return body(Silu());
    case Activation::sigmoid: return body(Sigmoid());
    case Activation::tanh: return body(Tanh());
    case Activation::erf: return body(Erf());
    case Activation::exp: return body(Exponential());
    }
}

void forward(Activation kind, real* y, const real* x, std::int64_t n) {
    const D d;
    with_function(kind, [=](auto f) HWY_ATTR {
        for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            at.store(f.value(at.load(d, x + i)), d, y + i);
        });
    });
}

void backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t n) {
    const D d;
    with_function(kind, [=](auto f) HWY_ATTR {
        for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            put(at, d, dx, i, Mul(at.load(d, dy + i), f.slope(at.load(d, x + i))));
        });
    });
}

void bias_rows(Activation kind, real* y, real* pre, const real* x, const real* bias, std::int64_t rows,
               std::int64_t width, std::int64_t stride) {
    const D d;
    real* const sums = kind == Activation::identity || pre == nullptr ? y : pre;
    for (std::int64_t start = 0; start < rows * stride; start += stride) {
        for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            at.store(Add(at.load(d, x + start + i), load_or(at, d, bias, i, Zero(d))), d, sums + start + i);
        });
        if (kind != Activation::identity) forward(kind, y + start, sums + start, width);
    }
}

void gate_rows(Activation kind, real* y, const real* x, std::int64_t rows, std::int64_t width) {
    const D d;
    for (std::int64_t row = 0; row < rows; ++row, y += width, x += 2 * width) {
        const real* const up = x + width;
        forward(kind, y, x, width);
        for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
            at.store(Mul(at.load(d, y + i), at.load(d, up + i)), d, y + i);
        });
    }
}

/// In pieces, for which there is a buffer: dgate = (dy * up) * f'(gate), dup = dy * f(gate).
void gate_backward_rows(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t rows,
                        std::int64_t width) {
    constexpr std::int64_t kPiece = 512;
    HWY_ALIGN real buffer[kPiece];
    real* const piece = buffer;
    const D d;
    for (std::int64_t row = 0; row < rows; ++row, dy += width, x += 2 * width, dx.data += 2 * width) {
        for (std::int64_t begin = 0; begin < width; begin += kPiece) {
            const std::int64_t n = std::min(kPiece, width - begin);
            const real *const gate = x + begin, *const up = gate + width, *const v = dy + begin;
            for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                at.store(Mul(at.load(d, v + i), at.load(d, up + i)), d, piece + i);
            });
            backward(kind, {dx.data + begin, dx.add}, piece, gate, n);
            forward(kind, piece, gate, n);
            const Grad dup{dx.data + width + begin, dx.add};
            for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                put(at, d, dup, i, Mul(at.load(d, v + i), at.load(d, piece + i)));
            });
        }
    }
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(forward);
HWY_EXPORT(backward);
HWY_EXPORT(bias_rows);
HWY_EXPORT(gate_rows);
HWY_EXPORT(gate_backward_rows);

constexpr std::int64_t kGrain = rows_per_task(1);

} // namespace

void activation_forward(Activation kind, real* y, const real* x, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(forward)(kind, y + begin, x + begin, end - begin);
    });
}

void activation_backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(backward)(kind, {dx.data + begin, dx.add}, dy + begin, x + begin, end - begin);
    });
}

void activation_forward_range(Activation kind, real* y, const real* x, std::int64_t n) {
    HWY_DYNAMIC_DISPATCH(forward)(kind, y, x, n);
}

void bias_activation_rows(Activation kind, real* y, real* pre, const real* x, const real* bias, std::int64_t rows,
                          std::int64_t width, std::int64_t stride) {
    HWY_DYNAMIC_DISPATCH(bias_rows)(kind, y, pre, x, bias, rows, width, stride);
}

void glu_forward(Activation kind, real* y, const real* x, std::int64_t rows, std::int64_t width) {
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(gate_rows)(kind, y + begin * width, x + 2 * begin * width, end - begin, width);
    });
}

void glu_backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t rows, std::int64_t width) {
    parallel_ranges(rows, rows_per_task(width), [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(gate_backward_rows)(kind, {dx.data + 2 * begin * width, dx.add}, dy + begin * width,
                                                 x + 2 * begin * width, end - begin, width);
    });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
