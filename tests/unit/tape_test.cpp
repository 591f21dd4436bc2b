// The tape's own business: what it refuses, whose gradient goes where, and which memory it uses. That gradients are
// right is for tests/gradcheck.

#include "ballast/autograd/tape.h"

#include <algorithm>
#include <array>
#include <string>
#include <type_traits>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "catch.h"

using namespace ballast;

namespace {

const Shape kShape{2, 3};
constexpr std::int64_t kCount = 6;
using Values = std::array<float, kCount>;

constexpr Values kA{1, 2, 3, 4, 5, 6}, kB{6, 5, 4, 3, 2, 1}, kOnes{1, 1, 1, 1, 1, 1}, kZeros{};

Values filled(float value) {
    Values values{};
    values.fill(value);
    return values;
}

Values times(const Values& x, float factor) {
    Values y{};
    std::transform(x.begin(), x.end(), y.begin(), [&](float v) { return factor * v; });
    return y;
}

Values copied(const float* data) {
    Values values{};
    std::copy_n(data, kCount, values.begin());
    return values;
}

} // namespace

TEST_CASE("a tape refuses what it cannot differentiate", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient{};
    SECTION("in eval mode") {
        tape.begin(Mode::eval);
        const Var y = ops::affine(tape, tape.leaf(kShape, kA.data(), gradient.data()), 2, 0);
        CHECK_THROWS_WITH(tape.backward(y), ContainsSubstring("eval"));
    }
    SECTION("twice, but a new pass makes it fresh") {
        for (int pass = 0; pass < 2; ++pass) {
            tape.begin(Mode::train);
            const Var y = ops::affine(tape, tape.leaf(kShape, kA.data(), gradient.data()), 2, 0);
            tape.backward(y);
            CHECK_THROWS_WITH(tape.backward(y), ContainsSubstring("already"));
        }
    }
    SECTION("from a leaf") {
        tape.begin(Mode::train);
        const Var x = tape.leaf(kShape, kA.data(), gradient.data());
        CHECK_THROWS_WITH(tape.backward(x), ContainsSubstring("leaf"));
        CHECK_THROWS_WITH(tape.producer(x), ContainsSubstring("leaf"));
    }
}

TEST_CASE("a tape refuses an op that is not registered, or too many inputs", "[autograd]") {
    Tape empty({});
    empty.begin(Mode::train);
    const Var x = empty.constant(kShape, kA.data());
    CHECK_THROWS_WITH(ops::affine(empty, x, 1, 0), ContainsSubstring("affine") && ContainsSubstring("registry"));
    OpDef copy = ops::affine_op; // the same rules, but another op
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    const Var y = tape.constant(kShape, kA.data());
    CHECK_THROWS_AS(tape.record(copy, {y}, Attributes{}), Error);
    CHECK_THROWS_WITH(tape.record(ops::binary_op, std::vector<Var>(kMaxInputs + 1, y)), ContainsSubstring("binary"));
    CHECK(tape.nodes().empty());
}

TEST_CASE("a tape refuses values that are not on it", "[autograd]") {
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    const Var a = tape.constant(kShape, kA.data());
    CHECK_THROWS_WITH(ops::add(tape, a, Var{}), ContainsSubstring("not on this tape"));
    const Var sum = ops::add(tape, a, a);
    tape.begin(Mode::train);
    CHECK_THROWS_AS(tape.data(sum), Error);
    CHECK_THROWS_AS(tape.shape(a), Error);
    CHECK_THROWS_AS(tape.backward(sum), Error);
    CHECK_FALSE(Var{});
    CHECK(sum);
}

TEST_CASE("a shape is the caller's own, however much is recorded after it", "[autograd]") {
    Tape tape(ops::registry());
    tape.begin(Mode::eval);
    const Var x = tape.constant(kShape, kA.data());
    const Shape& shape = tape.shape(x);
    Var y = x;
    for (int i = 0; i < 1000; ++i)
        y = ops::affine(tape, y, 1, 0);
    CHECK(shape == kShape);
    STATIC_REQUIRE_FALSE(std::is_reference_v<decltype(tape.shape(x))>); // it would point into a list that grows
}

