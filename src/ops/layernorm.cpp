#include "ballast/kernels/norm.h"
#include "ballast/ops/ops.h"
#include "gain_bias.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct LayerNormAttributes {
    double eps;
    GainBias given;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    attributes.as<LayerNormAttributes>().given.require_shapes("layernorm", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return in[0].rows() * kLayerNormStats; }

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<LayerNormAttributes>();
    const Tensor& x = call.inputs[0];
    layernorm_forward(call.output, call.saved, x.data, a.given.gain(call.inputs).data, a.given.bias(call.inputs).data,
                      x.shape.rows(), x.shape.width(), static_cast<real>(a.eps));
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<LayerNormAttributes>();
    const Tensor& x = call.inputs[0];
    layernorm_backward(call.input_grads[0], a.given.gain(call.input_grads), a.given.bias(call.input_grads),
                       call.output_grad, x.data, a.given.gain(call.inputs).data, call.saved, x.shape.rows(),
                       x.shape.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {8 * elements, 14 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}}, LayerNormAttributes{1e-5, {false, false}}},
        {"gain", {{4, 7}, {7}}, LayerNormAttributes{1e-5, {true, false}}},
        {"bias", {{4, 7}, {7}}, LayerNormAttributes{1e-5, {false, true}}},
        {"gain, bias, large eps", {{5, 33}, {33}, {33}}, LayerNormAttributes{1e-1, {true, true}}},
        {"width 1", {{3, 1}, {1}, {1}}, LayerNormAttributes{1e-5, {true, true}}},
        {"one row", {{1, 16}, {16}, {16}}, LayerNormAttributes{1e-5, {true, true}}},
    };
}

} // namespace

const OpDef layernorm_op{"layernorm", infer_shape, saved_size, forward, backward, flops, samples, kReadsInputs};

Var layernorm(Tape& tape, Var x, Var gain, Var bias, double eps) {
    return record_with(tape, layernorm_op, x, gain, bias, {}, LayerNormAttributes{eps, given(gain, bias)});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
