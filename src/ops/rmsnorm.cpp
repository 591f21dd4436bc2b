#include "ballast/kernels/norm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct RmsNormAttributes {
    double eps;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in.size() < 2 || in[1] == Shape{in[0].width()}, "rmsnorm", "gain is [width of x]", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return in[0].rows(); }

void forward(const ForwardCall& call) {
    const Tensor& x = call.inputs[0];
    rmsnorm_forward(call.output, call.saved, x.data, call.inputs.size() > 1 ? call.inputs[1].data : nullptr,
                    x.shape.rows(), x.shape.width(), static_cast<real>(call.attributes.as<RmsNormAttributes>().eps));
}

void backward(const BackwardCall& call) {
    const Tensor& x = call.inputs[0];
    const bool has_gain = call.inputs.size() > 1;
    rmsnorm_backward(call.input_grads[0], has_gain ? call.input_grads[1] : Grad{}, call.output_grad, x.data,
                     has_gain ? call.inputs[1].data : nullptr, call.saved, x.shape.rows(), x.shape.width(),
                     call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {4 * elements, 10 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}}, RmsNormAttributes{1e-5}},
        {"gain", {{5, 33}, {33}}, RmsNormAttributes{1e-5}},
        {"gain, large eps", {{4, 16}, {16}}, RmsNormAttributes{1e-1}},
        {"width 1", {{3, 1}, {1}}, RmsNormAttributes{1e-2}},
    };
}

} // namespace

const OpDef rmsnorm_op{"rmsnorm", infer_shape, saved_size, forward, backward, flops, samples};

Var rmsnorm(Tape& tape, Var x, Var gain, double eps) {
    const RmsNormAttributes attributes{eps};
    return gain ? tape.record(rmsnorm_op, {x, gain}, attributes) : tape.record(rmsnorm_op, {x}, attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
