// Who checks the checker: backward passes with the mistakes that are made in practice must be reported.

#include <algorithm>

#include "ballast/kernels/batchnorm.h"
#include "ballast/kernels/norm.h"
#include "ballast/ops/registry.h"
#include "catch.h"
#include "checker.h"

using namespace gradcheck;

namespace {

/// The gradients that an op's backward computes, each in memory of its own, for a mutant to spoil.
std::vector<Values> true_gradients(const OpDef& op, const BackwardCall& call) {
    std::vector<Values> memory;
    std::vector<Grad> grads;
    for (std::size_t i = 0; i < call.inputs.size(); ++i) {
        memory.emplace_back(call.input_grads[i] ? size_of(call.inputs[i].shape) : 0);
        grads.push_back({call.input_grads[i] ? memory[i].data() : nullptr, false});
    }
    BackwardCall inner = call;
    inner.input_grads = grads;
    op.backward(inner);
    return memory;
}

void deliver(const BackwardCall& call, const std::vector<Values>& gradients) {
    for (std::size_t i = 0; i < gradients.size(); ++i)
        for (std::size_t k = 0; k < gradients[i].size(); ++k) {
            real& target = call.input_grads[i].data[k];
            target = call.input_grads[i].add ? target + gradients[i][k] : gradients[i][k];
        }
}

/// A backward that delivers every gradient times `percent` / 100.
template <const OpDef& op, int percent>
void scaled(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(op, call);
    for (Values& gradient : gradients)
        for (real& g : gradient)
            g *= percent / 100.0;
    deliver(call, gradients);
}

/// A fused op that does not pass the gradient on to its first input, only to its parameters.
template <const OpDef& op>
void cut(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(op, call);
    std::fill(gradients[0].begin(), gradients[0].end(), real{0});
    deliver(call, gradients);
}

/// One element in the middle of the last input that has a gradient is forgotten.
template <const OpDef& op>
void hole(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(op, call);
    const auto last = std::find_if(gradients.rbegin(), gradients.rend(), [](const Values& g) { return !g.empty(); });
    (*last)[last->size() / 2] = 0;
    deliver(call, gradients);
}

template <const OpDef& op, bool add>
void forced(const BackwardCall& call) {
    std::vector<Grad> grads(call.input_grads.begin(), call.input_grads.end());
    for (Grad& grad : grads)
        grad.add = add;
    BackwardCall inner = call;
    inner.input_grads = grads;
    op.backward(inner);
}

template <const OpDef& op>
void overwrites_input(const BackwardCall& call) {
    op.backward(call);
    const_cast<real*>(call.inputs[0].data)[0] += 1;
}

/// Crashes or computes nothing when one of the gradients is not wanted.
template <const OpDef& op>
void all_or_nothing(const BackwardCall& call) {
    for (const Grad& grad : call.input_grads)
        if (!grad) {
            for (std::size_t i = 0; i < call.inputs.size(); ++i)
                if (call.input_grads[i]) std::fill_n(call.input_grads[i].data, size_of(call.inputs[i].shape), real{0});
            return;
        }
    op.backward(call);
}

/// A norm's backward as if the gain, its second input, were 1.
template <const OpDef& op>
void without_gain(const BackwardCall& call) {
    const Values ones(size_of(call.inputs[1].shape), real{1});
    std::vector<Tensor> inputs(call.inputs.begin(), call.inputs.end());
    inputs[1].data = ones.data();
    BackwardCall inner = call;
    inner.inputs = inputs;
    op.backward(inner);
}

/// One of the inputs, counted from the last, gets no gradient: a learned scalar that stays as it is.
template <const OpDef& op, std::size_t from_last>
void forgotten(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(op, call);
    Values& gradient = gradients[gradients.size() - from_last];
    std::fill(gradient.begin(), gradient.end(), real{0});
    deliver(call, gradients);
}

/// LayerNorm's backward with the statistics taken as constants.
void layernorm_constant_statistics(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(ops::layernorm_op, call);
    const std::int64_t width = call.inputs[0].shape.width();
    const real* gain = call.inputs[1].data;
    for (std::size_t k = 0; k < gradients[0].size(); ++k) {
        const auto i = static_cast<std::int64_t>(k);
        // The last of a row's saved statistics is 1/sqrt(variance + eps).
        const real rstd = call.saved[i / width * kLayerNormStats + kLayerNormStats - 1];
        gradients[0][k] = call.output_grad[i] * gain[i % width] * rstd;
    }
    deliver(call, gradients);
}

/// RMSNorm's backward with eps added to the root mean square rather than to the mean square.
void rmsnorm_eps_outside(const BackwardCall& call) {
    constexpr double kEps = 0.1; // of the sample that is used
    const Shape& x = call.inputs[0].shape;
    Values rstd(static_cast<std::size_t>(x.rows()));
    for (std::int64_t row = 0; row < x.rows(); ++row) {
        double squares = 0;
        for (std::int64_t i = 0; i < x.width(); ++i) {
            const double value = call.inputs[0].data[row * x.width() + i];
            squares += value * value;
        }
        rstd[static_cast<std::size_t>(row)] = 1 / (std::sqrt(squares / static_cast<double>(x.width())) + kEps);
    }
    BackwardCall inner = call;
    inner.saved = rstd.data();
    ops::rmsnorm_op.backward(inner);
}

/// RMSNorm's backward with other options than its forward had: a partial norm whose gradient covers all features, an
/// offset that is forgotten.
void rmsnorm_plain_backward(const BackwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    rmsnorm_backward(call.input_grads[0], call.input_grads[1], call.output_grad, call.inputs[0].data,
                     call.inputs[1].data, call.saved, x.rows(), x.width(), call.scratch);
}

/// ScaleNorm's backward without the projection: the length taken as a constant.
void scalenorm_constant_length(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(ops::scalenorm_op, call);
    const auto width = static_cast<std::size_t>(call.inputs[0].shape.width());
    for (std::size_t k = 0; k < gradients[0].size(); ++k)
        gradients[0][k] =
            *call.inputs[1].data * call.saved[k / width] / std::sqrt(static_cast<double>(width)) * call.output_grad[k];
    deliver(call, gradients);
}

/// BatchNorm's backward with the statistics taken as constants, in train mode.
void batchnorm_constant_statistics(const BackwardCall& call) {
    const Shape& x = call.inputs[0].shape;
    batchnorm_backward(call.input_grads[0], call.input_grads[1], call.input_grads[2], call.output_grad,
                       call.inputs[0].data, call.inputs[1].data, call.saved, true, x.rows(), x.width(), call.scratch);
}

void transposed_weight_gradient(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(ops::linear_op, call);
    const std::int64_t n = call.inputs[1].shape[0];
    for (std::int64_t row = 0; row < n && !gradients[1].empty(); ++row)
        for (std::int64_t column = 0; column < row; ++column)
            std::swap(gradients[1][static_cast<std::size_t>(row * n + column)],
                      gradients[1][static_cast<std::size_t>(column * n + row)]);
    deliver(call, gradients);
}

/// Cross-entropy whose one-hot is missing in a row: its gradient sums to something other than zero.
void cross_entropy_without_target(const BackwardCall& call) {
    std::vector<Values> gradients = true_gradients(ops::cross_entropy_op, call);
    *std::min_element(gradients[0].begin(), gradients[0].end()) = 0;
    deliver(call, gradients);
}

OpSample sample_called(const OpDef& op, std::string_view label) {
    for (const OpSample& sample : op.samples())
        if (sample.label == label) return sample;
    throw Error("op '" + std::string(op.name) + "' has no sample '" + std::string(label) + "'");
}

/// The checker's report on `op` with another backward, in a registry where it stands in the original's place.
Report report_on(const OpDef& op, void (*backward)(const BackwardCall&), const OpSample& sample,
                 Cotangent kind = Cotangent::random) {
    OpDef mutant = op;
    mutant.backward = backward;
    std::vector<const OpDef*> registry(ops::registry().begin(), ops::registry().end());
    std::replace(registry.begin(), registry.end(), &op, static_cast<const OpDef*>(&mutant));
    if (&op == &ops::residual_op) registry.push_back(&op); // the checker itself uses it
    return check_op(mutant, sample, registry, kind);
}

bool any_failure(const Report& report, const std::string& start) {
    return std::any_of(report.failures.begin(), report.failures.end(),
                       [&](const std::string& failure) { return failure.starts_with(start); });
}

} // namespace

