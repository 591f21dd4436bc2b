#include "ballast/kernels/gemm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct MatmulAttributes {
    bool transpose_a;
    bool transpose_b;
};

struct Extents {
    std::int64_t m, n, k;
};

Extents extents(const Shape& a, const Shape& b, const MatmulAttributes& t) {
    return {a[t.transpose_a ? 1 : 0], b[t.transpose_b ? 0 : 1], a[t.transpose_a ? 0 : 1]};
}

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto t = attributes.as<MatmulAttributes>();
    require_shape(in[0].rank == 2 && in[1].rank == 2 && in[0][t.transpose_a ? 0 : 1] == in[1][t.transpose_b ? 1 : 0],
                  "matmul", "the inner extents of two matrices agree", in);
    const Extents e = extents(in[0], in[1], t);
    return {e.m, e.n};
}

MatrixRef matrix(const Tensor& x, bool transposed) { return {x.data, x.shape[1], transposed}; }

void forward(const ForwardCall& call) {
    const auto t = call.attributes.as<MatmulAttributes>();
    const Extents e = extents(call.inputs[0].shape, call.inputs[1].shape, t);
    gemm(e.m, e.n, e.k, 1, matrix(call.inputs[0], t.transpose_a), matrix(call.inputs[1], t.transpose_b),
         {call.output, false}, e.n, call.scratch);
}

void backward(const BackwardCall& call) {
    const auto t = call.attributes.as<MatmulAttributes>();
    const Extents e = extents(call.inputs[0].shape, call.inputs[1].shape, t);
    const MatrixRef dy{call.output_grad, e.n};
    const MatrixRef dy_transposed{call.output_grad, e.n, true};
    // d op(A) = dY op(B)^T and d op(B) = op(A)^T dY; where A or B was transposed, so is its gradient.
    if (const Grad& da = call.input_grads[0]) {
        const MatrixRef b = matrix(call.inputs[1], t.transpose_b);
        if (t.transpose_a)
            gemm(e.k, e.m, e.n, 1, b, dy_transposed, da, e.m, call.scratch);
        else
            gemm(e.m, e.k, e.n, 1, dy, {b.data, b.stride, !b.transposed}, da, e.k, call.scratch);
    }
    if (const Grad& db = call.input_grads[1]) {
        const MatrixRef a = matrix(call.inputs[0], t.transpose_a);
        if (t.transpose_b)
            gemm(e.n, e.k, e.m, 1, dy_transposed, a, db, e.k, call.scratch);
        else
            gemm(e.k, e.n, e.m, 1, {a.data, a.stride, !a.transposed}, dy, db, e.n, call.scratch);
    }
}

Flops flops(std::span<const Shape> in, const Attributes& attributes) {
    const Extents e = extents(in[0], in[1], attributes.as<MatmulAttributes>());
    const double product = 2.0 * static_cast<double>(e.m) * static_cast<double>(e.n) * static_cast<double>(e.k);
    return {product, 2 * product};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{3, 5}, {5, 4}}, MatmulAttributes{false, false}},
        {"a transposed", {{5, 3}, {5, 4}}, MatmulAttributes{true, false}},
        {"b transposed", {{3, 5}, {4, 5}}, MatmulAttributes{false, true}},
        {"both transposed", {{5, 3}, {4, 5}}, MatmulAttributes{true, true}},
        {"size 1", {{1, 1}, {1, 1}}, MatmulAttributes{false, false}},
    };
}

} // namespace

const OpDef matmul_op{"matmul", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsInputs};

Var matmul(Tape& tape, Var a, Var b, bool transpose_a, bool transpose_b) {
    return tape.record(matmul_op, {a, b}, MatmulAttributes{transpose_a, transpose_b});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
