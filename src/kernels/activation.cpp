// Non-linearities. Each is a struct with its value and its slope; everything else is loops over arrays, written once.
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
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = ScalableTag<real>;
using V = Vec<D>;

HWY_INLINE V constant(double value) { return Set(D(), static_cast<real>(value)); }

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
    HWY_INLINE V distribution(V x) const {
        const auto half = constant(0.5);
        return MulAdd(half, erf_of(D(), Mul(x, constant(0.70710678118654752440))), half);
    }
    HWY_INLINE V value(V x) const { return Mul(x, distribution(x)); }
    HWY_INLINE V slope(V x) const {
        const auto density = Mul(exp_of(D(), Mul(constant(-0.5), Mul(x, x))), constant(0.39894228040143267794));
        return MulAdd(x, density, distribution(x));
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
        const auto far = constant(32);
        const auto near = IfThenElse(Gt(Abs(x), far), CopySign(far, x), x);
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
    HWY_INLINE V value(V x) const { return tanh_of(D(), x); }
    HWY_INLINE V slope(V x) const { return Mul(constant(4), Sigmoid().slope(Add(x, x))); }
};

struct Erf {
    HWY_INLINE V value(V x) const { return erf_of(D(), x); }
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
        for_vectors(d, n, [=](auto at, std::int64_t i)
                              BALLAST_INLINE_LAMBDA { at.store(f.value(at.load(d, x + i)), d, y + i); });
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
    real* const sums = kind == Activation::identity ? nullptr : pre;
    with_function(kind, [=](auto f) HWY_ATTR {
        for (std::int64_t start = 0; start < rows * stride; start += stride)
            for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                const auto sum = Add(at.load(d, x + start + i), load_or(at, d, bias, i, Zero(d)));
                if (sums != nullptr) at.store(sum, d, sums + start + i);
                at.store(f.value(sum), d, y + start + i);
            });
    });
}

void gate_rows(Activation kind, real* y, const real* x, std::int64_t rows, std::int64_t width) {
    const D d;
    with_function(kind, [=](auto f) HWY_ATTR {
        for (std::int64_t row = 0; row < rows; ++row) {
            const real* const gate = x + 2 * row * width;
            const real* const up = gate + width;
            for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                at.store(Mul(f.value(at.load(d, gate + i)), at.load(d, up + i)), d, y + row * width + i);
            });
        }
    });
}

void gate_backward_rows(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t rows,
                        std::int64_t width) {
    const D d;
    with_function(kind, [=](auto f) HWY_ATTR {
        for (std::int64_t row = 0; row < rows; ++row) {
            const std::int64_t gate = 2 * row * width, up = gate + width;
            for_vectors(d, width, [=](auto at, std::int64_t i) BALLAST_INLINE_LAMBDA {
                const auto g = at.load(d, x + gate + i);
                const auto v = at.load(d, dy + row * width + i);
                put(at, d, dx, gate + i, Mul(Mul(v, at.load(d, x + up + i)), f.slope(g)));
                put(at, d, dx, up + i, Mul(v, f.value(g)));
            });
        }
    });
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
