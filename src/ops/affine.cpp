#include "ballast/base/parallel.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct AffineAttributes {
    double a;
    double b;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) { return in[0]; }

void forward(const ForwardCall& call) {
    const auto attributes = call.attributes.as<AffineAttributes>();
    const auto a = static_cast<real>(attributes.a);
    const auto b = static_cast<real>(attributes.b);
    const real* x = call.inputs[0].data;
    parallel_ranges(call.inputs[0].shape.elements(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            call.output[i] = a * x[i] + b;
    });
}

void backward(const BackwardCall& call) {
    if (call.input_grads[0])
        add_scaled(call.input_grads[0], static_cast<real>(call.attributes.as<AffineAttributes>().a), call.output_grad,
                   call.output.shape.elements());
}

std::vector<OpSample> samples() {
    return {
        {"scale and shift", {{3, 5}}, AffineAttributes{-1.5, 2}},
        {"constant", {{3, 5}}, AffineAttributes{0, 1}},
    };
}

} // namespace

const OpDef affine_op{"affine", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                      samples,  kReadsNothing};

Var affine(Tape& tape, Var x, double a, double b) { return tape.record(affine_op, {x}, AffineAttributes{a, b}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
