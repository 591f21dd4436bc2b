#include <algorithm>
#include <cmath>
#include <string>

#include "ballast/base/error.h"
#include "ballast/kernels/softmax.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct CrossEntropyAttributes {
    const std::int32_t* targets;
    std::int64_t count;
    double scale;
    double z_loss;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<CrossEntropyAttributes>();
    require_shape(
        in[0].rank == 2 && in[0][0] == a.count, "cross_entropy",
        [&] { return "logits are [" + std::to_string(a.count) + " targets, classes]"; }, in);
    for (std::int64_t n = 0; n < a.count; ++n)
        if (a.targets[n] != kIgnoredTarget && (a.targets[n] < 0 || a.targets[n] >= in[0][1]))
            throw DataError("target id " + std::to_string(a.targets[n]) + " at position " + std::to_string(n) +
                            " is outside the " + std::to_string(in[0][1]) + " classes");
    return {};
}

/// log Z, nll and largest |logit| of each row.
std::int64_t saved_size(std::span<const Shape> in, const Attributes&) { return 3 * in[0][0]; }

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<CrossEntropyAttributes>();
    const std::int64_t rows = a.count;
    real* log_z = call.saved;
    real* nll = log_z + rows;
    cross_entropy_forward(log_z, nll, nll + rows, call.inputs[0].data, a.targets, rows, call.inputs[0].shape[1]);
    double sum = 0;
    for (std::int64_t n = 0; n < rows; ++n)
        if (a.targets[n] != kIgnoredTarget)
            sum +=
                static_cast<double>(nll[n]) + a.z_loss * static_cast<double>(log_z[n]) * static_cast<double>(log_z[n]);
    *call.output = static_cast<real>(a.scale * sum);
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<CrossEntropyAttributes>();
    if (call.input_grads[0])
        cross_entropy_backward(call.input_grads[0], call.inputs[0].data, call.saved, a.targets, a.count,
                               call.inputs[0].shape[1], static_cast<real>(a.scale) * *call.output_grad,
                               static_cast<real>(a.z_loss));
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {4 * elements, 4 * elements};
}

std::vector<OpSample> samples() {
    static constexpr std::array<std::int32_t, 5> targets{2, 0, kIgnoredTarget, 6, 3};
    static constexpr std::array<std::int32_t, 1> one{0};
    return {
        {"plain", {{5, 7}}, CrossEntropyAttributes{targets.data(), 5, 1.0, 0.0}, -3, 3},
        {"scaled, z-loss", {{5, 37}}, CrossEntropyAttributes{targets.data(), 5, 0.25, 0.1}, -3, 3},
        {"one class", {{1, 1}}, CrossEntropyAttributes{one.data(), 1, 1.0, 0.5}},
    };
}

} // namespace

const OpDef cross_entropy_op{"cross_entropy", infer_shape, saved_size, forward,
                             backward,        flops,       samples,    BackwardReads{0b1, false, 0b1}};

Var cross_entropy(Tape& tape, Var logits, std::span<const std::int32_t> targets, double scale, double z_loss) {
    return tape.record(
        cross_entropy_op, {logits},
        CrossEntropyAttributes{targets.data(), static_cast<std::int64_t>(targets.size()), scale, z_loss});
}

namespace {
/// NaN must win over every number, so it is not left to std::max.
double larger(double a, double b) { return std::isnan(a) || std::isnan(b) ? std::nan("") : std::max(a, b); }
} // namespace

CrossEntropySums& CrossEntropySums::operator+=(const CrossEntropySums& other) {
    targets += other.targets;
    nll += other.nll;
    log_z += other.log_z;
    log_z_squares += other.log_z_squares;
    max_log_z = larger(max_log_z, other.max_log_z);
    max_logit = larger(max_logit, other.max_logit);
    return *this;
}

CrossEntropySums cross_entropy_sums(const Tape& tape, Var loss) {
    const Node& node = tape.producer(loss);
    if (node.op != &cross_entropy_op) throw Error("cross_entropy_sums: this value is not a cross_entropy");
    const auto a = node.attributes.as<CrossEntropyAttributes>();
    const real* log_z = node.saved;
    const real* nll = log_z + a.count;
    const real* max_logit = nll + a.count;
    CrossEntropySums sums;
    for (std::int64_t n = 0; n < a.count; ++n) {
        if (a.targets[n] == kIgnoredTarget) continue;
        const auto z = static_cast<double>(log_z[n]);
        sums += {1, static_cast<double>(nll[n]), z, z * z, z, static_cast<double>(max_logit[n])};
    }
    return sums;
}

} // namespace ballast::inline BALLAST_PRECISION::ops
