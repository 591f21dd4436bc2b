#include "ballast/kernels/activation.h"

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct ActivationAttributes {
    Activation kind;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) { return in[0]; }

void forward(const ForwardCall& call) {
    activation_forward(call.attributes.as<ActivationAttributes>().kind, call.output, call.inputs[0].data,
                       call.inputs[0].shape.elements());
}

void backward(const BackwardCall& call) {
    if (call.input_grads[0])
        activation_backward(call.attributes.as<ActivationAttributes>().kind, call.input_grads[0], call.output_grad,
                            call.inputs[0].data, call.inputs[0].shape.elements());
}

std::vector<OpSample> samples() {
    return {
        {"identity", {{3, 5}}, ActivationAttributes{Activation::identity}},
        {"gelu", {{3, 5}}, ActivationAttributes{Activation::gelu}, -4, 4},
        {"gelu_tanh", {{3, 5}}, ActivationAttributes{Activation::gelu_tanh}, -4, 4},
        {"relu", {{3, 5}}, ActivationAttributes{Activation::relu}, -2, 2},
        {"relu2", {{3, 5}}, ActivationAttributes{Activation::relu2}, -2, 2},
        {"silu", {{3, 5}}, ActivationAttributes{Activation::silu}, -4, 4},
        {"sigmoid", {{1, 1}}, ActivationAttributes{Activation::sigmoid}, -4, 4},
        {"tanh", {{2, 17}}, ActivationAttributes{Activation::tanh}, -3, 3},
        {"erf", {{2, 17}}, ActivationAttributes{Activation::erf}, -3, 3},
        {"exp", {{3, 5}}, ActivationAttributes{Activation::exp}, -3, 3},
    };
}

} // namespace

const OpDef activation_op{"activation", infer_shape, saves_nothing, forward, backward, one_flop_per_input_element,
                          samples,      kReadsInputs};

Var activation(Tape& tape, Var x, Activation kind) {
    return tape.record(activation_op, {x}, ActivationAttributes{kind});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
