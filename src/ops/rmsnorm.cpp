#include "ballast/kernels/norm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct RmsNormAttributes {
    double eps;
    RmsNormOptions options;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const double partial = attributes.as<RmsNormAttributes>().options.partial;
    require_shape(partial > 0 && partial <= 1, "rmsnorm", "partial is above 0 and at most 1", in);
    require_shape(in.size() < 2 || in[1] == Shape{in[0].width()}, "rmsnorm", "gain is [width of x]", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return in[0].rows(); }

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<RmsNormAttributes>();
    const Tensor& x = call.inputs[0];
    rmsnorm_forward(call.output, call.saved, x.data, call.inputs.size() > 1 ? call.inputs[1].data : nullptr,
                    x.shape.rows(), x.shape.width(), static_cast<real>(a.eps), a.options);
}

void backward(const BackwardCall& call) {
    const Tensor& x = call.inputs[0];
    const bool has_gain = call.inputs.size() > 1;
    rmsnorm_backward(call.input_grads[0], has_gain ? call.input_grads[1] : Grad{}, call.output_grad, x.data,
                     has_gain ? call.inputs[1].data : nullptr, call.saved, x.shape.rows(), x.shape.width(),
                     call.scratch, call.attributes.as<RmsNormAttributes>().options);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {4 * elements, 10 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}}, RmsNormAttributes{1e-5, {}}},
        {"gain", {{5, 33}, {33}}, RmsNormAttributes{1e-5, {}}},
        {"gain, large eps", {{4, 16}, {16}}, RmsNormAttributes{1e-1, {}}},
        {"unit offset", {{4, 9}, {9}}, RmsNormAttributes{1e-5, {true, 1}}},
        {"unit offset without a gain", {{4, 9}}, RmsNormAttributes{1e-5, {true, 1}}},
        {"partial", {{4, 10}}, RmsNormAttributes{1e-5, {false, 0.25}}},
        {"partial, gain", {{5, 37}, {37}}, RmsNormAttributes{1e-5, {false, 0.5}}},
        {"partial, unit offset, large eps", {{3, 20}, {20}}, RmsNormAttributes{1e-1, {true, 0.0625}}},
        {"width 1", {{3, 1}, {1}}, RmsNormAttributes{1e-2, {}}},
    };
}

} // namespace

const OpDef rmsnorm_op{"rmsnorm", infer_shape, saved_size, forward, backward, flops, samples, kReadsInputs};

Var rmsnorm(Tape& tape, Var x, Var gain, double eps, const RmsNormOptions& options) {
    const RmsNormAttributes attributes{eps, options};
    return gain ? tape.record(rmsnorm_op, {x, gain}, attributes) : tape.record(rmsnorm_op, {x}, attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