TEST_CASE("mistakes that any op can have are found", "[gradcheck]") {
    struct Mutant {
        const char* name;
        const OpDef& op;
        void (*backward)(const BackwardCall&);
        const char* sample;
        const char* found_as; ///< the check that exists to find it
    };
    using namespace ops;
    const Mutant mutants[] = {
        {"sign", activation_op, scaled<activation_op, -100>, "gelu", "difference"},
        {"sign", linear_op, scaled<linear_op, -100>, "bias", "difference"},
        {"sign", attention_op, scaled<attention_op, -100>, "grouped-query", "difference"},
        {"zero", layernorm_op, scaled<layernorm_op, 0>, "plain", "difference"},
        {"zero", cross_entropy_op, scaled<cross_entropy_op, 0>, "plain", "difference"},
        {"one percent", linear_op, scaled<linear_op, 101>, "plain", "difference"},
        {"one percent", rmsnorm_op, scaled<rmsnorm_op, 101>, "gain", "difference"},
        {"one percent", attention_op, scaled<attention_op, 99>, "multi-query, ALiBi", "difference"},
        {"one percent", residual_op, scaled<residual_op, 101>, "scaled", "difference"},
        {"cut", layernorm_op, cut<layernorm_op>, "gain, bias, large eps", "difference"},
        {"cut", rmsnorm_op, cut<rmsnorm_op>, "gain", "difference"},
        {"cut", linear_op, cut<linear_op>, "bias, gelu", "difference"},
        {"one element", linear_op, hole<linear_op>, "plain", "difference"},
        {"one element", matmul_op, hole<matmul_op>, "a transposed", "difference"},
        {"one element of hundreds", attention_op, hole<attention_op>, "more than one block", "direction"},
        {"never adds", linear_op, forced<linear_op, false>, "bias", "adding"},
        {"never adds", layernorm_op, forced<layernorm_op, false>, "gain", "adding"},
        {"never adds", attention_op, forced<attention_op, false>, "multi-head", "adding"},
        {"never adds", binary_op, forced<binary_op, false>, "multiply", "one value for several inputs"},
        {"never adds", slice_op, forced<slice_op, false>, "inside", "two consumers"},
        {"always adds", linear_op, forced<linear_op, true>, "bias", "difference"},
        {"always adds", embedding_op, forced<embedding_op, true>, "with positions", "difference"},
        {"overwrites its input", activation_op, overwrites_input<activation_op>, "silu", "an input was overwritten"},
        {"all or nothing", matmul_op, all_or_nothing<matmul_op>, "b transposed", "alone"},
    };
    for (const Mutant& mutant : mutants) {
        INFO(mutant.op.name << ", " << mutant.sample << ": " << mutant.name);
        const OpSample sample = sample_called(mutant.op, mutant.sample);
        const Report report = report_on(mutant.op, mutant.backward, sample);
        INFO(report.text());
        CHECK(any_failure(report, mutant.found_as));
        // The reference: unspoilt, the same call passes.
        CHECK(report_on(mutant.op, mutant.op.backward, sample).failures.empty());
    }
}