TEST_CASE("shapes that do not fit are refused with the op's name and the shapes", "[autograd]") {
    Tape tape(ops::registry());
    tape.begin(Mode::eval);
    const Var a = tape.constant({2, 3}, kA.data()), b = tape.constant({3, 2}, kB.data());
    CHECK_THROWS_AS(ops::add(tape, a, b), ShapeError);
    CHECK_THROWS_WITH(ops::add(tape, a, b), ContainsSubstring("[binary]") && ContainsSubstring("[2, 3], [3, 2]"));
    CHECK_THROWS_WITH(ops::linear(tape, a, b), ContainsSubstring("[linear]"));
    CHECK_THROWS_WITH(ops::broadcast(tape, a, 5, 7), ContainsSubstring("[broadcast]") && ContainsSubstring("[5, 7]"));
    CHECK_THROWS_WITH(ops::attention(tape, a, {1, 2, 1, 1, 2}),
                      ContainsSubstring("[attention]") && ContainsSubstring("[2, 6]"));
    CHECK(tape.nodes().empty());
}

TEST_CASE("one memory is one leaf, and its uses add up", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient = filled(9);
    tape.begin(Mode::train);
    const Var a = tape.leaf(kShape, kA.data(), gradient.data());
    const Var again = tape.leaf(kShape, kA.data(), gradient.data());
    CHECK(a.index == again.index);
    CHECK_THROWS_AS(tape.leaf({3, 2}, kA.data(), gradient.data()), ShapeError);
    tape.backward(ops::add(tape, ops::affine(tape, a, 2, 1), ops::affine(tape, again, 5, 0)));
    CHECK(gradient == filled(7));

    // The same Var twice in one op.
    tape.begin(Mode::train);
    const Var x = tape.leaf(kShape, kA.data(), gradient.data());
    tape.backward(ops::multiply(tape, x, x));
    CHECK(gradient == times(kA, 2));
}

TEST_CASE("gradients are written, or added where that is asked for", "[autograd]") {
    Tape tape(ops::registry());
    Values used = filled(100), unused = filled(100), wanted_by_nobody = kA;
    const auto pass = [&](bool accumulate) {
        tape.begin(Mode::train);
        const Var a = tape.leaf(kShape, kA.data(), used.data());
        tape.leaf(kShape, kB.data(), unused.data());
        const Var c = tape.leaf(kShape, wanted_by_nobody.data(), nullptr);
        const Var beside = ops::affine(tape, a, 1000, 0); // on the tape, but nothing that the root depends on
        const Var y = ops::add(tape, ops::affine(tape, a, 3, 0), c);
        ops::add(tape, y, beside);
        tape.backward(y, {.accumulate = accumulate});
        CHECK(tape.gradient(c) == nullptr);
        CHECK(tape.gradient(a) == used.data());
    };
    pass(false);
    CHECK(used == filled(3));
    CHECK(unused == kZeros);
    unused = filled(5);
    pass(true);
    pass(true);
    CHECK(used == filled(9));
    CHECK(unused == filled(5));
}

TEST_CASE("leaves that the root does not depend on get zeros, also when it depends on none", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient = filled(4);
    tape.begin(Mode::train);
    tape.leaf(kShape, kA.data(), gradient.data());
    tape.backward(ops::affine(tape, tape.constant(kShape, kB.data()), 2, 0));
    CHECK(gradient == kZeros);
}

TEST_CASE("the root's cotangent is ones unless another is given", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient{};
    for (const bool given : {false, true}) {
        tape.begin(Mode::train);
        const Var y = ops::affine(tape, tape.leaf(kShape, kA.data(), gradient.data()), 2, 7);
        tape.backward(y, {.cotangent = given ? kB.data() : nullptr});
        CHECK(gradient == times(given ? kB : kOnes, 2));
    }
}

TEST_CASE("values and gradients in the middle stay readable when they are kept", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient{};
    for (const bool keep : {true, false}) {
        tape.begin(Mode::train);
        const Var x = tape.leaf(kShape, kA.data(), gradient.data());
        const Var middle = ops::affine(tape, x, 2, 1);
        const Var root = ops::multiply(tape, middle, middle);
        tape.backward(root, {.keep_gradients = keep});
        // What a loop reads after every step: the root.
        CHECK(copied(tape.data(root)) == Values{9, 25, 49, 81, 121, 169});
        CHECK(gradient == Values{12, 20, 28, 36, 44, 52});
        if (keep) {
            CHECK(copied(tape.data(middle)) == Values{3, 5, 7, 9, 11, 13});
            REQUIRE(tape.gradient(middle) != nullptr);
            CHECK(copied(tape.gradient(middle)) == Values{6, 10, 14, 18, 22, 26});
            CHECK(copied(tape.gradient(root)) == kOnes);
        } else {
            CHECK(tape.gradient(middle) == nullptr);
        }
    }
}

