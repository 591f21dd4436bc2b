#include "ballast/kernels/column_scale.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[1].rank == 1 && in[0].width() % in[1].width() == 0, "head_scale",
                  "x is [rows, heads * head_width], scale [heads]", in);
    return in[0];
}

void forward(const ForwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    const Tensor& scale = call.inputs[1];
    column_scale_forward(call.output, 0, nullptr, 1, call.inputs[0].data, scale.data, scale.shape.width(), x.rows(),
                         x.width(), call.scratch);
}

void backward(const BackwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    const Tensor& scale = call.inputs[1];
    column_scale_backward(call.input_grads[0], call.input_grads[1], call.output_grad, 1, call.inputs[0].data,
                          scale.data, scale.shape.width(), x.rows(), x.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {elements, 3 * elements};
}

std::vector<OpSample> samples() {
    return {
        {"two heads", {{3, 10}, {2}}, {}},
        {"one head", {{4, 7}, {1}}, {}},
        {"heads of width 1", {{4, 5}, {5}}, {}},
        {"size 1", {{1, 1}, {1}}, {}},
    };
}

} // namespace

const OpDef head_scale_op{"head_scale", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsInputs};

Var head_scale(Tape& tape, Var x, Var scale) { return tape.record(head_scale_op, {x, scale}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
