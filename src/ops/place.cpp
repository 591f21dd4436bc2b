#include <algorithm>

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct PlaceAttributes {
    std::int64_t row, column; ///< where x's first element goes
    std::int64_t rows, width; ///< of the result
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<PlaceAttributes>();
    require_shape(
        in[0].rank == 2 && a.row >= 0 && a.column >= 0 && a.row + in[0][0] <= a.rows && a.column + in[0][1] <= a.width,
        "place",
        [&] {
            return "x fits into " + Shape{a.rows, a.width}.text() + " at its place";
        },
        in);
    return {a.rows, a.width};
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<PlaceAttributes>();
    const Shape& x = call.inputs[0].shape;
    std::fill_n(call.output, a.rows * a.width, real{0});
    for (std::int64_t row = 0; row < x[0]; ++row)
        std::copy_n(call.inputs[0].data + row * x[1], x[1], call.output + (a.row + row) * a.width + a.column);
}

void backward(const BackwardCall& call) {
    const Grad grad = call.input_grads[0];
    if (!grad) return;
    const auto a = call.attributes.as<PlaceAttributes>();
    const Shape& x = call.inputs[0].shape;
    for (std::int64_t row = 0; row < x[0]; ++row)
        for (std::int64_t i = 0; i < x[1]; ++i) {
            const real d = call.output_grad[(a.row + row) * a.width + a.column + i];
            real& target = grad.data[row * x[1] + i];
            target = grad.add ? target + d : d;
        }
}

std::vector<OpSample> samples() {
    return {
        {"inside", {{2, 3}}, PlaceAttributes{1, 2, 4, 6}},
        {"whole", {{2, 3}}, PlaceAttributes{0, 0, 2, 3}},
        {"size 1", {{1, 1}}, PlaceAttributes{0, 1, 1, 2}},
    };
}

} // namespace

const OpDef place_op{"place", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                     samples, kReadsNothing};

Var place(Tape& tape, Var x, std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t width) {
    return tape.record(place_op, {x}, PlaceAttributes{row, column, rows, width});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
