#include "ballast/kernels/norm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct LayerNormAttributes {
    double eps;
    bool has_gain;
    bool has_bias;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    for (std::size_t i = 1; i < in.size(); ++i)
        require_shape(in[i] == Shape{in[0].width()}, "layernorm", "gain and bias are [width of x]", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return in[0].rows() * kLayerNormStats; }

/// Inputs are x, then gain and bias where there are any.
template <class Call>
const real* gain_of(const Call& call, const LayerNormAttributes& a) {
    return a.has_gain ? call.inputs[1].data : nullptr;
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<LayerNormAttributes>();
    const Tensor& x = call.inputs[0];
    const real* bias = a.has_bias ? call.inputs.back().data : nullptr;
    layernorm_forward(call.output, call.saved, x.data, gain_of(call, a), bias, x.shape.rows(), x.shape.width(),
                      static_cast<real>(a.eps));
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<LayerNormAttributes>();
    const Tensor& x = call.inputs[0];
    const Grad dgain = a.has_gain ? call.input_grads[1] : Grad{};
    const Grad dbias = a.has_bias ? call.input_grads.back() : Grad{};
    layernorm_backward(call.input_grads[0], dgain, dbias, call.output_grad, x.data, gain_of(call, a), call.saved,
                       x.shape.rows(), x.shape.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {8 * elements, 14 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}}, LayerNormAttributes{1e-5, false, false}},
        {"gain", {{4, 7}, {7}}, LayerNormAttributes{1e-5, true, false}},
        {"bias", {{4, 7}, {7}}, LayerNormAttributes{1e-5, false, true}},
        {"gain, bias, large eps", {{5, 33}, {33}, {33}}, LayerNormAttributes{1e-1, true, true}},
        {"width 1", {{3, 1}, {1}, {1}}, LayerNormAttributes{1e-5, true, true}},
        {"one row", {{1, 16}, {16}, {16}}, LayerNormAttributes{1e-5, true, true}},
    };
}

} // namespace

const OpDef layernorm_op{"layernorm", infer_shape, saved_size, forward, backward, flops, samples};

Var layernorm(Tape& tape, Var x, Var gain, Var bias, double eps) {
    const LayerNormAttributes attributes{eps, static_cast<bool>(gain), static_cast<bool>(bias)};
    if (gain && bias) return tape.record(layernorm_op, {x, gain, bias}, attributes);
    if (gain || bias) return tape.record(layernorm_op, {x, gain ? gain : bias}, attributes);
    return tape.record(layernorm_op, {x}, attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
