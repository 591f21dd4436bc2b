#include "ballast/kernels/norm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct ScaleNormAttributes {
    double eps;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[1] == Shape{1}, "scalenorm", "gain is [1]", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return in[0].rows(); }

void forward(const ForwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    scalenorm_forward(call.output, call.saved, call.inputs[0].data, *call.inputs[1].data, x.rows(), x.width(),
                      static_cast<real>(call.attributes.as<ScaleNormAttributes>().eps));
}

void backward(const BackwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    scalenorm_backward(call.input_grads[0], call.input_grads[1], call.output_grad, call.inputs[0].data,
                       *call.inputs[1].data, call.saved, x.rows(), x.width(),
                       static_cast<real>(call.attributes.as<ScaleNormAttributes>().eps), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {4 * elements, 7 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{5, 7}, {1}}, ScaleNormAttributes{1e-5}},
        {"shorter than eps", {{4, 6}, {1}}, ScaleNormAttributes{100}},
        {"width 33", {{3, 33}, {1}}, ScaleNormAttributes{1e-5}},
        {"width 1", {{3, 1}, {1}}, ScaleNormAttributes{1e-5}},
    };
}

} // namespace

const OpDef scalenorm_op{"scalenorm", infer_shape, saved_size, forward, backward, flops, samples, kReadsInputs};

Var scalenorm(Tape& tape, Var x, Var gain, double eps) {
    return tape.record(scalenorm_op, {x, gain}, ScaleNormAttributes{eps});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
