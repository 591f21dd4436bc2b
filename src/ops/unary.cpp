#include <cmath>

#include "ballast/base/parallel.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

constexpr std::int64_t kGrain = 1 << 14;

struct UnaryAttributes {
    Unary kind;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) { return in[0]; }

real apply(Unary kind, real x) {
    switch (kind) {
    case Unary::log: return std::log(x);
    case Unary::sqrt: return std::sqrt(x);
    case Unary::square: return x * x;
    case Unary::reciprocal: return 1 / x;
    }
    return 0;
}

real derivative(Unary kind, real x) {
    switch (kind) {
    case Unary::log: return 1 / x;
    case Unary::sqrt: return real{0.5} / std::sqrt(x);
    case Unary::square: return 2 * x;
    case Unary::reciprocal: return -1 / (x * x);
    }
    return 0;
}

void forward(const ForwardCall& call) {
    const auto kind = call.attributes.as<UnaryAttributes>().kind;
    const real* x = call.inputs[0].data;
    parallel_ranges(call.inputs[0].shape.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            call.output[i] = apply(kind, x[i]);
    });
}

void backward(const BackwardCall& call) {
    const auto kind = call.attributes.as<UnaryAttributes>().kind;
    const real* x = call.inputs[0].data;
    const Grad grad = call.input_grads[0];
    if (!grad) return;
    parallel_ranges(call.inputs[0].shape.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const real d = call.output_grad[i] * derivative(kind, x[i]);
            grad.data[i] = grad.add ? grad.data[i] + d : d;
        }
    });
}

std::vector<OpSample> samples() {
    return {
        {"log", {{3, 5}}, UnaryAttributes{Unary::log}, 0.5, 3},
        {"sqrt", {{3, 5}}, UnaryAttributes{Unary::sqrt}, 0.5, 3},
        {"square", {{3, 5}}, UnaryAttributes{Unary::square}, -2, 2},
        {"reciprocal", {{3, 5}}, UnaryAttributes{Unary::reciprocal}, 0.5, 3},
    };
}

} // namespace

const OpDef unary_op{"unary", infer_shape, saves_nothing, forward, backward, one_flop_per_input_element,
                     samples, kReadsInputs};

Var unary(Tape& tape, Unary kind, Var x) { return tape.record(unary_op, {x}, UnaryAttributes{kind}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
