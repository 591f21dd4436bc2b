#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    std::int64_t width = 0;
    for (const Shape& x : in) {
        require_shape(x.rank == 2 && x[0] == in[0][0], "concat_columns", "matrices of as many rows each", in);
        width += x[1];
    }
    return {in[0][0], width};
}

void forward(const ForwardCall& call) {
    std::int64_t width = 0, begin = 0;
    for (const Tensor& x : call.inputs)
        width += x.shape[1];
    for (const Tensor& x : call.inputs) {
        put_rows({call.output + begin, false}, width, x.data, x.shape[1], x.shape[0], x.shape[1]);
        begin += x.shape[1];
    }
}

void backward(const BackwardCall& call) {
    std::int64_t begin = 0;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
        const Shape& x = call.inputs[i].shape;
        if (call.input_grads[i])
            put_rows(call.input_grads[i], x[1], call.output_grad + begin, call.output.shape[1], x[0], x[1]);
        begin += x[1];
    }
}

std::vector<OpSample> samples() {
    return {
        {"one", {{3, 4}}, {}},
        {"two", {{3, 5}, {3, 2}}, {}},
        {"three", {{4, 6}, {4, 3}, {4, 3}}, {}},
        {"columns", {{5, 1}, {5, 1}}, {}},
    };
}

} // namespace

const OpDef concat_columns_op{"concat_columns",           infer_shape, saves_nothing, forward, backward,
                              one_flop_per_input_element, samples,     kReadsNothing};

Var concat_columns(Tape& tape, std::initializer_list<Var> parts) { return tape.record(concat_columns_op, parts); }

} // namespace ballast::inline BALLAST_PRECISION::ops
