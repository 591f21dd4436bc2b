#include "ballast/kernels/squash.h"
#include "ballast/ops/ops.h"
#include "gain_bias.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<GainBias>();
    a.require_shapes("dyt", in);
    require_shape(a.others(in)[0] == Shape{1}, "dyt", "alpha is [1]", in);
    return in[0];
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<GainBias>();
    const Tensor& x = call.inputs[0];
    squash_forward(Squash::tanh, call.output, x.data, *a.others(call.inputs)[0].data, 0, a.gain(call.inputs).data,
                   a.bias(call.inputs).data, x.shape.rows(), x.shape.width());
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<GainBias>();
    const Tensor& x = call.inputs[0];
    const SquashGrads grads{
        call.input_grads[0], a.gain(call.input_grads), a.bias(call.input_grads), a.others(call.input_grads)[0], {}};
    squash_backward(Squash::tanh, grads, call.output_grad, x.data, *a.others(call.inputs)[0].data, 0,
                    a.gain(call.inputs).data, x.shape.rows(), x.shape.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {20 * elements, 30 * elements}; // the hyperbolic tangent takes most of them
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}, {1}}, GainBias{false, false}, -3, 3},
        {"gain", {{4, 7}, {7}, {1}}, GainBias{true, false}, -3, 3},
        {"bias", {{4, 7}, {7}, {1}}, GainBias{false, true}, -3, 3},
        {"gain, bias", {{5, 33}, {33}, {33}, {1}}, GainBias{true, true}, -2, 2},
        {"width 1", {{3, 1}, {1}, {1}, {1}}, GainBias{true, true}, -3, 3},
    };
}

} // namespace

const OpDef dyt_op{"dyt", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsInputs};

Var dyt(Tape& tape, Var x, Var alpha, Var gain, Var bias) {
    return record_with(tape, dyt_op, x, gain, bias, {alpha}, given(gain, bias));
}

} // namespace ballast::inline BALLAST_PRECISION::ops