TEST_CASE("a gradient that is kept is not what an op made of it", "[autograd]") {
    // An activation's backward works in place.
    Tape tape(ops::registry());
    const std::array<float, 4> weight{0.3F, -0.2F, 0.5F, 0.7F};
    const std::array<float, 2> x{1, -2};
    std::array<float, 4> gradient{};
    std::array<float, 2> cotangent{3, 5};
    tape.begin(Mode::train);
    const Var y = ops::linear(tape, tape.constant({1, 2}, x.data()), tape.leaf({2, 2}, weight.data(), gradient.data()),
                              {}, Activation::gelu);
    tape.backward(y, {.keep_gradients = true, .cotangent = cotangent.data()});
    CHECK(tape.gradient(y)[0] == cotangent[0]);
    CHECK(tape.gradient(y)[1] == cotangent[1]);
    CHECK(gradient[0] != cotangent[0] * x[0]); // the slope of gelu is in it
}

TEST_CASE("backward uses the memory of what is dead, and passes repeat their addresses", "[autograd]") {
    constexpr std::int64_t kLength = 40, kElements = 1 << 14;
    const std::vector<float> x(kElements, 1.0F);
    std::vector<float> gradient(kElements);
    const auto bytes_of = [&](bool keep) {
        Tape tape(ops::registry());
        std::vector<const float*> first;
        for (int pass = 0; pass < 3; ++pass) {
            tape.begin(Mode::train);
            Var y = tape.leaf({kElements}, x.data(), gradient.data());
            std::vector<const float*> addresses;
            for (std::int64_t i = 0; i < kLength; ++i) {
                y = ops::affine(tape, y, 1, 0);
                addresses.push_back(tape.data(y));
            }
            tape.backward(y, {.keep_gradients = keep});
            if (pass == 1) first = addresses;
            if (pass == 2) CHECK(addresses == first);
        }
        return tape.activation_bytes();
    };
    const std::size_t values = kLength * kElements * sizeof(float);
    CHECK(bytes_of(false) <= values + 4 * kElements * sizeof(float));
    CHECK(bytes_of(true) >= 2 * values);
}

TEST_CASE("what is released serves the next ops, unless a backward reads it or values are kept", "[autograd]") {
    constexpr std::int64_t kElements = 1 << 14;
    const std::vector<float> x(kElements, 1.0F);
    std::vector<float> gradient(kElements);
    for (const bool keep : {false, true})
        for (const bool is_read : {false, true}) {
            CAPTURE(keep, is_read);
            Tape tape(ops::registry());
            tape.begin(Mode::train, {}, keep);
            const Var leaf = tape.leaf({kElements}, x.data(), gradient.data());
            const Var middle = ops::affine(tape, leaf, 2, 0);
            const Var root = is_read ? ops::multiply(tape, middle, middle) : ops::affine(tape, middle, 3, 0);
            const float* const memory = tape.data(middle);
            tape.release(middle);
            tape.release(leaf); // the caller's
            const Var beside = ops::affine(tape, leaf, 5, 0);
            CHECK((tape.data(beside) == memory) == (!keep && !is_read));
            if (!keep && !is_read) CHECK_THROWS_AS(ops::affine(tape, middle, 1, 0), Error);
            CHECK(tape.data(ops::affine(tape, leaf, 7, 0)) != memory); // given away once
            tape.backward(root);
            CHECK(gradient == std::vector<float>(kElements, is_read ? 8.0F : 6.0F));
        }
}

TEST_CASE("values that no backward reads, or none that is left, serve gradients", "[autograd]") {
    constexpr std::int64_t kElements = 1 << 14, kLength = 20;
    const std::vector<float> x(kElements, 1.0F);
    std::vector<float> gradient(kElements);
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    Var y = tape.leaf({kElements}, x.data(), gradient.data());
    for (std::int64_t i = 0; i < kLength; ++i)
        y = ops::affine(tape, y, -1, 0); // reads no value
    tape.backward(y);
    CHECK(tape.activation_bytes() == kLength * kElements * sizeof(float));
    CHECK(gradient == x);
}

