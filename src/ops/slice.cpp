#include <algorithm>

#include "ballast/base/parallel.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto w = attributes.as<Window>();
    require_shape(in[0].rank == 2 && w.row >= 0 && w.column >= 0 && w.row + w.rows <= in[0][0] &&
                      w.column + w.columns <= in[0][1],
                  "slice", "the window lies within x", in);
    return {w.rows, w.columns};
}

void forward(const ForwardCall& call) {
    const auto w = call.attributes.as<Window>();
    const std::int64_t width = call.inputs[0].shape[1];
    put_rows({call.output, false}, w.columns, call.inputs[0].data + w.row * width + w.column, width, w.rows, w.columns);
}

void backward(const BackwardCall& call) {
    const Grad grad = call.input_grads[0];
    if (!grad) return;
    const auto w = call.attributes.as<Window>();
    const Shape& x = call.inputs[0].shape;
    if (!grad.add)
        parallel_ranges(x[0], rows_per_task(x[1]), [&](std::int64_t begin, std::int64_t end) {
            std::fill_n(grad.data + begin * x[1], (end - begin) * x[1], real{0});
        });
    put_rows({grad.data + w.row * x[1] + w.column, grad.add}, x[1], call.output_grad, w.columns, w.rows, w.columns);
}

std::vector<OpSample> samples() {
    return {
        {"inside", {{5, 6}}, Window{1, 3, 2, 2}},
        {"whole", {{2, 3}}, Window{0, 2, 0, 3}},
        {"size 1", {{4, 4}}, Window{3, 1, 3, 1}},
    };
}

} // namespace

const OpDef slice_op{"slice", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                     samples, kReadsNothing};

Var slice(Tape& tape, Var x, const Window& window) { return tape.record(slice_op, {x}, window); }

} // namespace ballast::inline BALLAST_PRECISION::ops
