#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto shape = attributes.as<Shape>();
    require_shape(shape.elements() == in[0].elements(), "reshape", "x has as many elements as " + shape.text(), in);
    return shape;
}

void forward(const ForwardCall& call) {
    add_scaled({call.output, false}, 1, call.inputs[0].data, call.inputs[0].shape.elements());
}

void backward(const BackwardCall& call) {
    if (call.input_grads[0]) add_scaled(call.input_grads[0], 1, call.output_grad, call.output.shape.elements());
}

std::vector<OpSample> samples() {
    return {
        {"narrower", {{3, 10}}, Shape{6, 5}},
        {"wider", {{6, 4}}, Shape{2, 12}},
        {"rank 4", {{2, 6}}, Shape{1, 2, 2, 3}},
        {"scalar", {{1, 1}}, Shape{}},
    };
}

} // namespace

const OpDef reshape_op{"reshape", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                       samples,   kReadsNothing};

Var reshape(Tape& tape, Var x, const Shape& shape) { return tape.record(reshape_op, {x}, shape); }

} // namespace ballast::inline BALLAST_PRECISION::ops
