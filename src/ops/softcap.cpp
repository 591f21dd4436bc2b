#include "ballast/kernels/activation.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct SoftcapAttributes {
    double cap;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) { return in[0]; }

void forward(const ForwardCall& call) {
    softcap_forward(call.output, call.inputs[0].data, static_cast<real>(call.attributes.as<SoftcapAttributes>().cap),
                    call.inputs[0].shape.elements());
}

void backward(const BackwardCall& call) {
    if (call.input_grads[0])
        softcap_backward(call.input_grads[0], call.output_grad, call.inputs[0].data,
                         static_cast<real>(call.attributes.as<SoftcapAttributes>().cap), call.output.shape.elements());
}

std::vector<OpSample> samples() {
    return {
        {"near the cap", {{3, 5}}, SoftcapAttributes{0.7}, -2, 2},
        {"far below it", {{2, 17}}, SoftcapAttributes{30}, -2, 2},
        {"size 1", {{1, 1}}, SoftcapAttributes{2}, -4, 4},
    };
}

} // namespace

const OpDef softcap_op{"softcap", infer_shape, saves_nothing, forward, backward, one_flop_per_input_element,
                       samples,   kReadsInputs};

Var softcap(Tape& tape, Var x, double cap) { return tape.record(softcap_op, {x}, SoftcapAttributes{cap}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
