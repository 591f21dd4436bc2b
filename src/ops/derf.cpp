#include "ballast/kernels/squash.h"
#include "ballast/ops/ops.h"
#include "gain_bias.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<GainBias>();
    a.require_shapes("derf", in);
    for (const Shape& scalar : a.others(in))
        require_shape(scalar == Shape{1}, "derf", "alpha and shift are [1]", in);
    return in[0];
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<GainBias>();
    const Tensor& x = call.inputs[0];
    const std::span<const Tensor> scalars = a.others(call.inputs);
    squash_forward(Squash::erf, call.output, x.data, *scalars[0].data, *scalars[1].data, a.gain(call.inputs).data,
                   a.bias(call.inputs).data, x.shape.rows(), x.shape.width());
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<GainBias>();
    const Tensor& x = call.inputs[0];
    const std::span<const Tensor> scalars = a.others(call.inputs);
    const SquashGrads grads{call.input_grads[0], a.gain(call.input_grads), a.bias(call.input_grads),
                            a.others(call.input_grads)[0], a.others(call.input_grads)[1]};
    squash_backward(Squash::erf, grads, call.output_grad, x.data, *scalars[0].data, *scalars[1].data,
                    a.gain(call.inputs).data, x.shape.rows(), x.shape.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {40 * elements, 50 * elements}; // the error function takes most of them
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{4, 7}, {1}, {1}}, GainBias{false, false}, -2, 2},
        {"gain", {{4, 7}, {7}, {1}, {1}}, GainBias{true, false}, -2, 2},
        {"bias", {{4, 7}, {7}, {1}, {1}}, GainBias{false, true}, -2, 2},
        {"gain, bias", {{5, 33}, {33}, {33}, {1}, {1}}, GainBias{true, true}, -2, 2},
        {"width 1", {{3, 1}, {1}, {1}, {1}, {1}}, GainBias{true, true}, -2, 2},
    };
}

} // namespace

const OpDef derf_op{"derf", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsInputs};

Var derf(Tape& tape, Var x, Var alpha, Var shift, Var gain, Var bias) {
    return record_with(tape, derf_op, x, gain, bias, {alpha, shift}, given(gain, bias));
}

} // namespace ballast::inline BALLAST_PRECISION::ops
