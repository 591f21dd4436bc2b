// What an op computes does not depend on the number of threads: output, saved state and gradients, to the bit.

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <set>

#include "ballast/base/error.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/softmax.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "catch.h"
#include "kernel_test.h"
#include "op_calls.h"

using namespace ballast;
using kernel_test::check_same_bits_at_any_thread_count;
using kernel_test::Reals;

namespace {

using Record = std::function<Var(Tape&, std::span<const Var>)>;

/// An op on inputs of given shapes, of which some are constants.
struct Call {
    OpSample inputs;
    Record record;
};

Call call_of(const OpDef& op, const OpSample& sample) {
    return {sample, [&op, attributes = sample.attributes](Tape& tape, std::span<const Var> in) {
                return tape.record(op, in, attributes);
            }};
}

Call large_call(std::vector<Shape> shapes, Record record, std::vector<std::size_t> constants = {}) {
    return {{"large", std::move(shapes), {}, -1, 1, std::move(constants)}, std::move(record)};
}

/// Output, saved state and gradients of one pass, and the gradients again after a second one that adds to them.
std::vector<Reals> bits_of(const Call& call) {
    const std::vector<Reals> values = op_calls::sample_inputs(call.inputs, 5);
    std::vector<Reals> gradients, results;
    for (const Reals& value : values)
        gradients.emplace_back(value.size(), op_calls::kNaN);

    Tape tape(ops::registry());
    for (const bool accumulate : {false, true}) {
        tape.begin(Mode::train, {11, 3});
        std::vector<Var> in;
        for (std::size_t i = 0; i < values.size(); ++i) {
            const Shape& shape = call.inputs.inputs[i];
            in.push_back(op_calls::is_constant(call.inputs, i)
                             ? tape.constant(shape, values[i].data())
                             : tape.leaf(shape, values[i].data(), gradients[i].data()));
        }
        const Var y = call.record(tape, in);
        const Node& node = tape.producer(y);
        const std::size_t size = op_calls::size_of(tape.shape(y));
        results.emplace_back(tape.data(y), tape.data(y) + size);
        results.emplace_back(node.saved, node.saved + node.saved_count);
        const Reals cotangent = op_calls::cotangent_values(size, 7);
        tape.backward(y, {.accumulate = accumulate, .cotangent = cotangent.data()});
        results.insert(results.end(), gradients.begin(), gradients.end());
    }
    return results;
}

/// The gradients of one call of backward. With `spoil`, what the op says it does not read is NaN, and gradients that
/// may overwrite values do.
std::vector<Reals> gradients_of(const OpDef& op, const OpSample& sample, bool spoil) {
    std::vector<Reals> values = op_calls::sample_inputs(sample, 5), gradients;
    Tape tape(ops::registry());
    tape.begin(Mode::train, {11, 3});
    std::vector<Var> in;
    for (std::size_t i = 0; i < values.size(); ++i)
        in.push_back(tape.constant(sample.inputs[i], values[i].data()));
    const Var y = tape.record(op, in, sample.attributes);
    Reals output(tape.data(y), tape.data(y) + tape.shape(y).elements());
    Reals cotangent = op_calls::cotangent_values(output.size(), 7);

    for (const Reals& value : values)
        gradients.emplace_back(value.size(), op_calls::kNaN);
    const auto has = [&](std::uint8_t bits, std::size_t i) { return spoil && (bits >> i & 1) != 0; };
    std::vector<Tensor> tensors;
    std::vector<Grad> grads;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (has(static_cast<std::uint8_t>(~op.reads.inputs), i))
            std::fill(values[i].begin(), values[i].end(), op_calls::kNaN);
        tensors.push_back({sample.inputs[i], values[i].data()});
        Reals& target = has(op.reads.overwrites, i) ? values[i] : gradients[i];
        grads.push_back(op_calls::is_constant(sample, i) ? Grad{} : Grad{target.data(), false});
    }
    if (spoil && !op.reads.output) std::fill(output.begin(), output.end(), op_calls::kNaN);
    Arena scratch;
    op.backward({tensors,
                 {tape.shape(y), output.data()},
                 tape.producer(y).saved,
                 cotangent.data(),
                 grads,
                 sample.attributes,
                 {11, 3},
                 0,
                 scratch});
    for (std::size_t i = 0; i < values.size(); ++i)
        if (has(op.reads.overwrites, i)) gradients[i] = values[i];
    return gradients;
}

/// A sample with every extent but those of 1 multiplied until the largest input has 2^17 elements, several times what
/// one task takes. Nothing when the op's attributes fix its extents.
std::optional<OpSample> enlarged(const OpDef& op, OpSample sample) {
    double elements = 0;
    for (const Shape& shape : sample.inputs)
        elements = std::max(elements, static_cast<double>(shape.elements()) / (shape.rank == 1 ? shape[0] : 1));
    const auto factor = static_cast<std::int64_t>(std::ceil(std::sqrt((1 << 17) / elements)));
    for (Shape& shape : sample.inputs)
        for (std::int64_t& extent : shape.dims)
            if (extent > 1) extent *= factor;
    try {
        op.infer_shape(sample.inputs, sample.attributes);
    } catch (const ShapeError&) {
        return {};
    }
    return sample;
}

