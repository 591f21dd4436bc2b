#include "ballast/kernels/batchnorm.h"

#include "ballast/base/error.h"
#include "ballast/ops/ops.h"
#include "gain_bias.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

/// Inputs are x, gain and bias where there are any, running mean, running variance.
struct BatchNormAttributes {
    double eps;
    bool frozen;
    GainBias given;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const GainBias given = attributes.as<BatchNormAttributes>().given;
    given.require_shapes("batchnorm", in);
    for (const Shape& running : given.others(in))
        require_shape(running == Shape{in[0].width()}, "batchnorm", "running mean and variance are [width of x]", in);
    return in[0];
}

std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return kBatchNormStats * in[0].width(); }

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<BatchNormAttributes>();
    const Tensor& x = call.inputs[0];
    const std::int64_t rows = x.shape.rows(), width = x.shape.width();
    const auto eps = static_cast<real>(a.eps);
    const std::span<const Tensor> running = a.given.others(call.inputs);
    if (a.frozen || call.mode == Mode::eval)
        batchnorm_given_statistics(call.saved, running[0].data, running[1].data, width, eps);
    else
        batchnorm_statistics(call.saved, x.data, rows, width, eps, call.scratch);
    batchnorm_forward(call.output, x.data, call.saved, a.given.gain(call.inputs).data, a.given.bias(call.inputs).data,
                      rows, width);
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<BatchNormAttributes>();
    const Tensor& x = call.inputs[0];
    batchnorm_backward(call.input_grads[0], a.given.gain(call.input_grads), a.given.bias(call.input_grads),
                       call.output_grad, x.data, a.given.gain(call.inputs).data, call.saved, a.frozen, x.shape.rows(),
                       x.shape.width(), call.scratch);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {9 * elements, 14 * elements};
}

std::vector<OpSample> samples() {
    // The running statistics come last.
    return {
        {"plain", {{6, 5}, {5}, {5}}, BatchNormAttributes{1e-5, false, {false, false}}, -1, 1, {1, 2}},
        {"gain", {{7, 5}, {5}, {5}, {5}}, BatchNormAttributes{1e-5, false, {true, false}}, -1, 1, {2, 3}},
        {"bias", {{7, 5}, {5}, {5}, {5}}, BatchNormAttributes{1e-5, false, {false, true}}, -1, 1, {2, 3}},
        {"gain, bias, large eps",
         {{37, 17}, {17}, {17}, {17}, {17}},
         BatchNormAttributes{1e-1, false, {true, true}},
         -1,
         1,
         {3, 4}},
        {"width 1", {{5, 1}, {1}, {1}, {1}, {1}}, BatchNormAttributes{1e-5, false, {true, true}}, -1, 1, {3, 4}},
        {"one row", {{1, 4}, {4}, {4}, {4}, {4}}, BatchNormAttributes{1e-2, false, {true, true}}, -1, 1, {3, 4}},
        {"frozen", {{6, 5}, {5}, {5}, {5}, {5}}, BatchNormAttributes{1e-5, true, {true, true}}, 0.5, 2, {3, 4}},
    };
}

} // namespace

const OpDef batchnorm_op{"batchnorm", infer_shape, saved_size, forward, backward, flops, samples, kReadsInputs};

Var batchnorm(Tape& tape, Var x, Var gain, Var bias, Var running_mean, Var running_variance, double eps, bool frozen) {
    return record_with(tape, batchnorm_op, x, gain, bias, {running_mean, running_variance},
                       BatchNormAttributes{eps, frozen, given(gain, bias)});
}

BatchStatistics batch_statistics(const Tape& tape, Var batchnorm_output) {
    const Node& node = tape.producer(batchnorm_output);
    if (node.op != &batchnorm_op) throw Error("batch_statistics of a value that batchnorm did not make");
    const Shape x = tape.shape(batchnorm_output);
    return {node.saved, node.saved + x.width(), x.rows(), x.width()};
}

} // namespace ballast::inline BALLAST_PRECISION::ops
