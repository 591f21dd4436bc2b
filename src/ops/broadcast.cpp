#include "ballast/base/parallel.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct BroadcastAttributes {
    std::int64_t rows;
    std::int64_t width;
};

bool is_column(const Shape& x, const BroadcastAttributes& a) { return x == Shape{a.rows, 1}; }

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<BroadcastAttributes>();
    require_shape(
        is_column(in[0], a) || in[0] == Shape{a.width} || in[0] == Shape{1, a.width}, "broadcast",
        [&] {
            return "x is a column or a row of " + Shape{a.rows, a.width}.text();
        },
        in);
    return {a.rows, a.width};
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<BroadcastAttributes>();
    const bool column = is_column(call.inputs[0].shape, a);
    const real* x = call.inputs[0].data;
    parallel_ranges(a.rows, rows_per_task(a.width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row)
            for (std::int64_t i = 0; i < a.width; ++i)
                call.output[row * a.width + i] = x[column ? row : i];
    });
}

void backward(const BackwardCall& call) {
    const Grad grad = call.input_grads[0];
    if (!grad) return;
    const auto a = call.attributes.as<BroadcastAttributes>();
    const bool column = is_column(call.inputs[0].shape, a);
    parallel_for(column ? a.rows : a.width, [&](std::int64_t target) {
        double sum = 0;
        for (std::int64_t i = 0; i < (column ? a.width : a.rows); ++i)
            sum += static_cast<double>(call.output_grad[column ? target * a.width + i : i * a.width + target]);
        grad.data[target] = static_cast<real>(sum) + (grad.add ? grad.data[target] : real{0});
    });
}

std::vector<OpSample> samples() {
    return {
        {"column", {{3, 1}}, BroadcastAttributes{3, 5}},
        {"row", {{5}}, BroadcastAttributes{3, 5}},
        {"row matrix", {{1, 4}}, BroadcastAttributes{6, 4}},
        {"size 1", {{1, 1}}, BroadcastAttributes{1, 1}},
    };
}

} // namespace

const OpDef broadcast_op{"broadcast", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                         samples,     kReadsNothing};

Var broadcast(Tape& tape, Var x, std::int64_t rows, std::int64_t width) {
    return tape.record(broadcast_op, {x}, BroadcastAttributes{rows, width});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