std::vector<std::int32_t> ids(std::int64_t count, std::uint64_t below) {
    const RandomStream stream(below, "ids");
    std::vector<std::int32_t> out;
    for (std::uint64_t i = 0; out.size() < static_cast<std::size_t>(count); ++i)
        out.push_back(static_cast<std::int32_t>(stream.below(i, below)));
    return out;
}

/// Calls with several tasks of the ops that have a say in their extents, or that cut different shapes differently.
std::vector<Call> large_calls() {
    constexpr AttentionShape plain{2, 150, 4, 4, 16}, grouped{3, 130, 6, 2, 10, true}, one{1, 300, 1, 1, 64};
    const auto attention = [](const AttentionShape& s) {
        return large_call({{s.batch * s.time, s.packed_width()}},
                          [s](Tape& tape, std::span<const Var> in) { return ops::attention(tape, in[0], s); });
    };
    const auto linear = [](std::int64_t rows, std::int64_t in, std::int64_t out, Activation activation) {
        return large_call({{rows, in}, {out, in}, {out}}, [activation](Tape& tape, std::span<const Var> x) {
            return ops::linear(tape, x[0], x[1], x[2], activation);
        });
    };
    std::vector<std::int32_t> targets = ids(700, 301);
    for (std::size_t i = 0; i < targets.size(); i += 7)
        targets[i] = kIgnoredTarget;

    return {
        large_call({{97, 80}, {64, 80}},
                   [tokens = ids(2048, 97)](Tape& tape, std::span<const Var> in) {
                       return ops::embedding(tape, in[0], in[1], tokens, 64);
                   }),
        attention(plain),
        attention(grouped),
        attention(one),
        large_call({{grouped.batch * grouped.time, grouped.packed_width()}, {grouped.time, grouped.head_width}},
                   [s = grouped](Tape& tape, std::span<const Var> in) { return ops::rope(tape, in[0], in[1], s); },
                   {1}),
        large_call({{700, 301}},
                   [targets](Tape& tape, std::span<const Var> in) {
                       return ops::cross_entropy(tape, in[0], targets, 1.0 / 600, 1e-2);
                   }),
        large_call({{400, 1}},
                   [](Tape& tape, std::span<const Var> in) { return ops::broadcast(tape, in[0], 400, 331); }),
        large_call({{331}}, [](Tape& tape, std::span<const Var> in) { return ops::broadcast(tape, in[0], 400, 331); }),
        large_call({{300, 211}},
                   [](Tape& tape, std::span<const Var> in) { return ops::place(tape, in[0], 50, 9, 400, 331); }),
        large_call({{400, 330}},
                   [](Tape& tape, std::span<const Var> in) {
                       return ops::reshape(tape, in[0], {4000, 33});
                   }),
        // The weight's gradient is a small matrix with a long inner extent: it is cut along that.
        linear(8192, 32, 48, Activation::identity),
        linear(333, 257, 301, Activation::gelu),
        // The product of a few rows is cut into columns.
        linear(3, 300, 2000, Activation::silu),
    };
}

} // namespace

TEST_CASE("backward reads what the op says, and overwrites it no earlier", "[invariance]") {
    for (const OpDef* op : ops::registry())
        for (const OpSample& sample : op->samples()) {
            CAPTURE(op->name, sample.label);
            const std::vector<Reals> whole = gradients_of(*op, sample, false), spoilt = gradients_of(*op, sample, true);
            for (std::size_t i = 0; i < whole.size(); ++i)
                CHECK(kernel_test::same_bits(whole[i], spoilt[i]));
        }
}

TEST_CASE("every op computes the same bits at any number of threads", "[invariance]") {
    pin_blas();
    for (const OpDef* op : ops::registry())
        for (const OpSample& sample : op->samples()) {
            INFO(op->name << ", " << sample.label);
            check_same_bits_at_any_thread_count([&] { return bits_of(call_of(*op, sample)); });
        }
}

TEST_CASE("every op computes the same bits where it has several tasks", "[invariance]") {
    pin_blas();
    std::set<std::string_view> covered;
    for (const OpDef* op : ops::registry())
        for (const OpSample& sample : op->samples()) {
            const std::optional<OpSample> large = enlarged(*op, sample);
            if (!large) continue;
            INFO(op->name << ", " << sample.label << ", enlarged");
            check_same_bits_at_any_thread_count([&] { return bits_of(call_of(*op, *large)); });
            covered.insert(op->name);
        }
    for (const Call& call : large_calls()) {
        Tape tape(ops::registry());
        tape.begin(Mode::eval);
        const std::vector<Reals> values = op_calls::sample_inputs(call.inputs, 5);
        std::vector<Var> in;
        for (std::size_t i = 0; i < values.size(); ++i)
            in.push_back(tape.constant(call.inputs.inputs[i], values[i].data()));
        const std::string_view name = tape.producer(call.record(tape, in)).op->name;
        INFO(name << ", large, first input " << call.inputs.inputs[0].text());
        check_same_bits_at_any_thread_count([&] { return bits_of(call); });
        covered.insert(name);
    }
    // An op whose attributes fix its extents needs a line in large_calls().
    for (const OpDef* op : ops::registry()) {
        INFO(op->name);
        CHECK(covered.count(op->name) == 1);
    }
}
