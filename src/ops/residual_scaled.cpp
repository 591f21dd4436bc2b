#include "ballast/kernels/column_scale.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[0] == in[1], "residual_scaled", "x and branch have one shape", in);
    require_shape(in[2] == Shape{1} || in[2] == Shape{in[0].width()}, "residual_scaled", "scale is [1] or [width of x]",
                  in);
    return in[0];
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<ResidualAttributes>();
    const Shape& x = call.inputs[0].shape;
    const Tensor& scale = call.inputs[2];
    column_scale_forward(call.output, static_cast<real>(a.skip_scale), call.inputs[0].data,
                         static_cast<real>(a.branch_scale), call.inputs[1].data, scale.data, scale.shape.width(),
                         x.rows(), x.width(), call.scratch);
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<ResidualAttributes>();
    const Shape& x = call.inputs[0].shape;
    const Tensor& scale = call.inputs[2];
    if (call.input_grads[0])
        add_scaled(call.input_grads[0], static_cast<real>(a.skip_scale), call.output_grad, x.elements());
    column_scale_backward(call.input_grads[1], call.input_grads[2], call.output_grad, static_cast<real>(a.branch_scale),
                          call.inputs[1].data, scale.data, scale.shape.width(), x.rows(), x.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {3 * elements, 5 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"scalar", {{3, 5}, {3, 5}, {1}}, ResidualAttributes{1, 1}},
        {"vector", {{4, 7}, {4, 7}, {7}}, ResidualAttributes{1, 1}},
        {"vector, constants", {{5, 33}, {5, 33}, {33}}, ResidualAttributes{1.7, -0.3}},
        {"scalar, constants", {{4, 6}, {4, 6}, {1}}, ResidualAttributes{0.5, 2}},
        {"size 1", {{1, 1}, {1, 1}, {1}}, ResidualAttributes{1, 0.5}},
    };
}

} // namespace

const OpDef residual_scaled_op{"residual_scaled", infer_shape, saves_nothing, forward,
                               backward,          flops,       samples,       BackwardReads{0b110, false}};

Var residual_scaled(Tape& tape, Var x, Var branch, Var scale, double skip_scale, double branch_scale) {
    return tape.record(residual_scaled_op, {x, branch, scale}, ResidualAttributes{skip_scale, branch_scale});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
