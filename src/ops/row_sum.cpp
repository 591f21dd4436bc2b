#include "ballast/base/parallel.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes&) { return {in[0].rows(), 1}; }

void forward(const ForwardCall& call) {
    const std::int64_t width = call.inputs[0].shape.width();
    parallel_ranges(call.inputs[0].shape.rows(), rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            const real* x = call.inputs[0].data + row * width;
            double sum = 0;
            for (std::int64_t i = 0; i < width; ++i)
                sum += static_cast<double>(x[i]);
            call.output[row] = static_cast<real>(sum);
        }
    });
}

void backward(const BackwardCall& call) {
    const Grad grad = call.input_grads[0];
    if (!grad) return;
    const std::int64_t width = call.inputs[0].shape.width();
    parallel_ranges(call.inputs[0].shape.rows(), rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
            for (std::int64_t i = row * width; i < (row + 1) * width; ++i)
                grad.data[i] = grad.add ? grad.data[i] + call.output_grad[row] : call.output_grad[row];
    });
}

std::vector<OpSample> samples() {
    return {{"matrix", {{3, 5}}, {}}, {"column", {{4, 1}}, {}}, {"size 1", {{1, 1}}, {}}};
}

} // namespace

const OpDef row_sum_op{"row_sum", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                       samples,   kReadsNothing};

Var row_sum(Tape& tape, Var x) { return tape.record(row_sum_op, {x}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
