// Non-linearities. Each is a struct with its value and its slope, from which two loops over arrays are made: forward
// and backward. Bias and gates are rows, or pieces of rows, around these two while they are in the first-level cache.
//
// Those built on the logistic function share one form: with e = exp(-|v|), which cannot overflow, sigmoid(v) is
// 1/(1+e) or e/(1+e) by the sign of v, and its slope e/(1+e)^2. Nothing is computed as 1 - (almost 1), so that tails
// keep their relative accuracy; GPT-2's GELU is x sigmoid(2u), as (1 + tanh u)/2 = sigmoid(2u).

#include "ballast/kernels/activation.h"

#include <algorithm>

#include "ballast/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/activation.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "math-inl.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

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

struct Tanh {
    HWY_INLINE V value(V x) const { return hyperbolic_tangent(x); }
    HWY_INLINE V slope(V x) const { return hyperbolic_tangent_slope(hyperbolic_tangent(x)); }
};

struct Erf {
    HWY_INLINE V value(V x) const { return error_function(x); }
    HWY_INLINE V slope(V x) const { return error_function_slope(x); }
};

struct Exponential {
    HWY_INLINE V value(V x) const { return exp_of(D(), x); }
    HWY_INLINE V slope(V x) const { return exp_of(D(), x); }
};

/// cap tanh(x / cap).
struct SoftCap {
    V cap, inverse;
    explicit HWY_INLINE SoftCap(real limit) : cap(Set(D(), limit)), inverse(Set(D(), 1 / limit)) {}
    HWY_INLINE V value(V x) const { return Mul(cap, Tanh().value(Mul(x, inverse))); }
    HWY_INLINE V slope(V x) const { return Tanh().slope(Mul(x, inverse)); }
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

template <class F>
HWY_INLINE void forward_by(F f, real* y, const real* x, std::int64_t n) {
    const D d;
    for_vectors(d, n,
                [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA { at.store(f.value(at.load(d, x + i)), d, y + i); });
}

template <class F>
HWY_INLINE void backward_by(F f, Grad dx, const real* dy, const real* x, std::int64_t n) {
    const D d;
    for_vectors(d, n, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
        put(at, d, dx, i, Mul(at.load(d, dy + i), f.slope(at.load(d, x + i))));
    });
}

void forward(Activation kind, real* y, const real* x, std::int64_t n) {
    with_function(kind, [=](auto f) HWY_ATTR { forward_by(f, y, x, n); });
}

void backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t n) {
    with_function(kind, [=](auto f) HWY_ATTR { backward_by(f, dx, dy, x, n); });
}

void softcap(real* y, const real* x, real cap, std::int64_t n) { forward_by(SoftCap(cap), y, x, n); }

void softcap_gradient(Grad dx, const real* dy, const real* x, real cap, std::int64_t n) {
    backward_by(SoftCap(cap), dx, dy, x, n);
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
HWY_EXPORT(softcap);
HWY_EXPORT(softcap_gradient);
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

void softcap_forward(real* y, const real* x, real cap, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(softcap)(y + begin, x + begin, cap, end - begin);
    });
}

void softcap_backward(Grad dx, const real* dy, const real* x, real cap, std::int64_t n) {
    parallel_ranges(n, kGrain, [=](std::int64_t begin, std::int64_t end) {
        HWY_DYNAMIC_DISPATCH(softcap_gradient)({dx.data + begin, dx.add}, dy + begin, x + begin, cap, end - begin);
    });
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
