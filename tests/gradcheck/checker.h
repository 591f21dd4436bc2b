#pragma once

// Gradients against central differences, in double.
//
// Step and tolerance: a difference over 2h has an error of h^2 f'''/6 from the curvature and about 1e-16 |f|/h from
// rounding. Two of them, at h and h/2, combine so that the h^2 term cancels (Richardson). At h = 1e-4 that leaves
// terms of 1e-16 f^(5) and 1e-12 |f|: some 1e-11 for functions of ordinary size, and 1e-8 as tolerance stands far
// above that and far below any mistake.

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/gemm.h"
#include "ballast/ops/ops.h"
#include "op_calls.h"

namespace gradcheck {

using namespace ballast;
using op_calls::size_of;
using op_calls::Values;

inline constexpr double kStep = 1e-4;
inline constexpr double kTolerance = 1e-8;

/// Derivative at 0 of the function whose difference f(h) - f(-h) is `difference(h)`.
template <class Difference>
double derivative(Difference&& difference, double step = kStep) {
    const double coarse = difference(step) / (2 * step);
    const double fine = difference(step / 2) / step;
    return (4 * fine - coarse) / 3;
}

/// |a - b| within the tolerance, absolute for small numbers and relative for large ones. NaN is never close.
inline bool close(double a, double b, double tolerance = kTolerance) {
    return std::abs(a - b) <= tolerance * (1 + std::abs(a));
}

/// One thread: the fastest for tensors of this size. That others compute the same bits is tests/invariance's business.
inline void prepare() {
    pin_blas();
    set_threads(1);
}

namespace detail {
/// Leaves NaN in all memory that the next pass on this tape gets for values, saved state, gradients and scratch: a
/// kernel that reads what it should have written shows.
inline void rubbish_forward(const ForwardCall& call) {
    const Arena::Mark mark(worker_scratch());
    const std::int64_t count = call.inputs[0].shape.elements();
    for (real* memory : {call.output, call.scratch.allocate<real>(count), worker_scratch().allocate<real>(count)})
        std::fill_n(memory, count, op_calls::kNaN);
}
inline const OpDef rubbish_op{
    "rubbish",     [](std::span<const Shape> in, const Attributes&) { return in[0]; },
    saves_nothing, rubbish_forward,
    nullptr,       one_flop_per_input_element,
    nullptr,
};
} // namespace detail

/// A function of some tensors: what `build` puts on a tape of ops from `registry`.
struct Problem {
    std::vector<const OpDef*> registry;
    std::vector<Shape> shapes;
    std::vector<Values> values;
    std::vector<bool> constant; ///< inputs without a gradient
    std::function<Var(Tape&, std::span<const Var>)> build;
};

/// What a check found: nothing in `failures` when all is well.
struct Report {
    std::vector<std::string> failures;
    std::vector<bool> moves; ///< for each input, whether a gradient of it was not zero

    void fail(const std::string& where, std::size_t input, std::size_t element, double analytic, double expected) {
        std::ostringstream text;
        text.precision(12);
        text << where << ": input " << input << "[" << element << "]: gradient " << analytic << ", expected "
             << expected;
        failures.push_back(text.str());
    }
    void add(const std::string& where, const Report& other) {
        for (const std::string& failure : other.failures)
            failures.push_back(where + ": " + failure);
    }
    std::string text() const {
        std::string all = std::to_string(failures.size()) + " failures";
        for (std::size_t i = 0; i < std::min<std::size_t>(failures.size(), 8); ++i)
            all += "\n  " + failures[i];
        return all;
    }
};

/// Runs a problem forward and backward.
class Runner {
public:
    explicit Runner(const Problem& problem) : problem_(problem), registry_(problem.registry), tape_(registered()) {
        prepare();
    }

    /// The output for the given inputs.
    Values forward(const std::vector<Values>& inputs) {
        const Var root = put(inputs, nullptr);
        return {tape_.data(root), tape_.data(root) + tape_.shape(root).elements()};
    }

    /// Gradients of output . cotangent: written to, or with `add` added to, what `gradients` holds. Inputs whose entry
    /// is empty are put on the tape as constants.
    void backward(const Values& cotangent, std::vector<Values>& gradients, bool add) {
        const Values rubbish(1 << 15);
        tape_.begin(Mode::train);
        tape_.record(detail::rubbish_op, {tape_.constant({1 << 15}, rubbish.data())});
        const Var root = put(problem_.values, &gradients);
        tape_.backward(root, {.accumulate = add, .cotangent = cotangent.data()});
    }

private:
    std::span<const OpDef* const> registered() {
        registry_.push_back(&detail::rubbish_op);
        return registry_;
    }

    Var put(const std::vector<Values>& inputs, std::vector<Values>* gradients) {
        tape_.begin(Mode::train, {11, 3});
        std::vector<Var> vars;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const bool wanted = gradients != nullptr && !(*gradients)[i].empty();
            vars.push_back(wanted ? tape_.leaf(problem_.shapes[i], inputs[i].data(), (*gradients)[i].data())
                                  : tape_.constant(problem_.shapes[i], inputs[i].data()));
        }
        return problem_.build(tape_, vars);
    }

    const Problem& problem_;
    std::vector<const OpDef*> registry_;
    Tape tape_;
};

/// How the output is reduced to a number. `sum` is for showing what it misses.
enum class Cotangent { random, sum };

