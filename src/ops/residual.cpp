#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[0] == in[1], "residual", "x and branch have one shape", in);
    return in[0];
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<ResidualAttributes>();
    axpby(call.output, static_cast<real>(a.skip_scale), call.inputs[0].data, static_cast<real>(a.branch_scale),
          call.inputs[1].data, call.inputs[0].shape.elements());
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<ResidualAttributes>();
    const std::int64_t n = call.output.shape.elements();
    if (call.input_grads[0]) add_scaled(call.input_grads[0], static_cast<real>(a.skip_scale), call.output_grad, n);
    if (call.input_grads[1]) add_scaled(call.input_grads[1], static_cast<real>(a.branch_scale), call.output_grad, n);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {2 * elements, 2 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{3, 5}, {3, 5}}, ResidualAttributes{1, 1}},
        {"scaled", {{4, 4}, {4, 4}}, ResidualAttributes{1.7, -0.3}},
        {"size 1", {{1, 1}, {1, 1}}, ResidualAttributes{1, 0.5}},
    };
}

} // namespace

const OpDef residual_op{"residual", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsNothing};

Var residual(Tape& tape, Var x, Var branch, double skip_scale, double branch_scale) {
    return tape.record(residual_op, {x, branch}, ResidualAttributes{skip_scale, branch_scale});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