TEST_CASE("the classic mistakes of norms, linear layers and losses are found", "[gradcheck]") {
    using namespace ops;
    const OpSample norm = sample_called(layernorm_op, "gain, bias, large eps");
    CHECK(any_failure(report_on(layernorm_op, without_gain<layernorm_op>, norm), "difference: input 0"));
    CHECK(!any_failure(report_on(layernorm_op, without_gain<layernorm_op>, norm), "difference: input 1"));
    CHECK(any_failure(report_on(layernorm_op, layernorm_constant_statistics, norm), "difference: input 0"));
    CHECK(any_failure(report_on(rmsnorm_op, rmsnorm_eps_outside, sample_called(rmsnorm_op, "gain, large eps")),
                      "difference: input 0"));

    OpSample square = sample_called(linear_op, "plain");
    square.inputs = {{6, 4}, {4, 4}};
    CHECK(any_failure(report_on(linear_op, transposed_weight_gradient, square), "difference: input 1"));

    CHECK(any_failure(
        report_on(cross_entropy_op, cross_entropy_without_target, sample_called(cross_entropy_op, "scaled, z-loss")),
        "difference"));
}

TEST_CASE("the mistakes of each kind of norm are found", "[gradcheck]") {
    struct Mutant {
        const char* name;
        const OpDef& op;
        void (*backward)(const BackwardCall&);
        const char* sample;
        const char* found_as;
    };
    using namespace ops;
    const Mutant mutants[] = {
        {"without gain", rmsnorm_op, without_gain<rmsnorm_op>, "gain", "difference: input 0"},
        {"without gain", batchnorm_op, without_gain<batchnorm_op>, "gain", "difference: input 0"},
        {"without gain", scalenorm_op, without_gain<scalenorm_op>, "plain", "difference: input 0"},
        {"without gain", dyt_op, without_gain<dyt_op>, "gain, bias", "difference: input 0"},
        {"without gain", derf_op, without_gain<derf_op>, "gain, bias", "difference: input 0"},
        {"cut", batchnorm_op, cut<batchnorm_op>, "gain, bias, large eps", "difference: input 0"},
        {"cut", scalenorm_op, cut<scalenorm_op>, "plain", "difference: input 0"},
        {"cut", dyt_op, cut<dyt_op>, "gain", "difference: input 0"},
        {"cut", derf_op, cut<derf_op>, "gain", "difference: input 0"},
        {"covers all features", rmsnorm_op, rmsnorm_plain_backward, "partial, gain", "difference: input 0"},
        {"offset forgotten", rmsnorm_op, rmsnorm_plain_backward, "unit offset", "difference: input 0"},
        {"constant length", scalenorm_op, scalenorm_constant_length, "plain", "difference: input 0"},
        {"gain forgotten", scalenorm_op, forgotten<scalenorm_op, 1>, "plain", "difference: input 1"},
        {"constant statistics", batchnorm_op, batchnorm_constant_statistics, "gain, bias, large eps",
         "difference: input 0"},
        {"alpha forgotten", dyt_op, forgotten<dyt_op, 1>, "gain, bias", "difference: input 3"},
        {"alpha forgotten", derf_op, forgotten<derf_op, 2>, "gain, bias", "difference: input 3"},
        {"shift forgotten", derf_op, forgotten<derf_op, 1>, "gain, bias", "difference: input 4"},
        {"scale forgotten", residual_scaled_op, forgotten<residual_scaled_op, 1>, "vector", "difference: input 2"},
        {"scale forgotten", head_scale_op, forgotten<head_scale_op, 1>, "two heads", "difference: input 1"},
    };
    for (const Mutant& mutant : mutants) {
        INFO(mutant.op.name << ", " << mutant.sample << ": " << mutant.name);
        const Report report = report_on(mutant.op, mutant.backward, sample_called(mutant.op, mutant.sample));
        INFO(report.text());
        CHECK(any_failure(report, mutant.found_as));
    }
}

TEST_CASE("a sum as the test loss is blind where a random cotangent sees", "[gradcheck]") {
    // The elements of a normalized row sum to zero whatever x is, so d sum(y)/dx = 0 and a backward that returns
    // zeros passes. This is why the checker never uses one.
    const OpSample plain = sample_called(ops::layernorm_op, "plain");
    constexpr auto zeros = scaled<ops::layernorm_op, 0>;
    CHECK(report_on(ops::layernorm_op, zeros, plain, Cotangent::sum).failures.empty());
    CHECK(!report_on(ops::layernorm_op, zeros, plain, Cotangent::random).failures.empty());
}
