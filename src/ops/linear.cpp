#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/gemm.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct LinearAttributes {
    Activation activation;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[0].rank == 2 && in[1].rank == 2 && in[0][1] == in[1][1], "linear",
                  "x is [rows, in] and weight [out, in]", in);
    require_shape(in.size() < 3 || in[2] == Shape{in[1][0]}, "linear", "bias is [out]", in);
    return {in[0][0], in[1][0]};
}

/// The pre-activation, where there is an activation to differentiate.
std::int64_t saved_size(std::span<const Shape> in, const Attributes& attributes) {
    return attributes.as<LinearAttributes>().activation == Activation::identity ? 0 : in[0][0] * in[1][0];
}

void forward(const ForwardCall& call) {
    const auto activation = call.attributes.as<LinearAttributes>().activation;
    const std::int64_t rows = call.inputs[0].shape[0];
    const std::int64_t in = call.inputs[0].shape[1];
    const std::int64_t out = call.inputs[1].shape[0];
    const real* bias = call.inputs.size() > 2 ? call.inputs[2].data : nullptr;
    const MatrixRef x{call.inputs[0].data, in};
    const MatrixRef weight{call.inputs[1].data, in, true};

    if (activation == Activation::identity && bias == nullptr) {
        gemm(rows, out, in, 1, x, weight, {call.output, false}, out, call.scratch);
        return;
    }
    real* product = call.saved != nullptr ? call.saved : call.output;
    gemm(rows, out, in, 1, x, weight, {product, false}, out, call.scratch, [&](const TileRange& tile) {
        const std::int64_t offset = tile.row_begin * out + tile.column_begin;
        bias_activation_rows(activation, call.output + offset, call.saved != nullptr ? call.saved + offset : nullptr,
                             product + offset, bias != nullptr ? bias + tile.column_begin : nullptr,
                             tile.row_end - tile.row_begin, tile.column_end - tile.column_begin, out);
    });
}

void backward(const BackwardCall& call) {
    const auto activation = call.attributes.as<LinearAttributes>().activation;
    const std::int64_t rows = call.inputs[0].shape[0];
    const std::int64_t in = call.inputs[0].shape[1];
    const std::int64_t out = call.inputs[1].shape[0];
    real* dy = call.output_grad;
    if (activation != Activation::identity) activation_backward(activation, {dy, false}, dy, call.saved, rows * out);
    if (const Grad& dweight = call.input_grads[1])
        gemm(out, in, rows, 1, {dy, out, true}, {call.inputs[0].data, in}, dweight, in, call.scratch);
    // Last, as it may overwrite x.
    if (const Grad& dx = call.input_grads[0])
        gemm(rows, in, out, 1, {dy, out}, {call.inputs[1].data, in}, dx, in, call.scratch);
    if (call.inputs.size() > 2 && call.input_grads[2]) column_sums(call.input_grads[2], dy, rows, out);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const double product = 2.0 * static_cast<double>(in[0][0]) * static_cast<double>(in[1].elements());
    return {product, 2 * product};
}

std::vector<OpSample> samples() {
    return {
        {"plain", {{5, 3}, {7, 3}}, LinearAttributes{Activation::identity}},
        {"bias", {{6, 4}, {3, 4}, {3}}, LinearAttributes{Activation::identity}},
        {"size 1", {{1, 1}, {1, 1}, {1}}, LinearAttributes{Activation::identity}},
        {"bias, gelu", {{6, 5}, {9, 5}, {9}}, LinearAttributes{Activation::gelu}},
        {"gelu_tanh", {{6, 5}, {9, 5}}, LinearAttributes{Activation::gelu_tanh}},
        {"bias, silu", {{3, 8}, {17, 8}, {17}}, LinearAttributes{Activation::silu}},
        {"bias, relu2", {{4, 6}, {5, 6}, {5}}, LinearAttributes{Activation::relu2}},
        {"several tiles", {{130, 33}, {70, 33}, {70}}, LinearAttributes{Activation::identity}},
    };
}

} // namespace

const OpDef linear_op{"linear", infer_shape, saved_size, forward,
                      backward, flops,       samples,    BackwardReads{0b11, false, 0b1}};

Var linear(Tape& tape, Var x, Var weight, Var bias, Activation activation) {
    const LinearAttributes attributes{activation};
    return bias ? tape.record(linear_op, {x, weight, bias}, attributes)
                : tape.record(linear_op, {x, weight}, attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
