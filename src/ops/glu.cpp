#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct GluAttributes {
    Activation kind;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[0].rank == 2 && in[0][1] % 2 == 0, "glu", "x is [rows, 2 width]", in);
    return {in[0][0], in[0][1] / 2};
}

void forward(const ForwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    glu_forward(call.attributes.as<GluAttributes>().kind, call.output, call.inputs[0].data, x[0], x[1] / 2);
}

void backward(const BackwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    if (call.input_grads[0])
        glu_backward(call.attributes.as<GluAttributes>().kind, call.input_grads[0], call.output_grad,
                     call.inputs[0].data, x[0], x[1] / 2);
}

std::vector<OpSample> samples() {
    return {
        {"swiglu", {{3, 10}}, GluAttributes{Activation::silu}, -3, 3},
        {"geglu", {{2, 34}}, GluAttributes{Activation::gelu}, -3, 3},
        {"geglu, tanh form", {{5, 6}}, GluAttributes{Activation::gelu_tanh}, -3, 3},
        {"size 1", {{1, 2}}, GluAttributes{Activation::sigmoid}},
    };
}

} // namespace

const OpDef glu_op{"glu",   infer_shape, saves_nothing, forward, backward, one_flop_per_input_element,
                   samples, kReadsInputs};

Var glu(Tape& tape, Var x, Activation kind) { return tape.record(glu_op, {x}, GluAttributes{kind}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
