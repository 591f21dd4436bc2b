#include "ballast/base/parallel.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

constexpr std::int64_t kGrain = 1 << 14;

struct BinaryAttributes {
    Binary kind;
};

Shape infer_shape(std::span<const Shape> in, const Attributes&) {
    require_shape(in[0] == in[1], "binary", "both inputs have one shape", in);
    return in[0];
}

real apply(Binary kind, real a, real b) {
    switch (kind) {
    case Binary::add: return a + b;
    case Binary::subtract: return a - b;
    case Binary::multiply: return a * b;
    case Binary::divide: return a / b;
    }
    return 0;
}

real derivative(Binary kind, std::size_t input, real a, real b) {
    switch (kind) {
    case Binary::add: return 1;
    case Binary::subtract: return input == 0 ? 1 : -1;
    case Binary::multiply: return input == 0 ? b : a;
    case Binary::divide: return input == 0 ? 1 / b : -a / (b * b);
    }
    return 0;
}

void forward(const ForwardCall& call) {
    const auto kind = call.attributes.as<BinaryAttributes>().kind;
    const real* a = call.inputs[0].data;
    const real* b = call.inputs[1].data;
    parallel_ranges(call.inputs[0].shape.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
            call.output[i] = apply(kind, a[i], b[i]);
    });
}

void backward(const BackwardCall& call) {
    const auto kind = call.attributes.as<BinaryAttributes>().kind;
    const real* a = call.inputs[0].data;
    const real* b = call.inputs[1].data;
    for (std::size_t input = 0; input < 2; ++input) {
        const Grad grad = call.input_grads[input];
        if (!grad) continue;
        parallel_ranges(call.inputs[0].shape.elements(), kGrain, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
                const real d = call.output_grad[i] * derivative(kind, input, a[i], b[i]);
                grad.data[i] = grad.add ? grad.data[i] + d : d;
            }
        });
    }
}

std::vector<OpSample> samples() {
    return {
        {"add", {{3, 5}, {3, 5}}, BinaryAttributes{Binary::add}},
        {"subtract", {{3, 5}, {3, 5}}, BinaryAttributes{Binary::subtract}},
        {"multiply", {{3, 5}, {3, 5}}, BinaryAttributes{Binary::multiply}},
        {"divide", {{3, 5}, {3, 5}}, BinaryAttributes{Binary::divide}, 0.5, 2},
    };
}

} // namespace

const OpDef binary_op{"binary", infer_shape, saves_nothing, forward, backward, one_flop_per_input_element,
                      samples,  kReadsInputs};

Var binary(Tape& tape, Binary kind, Var a, Var b) { return tape.record(binary_op, {a, b}, BinaryAttributes{kind}); }

} // namespace ballast::inline BALLAST_PRECISION::ops
