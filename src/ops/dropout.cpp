#include <algorithm>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/base/rng.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct DropoutAttributes {
    double probability;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const double p = attributes.as<DropoutAttributes>().probability;
    require_shape(p >= 0 && p < 1, "dropout", "the probability is in [0, 1)", in);
    return in[0];
}

/// target (+)= mask * x / (1 - p), the mask drawn anew from its key rather than stored.
void apply_mask(Grad target, const real* x, std::int64_t n, double p, RandomKey key, std::uint64_t node) {
    // The stream tells steps and ops apart; the step is mixed by an odd constant so that (step, node) pairs differ.
    const RandomStream random(key.seed, key.step * 0x9e3779b97f4a7c15ULL + node);
    const auto keep_scale = static_cast<real>(1 / (1 - p));
    const auto threshold = static_cast<std::uint64_t>(p * 4294967296.0);
    constexpr std::int64_t kGrain = 1 << 14; // a multiple of the block's four numbers
    parallel_ranges(n, kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; i += 4) {
            const auto bits = random.block(static_cast<std::uint64_t>(i) / 4);
            for (std::int64_t j = i; j < std::min(i + 4, end); ++j) {
                const real y = bits[static_cast<std::size_t>(j - i)] < threshold ? real{0} : keep_scale * x[j];
                target.data[j] = target.add ? target.data[j] + y : y;
            }
        }
    });
}

void forward(const ForwardCall& call) {
    const std::int64_t n = call.inputs[0].shape.elements();
    if (call.mode == Mode::eval)
        add_scaled({call.output, false}, 1, call.inputs[0].data, n);
    else
        apply_mask({call.output, false}, call.inputs[0].data, n, call.attributes.as<DropoutAttributes>().probability,
                   call.random, call.node);
}

void backward(const BackwardCall& call) {
    if (call.input_grads[0])
        apply_mask(call.input_grads[0], call.output_grad, call.inputs[0].shape.elements(),
                   call.attributes.as<DropoutAttributes>().probability, call.random, call.node);
}

std::vector<OpSample> samples() {
    return {
        {"p 0", {{3, 5}}, DropoutAttributes{0}},
        {"p 0.3", {{7, 11}}, DropoutAttributes{0.3}},
        {"p 0.9", {{1, 9}}, DropoutAttributes{0.9}},
    };
}

} // namespace

const OpDef dropout_op{"dropout", infer_shape,  saves_nothing, forward, backward, one_flop_per_input_element,
                       samples,   kReadsNothing};

Var dropout(Tape& tape, Var x, double probability) {
    return probability == 0 ? x : tape.record(dropout_op, {x}, DropoutAttributes{probability});
}

} // namespace ballast::inline BALLAST_PRECISION::ops