/// The gradients of a problem against finite differences: every element of small inputs; of large ones two
/// dozen and a few directions that move all elements at once. Then: adding to gradients that are there already,
/// wanting only one of the gradients, and leaving the inputs as they are.
inline Report check(const Problem& problem, Cotangent kind = Cotangent::random) {
    Report report;
    Runner runner(problem);
    const std::vector<Values> before = problem.values;
    const Values output = runner.forward(problem.values);
    const Values cotangent =
        kind == Cotangent::random ? op_calls::cotangent_values(output.size(), 7) : Values(output.size(), real{1});

    std::vector<Values> gradients(problem.shapes.size());
    for (std::size_t i = 0; i < gradients.size(); ++i)
        if (!problem.constant[i]) gradients[i].assign(size_of(problem.shapes[i]), op_calls::kNaN);
    const auto wanted = gradients;
    runner.backward(cotangent, gradients, false);
    if (problem.values != before) report.failures.emplace_back("an input was overwritten");

    // The derivative of output . cotangent along `direction` of one input.
    std::vector<Values> moved = problem.values;
    const auto numeric = [&](std::size_t input, auto&& direction) {
        return derivative([&](double h) {
            const auto at = [&](double t) {
                for (std::size_t k = 0; k < moved[input].size(); ++k)
                    moved[input][k] = problem.values[input][k] + t * direction(k);
                return runner.forward(moved);
            };
            const Values plus = at(h);
            const Values minus = at(-h);
            double sum = 0;
            for (std::size_t k = 0; k < plus.size(); ++k)
                sum += cotangent[k] * (plus[k] - minus[k]);
            return sum;
        });
    };

    constexpr std::size_t kAll = 200;
    constexpr std::size_t kSome = 24;
    report.moves.assign(gradients.size(), false);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        const Values& gradient = gradients[i];
        const std::size_t count = gradient.size();
        for (const double g : gradient)
            report.moves[i] = report.moves[i] || g != 0;
        for (std::size_t s = 0; s < (count <= kAll ? count : kSome); ++s) {
            const std::size_t k =
                count <= kAll ? s : static_cast<std::size_t>(RandomStream(i, "elements").below(s, count));
            const double expected = numeric(i, [&](std::size_t at) { return at == k ? 1.0 : 0.0; });
            if (!close(expected, gradient[k])) report.fail("difference", i, k, gradient[k], expected);
        }
        for (std::uint64_t d = 0; count > kAll && d < 4; ++d) {
            const RandomStream signs(d, "directions");
            const auto direction = [&](std::size_t k) { return signs.block(k)[0] % 2 == 0 ? 1.0 : -1.0; };
            double along = 0;
            for (std::size_t k = 0; k < count; ++k)
                along += gradient[k] * direction(k);
            const double expected = numeric(i, direction);
            if (!close(expected, along)) report.fail("direction", i, d, along, expected);
        }
        moved[i] = problem.values[i];
    }

    // What is there stays, and the gradient is added: also where nothing but rounding differs.
    std::vector<Values> sums = wanted;
    for (std::size_t i = 0; i < sums.size(); ++i)
        if (!sums[i].empty()) sums[i] = op_calls::uniform_values(sums[i].size(), 31 + i, -2, 2);
    const std::vector<Values> base = sums;
    runner.backward(cotangent, sums, true);
    for (std::size_t i = 0; i < sums.size(); ++i)
        for (std::size_t k = 0; k < sums[i].size(); ++k)
            if (!close(base[i][k] + gradients[i][k], sums[i][k], 1e-12))
                report.fail("adding", i, k, sums[i][k] - base[i][k], gradients[i][k]);

    for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (gradients[i].empty()) continue;
        std::vector<Values> only(gradients.size());
        only[i] = wanted[i];
        runner.backward(cotangent, only, false);
        for (std::size_t k = 0; k < only[i].size(); ++k)
            if (!close(gradients[i][k], only[i][k], 1e-12)) report.fail("alone", i, k, only[i][k], gradients[i][k]);
    }
    return report;
}

/// All of the above for one way of calling an op; then with one value in the place of all inputs of its shape; then
/// with all inputs shared by two calls of the op.
inline Report check_op(const OpDef& op, const OpSample& sample, std::span<const OpDef* const> registry,
                       Cotangent kind = Cotangent::random) {
    Problem plain;
    plain.registry.assign(registry.begin(), registry.end());
    plain.shapes = sample.inputs;
    plain.values = op_calls::sample_inputs(sample, 1);
    for (std::size_t i = 0; i < sample.inputs.size(); ++i)
        plain.constant.push_back(op_calls::is_constant(sample, i));
    plain.build = [&](Tape& tape, std::span<const Var> in) { return tape.record(op, in, sample.attributes); };
    Report report = check(plain, kind);

    // Which input stands in the place of each.
    std::vector<std::size_t> place(sample.inputs.size());
    bool repeats = false;
    for (std::size_t i = 0; i < place.size(); ++i) {
        place[i] = i;
        for (std::size_t j = 0; j < i && place[i] == i; ++j)
            if (!plain.constant[i] && !plain.constant[j] && plain.shapes[i] == plain.shapes[j]) place[i] = j;
        repeats = repeats || place[i] != i;
    }
    if (repeats) {
        Problem same = plain;
        same.build = [&](Tape& tape, std::span<const Var> in) {
            std::vector<Var> inputs;
            for (const std::size_t i : place)
                inputs.push_back(in[i]);
            return tape.record(op, inputs, sample.attributes);
        };
        report.add("one value for several inputs", check(same, kind));
    }

    Problem shared = plain;
    shared.build = [&](Tape& tape, std::span<const Var> in) {
        const Var first = tape.record(op, in, sample.attributes);
        const Var second = tape.record(op, in, sample.attributes);
        return ops::residual(tape, first, second, 1.25, -0.5);
    };
    report.add("two consumers", check(shared, kind));
    return report;
}

} // namespace gradcheck