TEST_CASE("a gradient takes the place of its value where the op allows it, and nobody reads that later", "[autograd]") {
    constexpr std::int64_t kRows = 64, kClasses = 256;
    const std::vector<std::int32_t> targets(kRows, 3);
    const std::vector<float> x(kRows * kClasses, 1.0F);
    std::vector<float> gradient(x.size());
    const auto bytes = [&](bool twice) {
        Tape tape(ops::registry());
        tape.begin(Mode::train);
        const Var leaf = tape.leaf({kRows, kClasses}, x.data(), gradient.data());
        const Var logits = ops::activation(tape, leaf, Activation::exp);
        Var loss = ops::cross_entropy(tape, logits, targets, 1);
        if (twice) loss = ops::add(tape, loss, ops::cross_entropy(tape, logits, targets, 1));
        tape.backward(loss);
        return tape.activation_bytes();
    };
    const std::size_t logits = x.size() * sizeof(float);
    CHECK(bytes(false) < logits + logits / 4);
    std::vector<float> doubled = gradient;
    for (float& value : doubled)
        value *= 2;
    CHECK(bytes(true) >= 2 * logits);
    CHECK(gradient == doubled);
}

TEST_CASE("nodes are plain data, in the order of their execution", "[autograd]") {
    Tape tape(ops::registry());
    tape.begin(Mode::eval, {1, 2});
    CHECK(tape.mode() == Mode::eval);
    const Var a = tape.constant(kShape, kA.data()), b = tape.constant(kShape, kB.data());
    const Var sum = ops::add(tape, a, b);
    const Var norm = ops::rmsnorm(tape, sum, {}, 1e-5);
    REQUIRE(tape.nodes().size() == 2);
    CHECK(tape.nodes()[0].op == &ops::binary_op);
    CHECK(tape.nodes()[0].input_count == 2);
    CHECK(tape.nodes()[0].inputs[1].index == b.index);
    CHECK(tape.nodes()[0].saved == nullptr);
    CHECK(&tape.producer(norm) == &tape.nodes()[1]);
    CHECK(tape.producer(norm).saved_count > 0);
    const Flops flops = tape.flops();
    CHECK(flops.forward > 0);
    CHECK(flops.backward > 0);
    tape.begin(Mode::train);
    CHECK(tape.nodes().empty());
    CHECK(tape.flops().forward == 0);
}

TEST_CASE("the time of each op is measured when that is asked for, and adds up over passes", "[autograd]") {
    Tape tape(ops::registry());
    Values gradient{};
    const auto pass = [&] {
        tape.begin(Mode::train);
        const Var x = tape.leaf(kShape, kA.data(), gradient.data());
        ops::affine(tape, x, 3, 0); // nothing depends on it
        const Var y = ops::affine(tape, x, 2, 0);
        tape.backward(y);
    };
    pass();
    CHECK(tape.node_seconds().empty());

    tape.time_nodes(true);
    pass();
    REQUIRE(tape.node_seconds().size() == tape.nodes().size());
    const NodeSeconds unused = tape.node_seconds()[0], used = tape.node_seconds()[1];
    CHECK(unused.forward > 0);
    CHECK(unused.backward == 0);
    CHECK(used.backward > 0);
    pass();
    CHECK(tape.node_seconds()[1].forward > used.forward);
    CHECK(tape.node_seconds()[1].backward > used.backward);

    tape.time_nodes(false);
    pass();
    CHECK(tape.node_seconds().empty());
}

TEST_CASE("random numbers follow the tape's key, the op's place and nothing else", "[autograd]") {
    Tape tape(ops::registry());
    const std::vector<float> ones(4000, 1.0F);
    const auto masks = [&](RandomKey key) {
        tape.begin(Mode::train, key);
        const Var x = tape.constant({4000}, ones.data());
        std::array<std::vector<float>, 2> out;
        for (auto& mask : out) {
            const Var y = ops::dropout(tape, x, 0.5);
            mask.assign(tape.data(y), tape.data(y) + 4000);
        }
        return out;
    };
    const auto first = masks({1, 1});
    CHECK(first[0] != first[1]);
    CHECK(masks({1, 1}) == first);
    CHECK(masks({1, 2})[0] != first[0]);
    CHECK(masks({2, 1})[0] != first[0]);
    CHECK(masks({1, 2})[0] != first[1]);
    for (const float value : first[0])
        CHECK((value == 0 || value == 2));
    CHECK(std::abs(static_cast<double>(std::count(first[0].begin(), first[0].end(), 0.0F)) - 2000) < 130);
}
