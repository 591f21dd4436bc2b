// The table of parameters: where they lie, how they start, and what they are called.

#include "ballast/nn/params.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/nn/init.h"
#include "ballast/nn/linear.h"
#include "ballast/ops/registry.h"
#include "catch.h"

using namespace ballast;

namespace {

std::vector<float> values_of_parameter(const ParamTable& table, const char* name) {
    const Param* param = table.find(name);
    REQUIRE(param != nullptr);
    const float* begin = table.values() + param->offset;
    return {begin, begin + param->shape.elements()};
}

double deviation(const std::vector<float>& values) {
    double squares = 0;
    for (const float value : values)
        squares += double{value} * double{value};
    return std::sqrt(squares / static_cast<double>(values.size()));
}

} // namespace

TEST_CASE("decaying parameters come first, every one is aligned, and the padding is zero", "[nn]") {
    ParamTable table;
    table.add("a", {3, 5}, ParamInit::normal(1), DecayGroup::decay);
    table.add("b", {7}, ParamInit::constant(2), DecayGroup::no_decay);
    table.add("c", {33}, ParamInit::uniform(1), DecayGroup::decay);
    table.add("d", {}, ParamInit::constant(3), DecayGroup::no_decay);
    table.allocate(1);
    table.allocate_gradients();
    CHECK(table.count() == 15 + 7 + 33 + 1);
    CHECK(table.size() == 16 + 16 + 48 + 16);
    CHECK(table.decay_size() == 16 + 48);
    std::vector<bool> used(static_cast<std::size_t>(table.size()));
    for (const Param& param : table.params()) {
        INFO(param.name);
        CHECK(reinterpret_cast<std::uintptr_t>(table.values() + param.offset) % 64 == 0);
        CHECK((param.offset < table.decay_size()) == (param.group == DecayGroup::decay));
        for (std::int64_t i = param.offset; i < param.offset + param.shape.elements(); ++i) {
            CHECK_FALSE(used[static_cast<std::size_t>(i)]);
            used[static_cast<std::size_t>(i)] = true;
        }
    }
    for (std::int64_t i = 0; i < table.size(); ++i) {
        if (!used[static_cast<std::size_t>(i)]) CHECK(table.values()[i] == 0);
        CHECK(table.gradients()[i] == 0);
    }
    CHECK(values_of_parameter(table, "b") == std::vector<float>(7, 2.0F));
}

TEST_CASE("a parameter starts by its name and the seed, whatever else there is", "[nn]") {
    ParamTable few, many, other_seed;
    few.add("w", {40, 30}, ParamInit::normal(0.5), DecayGroup::decay);
    many.add("before", {11}, ParamInit::normal(1), DecayGroup::decay);
    many.add("bias", {5}, ParamInit::constant(0), DecayGroup::no_decay);
    many.add("w", {40, 30}, ParamInit::normal(0.5), DecayGroup::no_decay);
    many.add("twin", {40, 30}, ParamInit::normal(0.5), DecayGroup::decay);
    other_seed.add("w", {40, 30}, ParamInit::normal(0.5), DecayGroup::decay);
    set_threads(1);
    few.allocate(1);
    set_threads(3);
    many.allocate(1);
    set_threads(available_processors());
    other_seed.allocate(2);
    CHECK(values_of_parameter(few, "w") == values_of_parameter(many, "w"));
    CHECK(values_of_parameter(few, "w") != values_of_parameter(many, "twin"));
    CHECK(values_of_parameter(few, "w") != values_of_parameter(other_seed, "w"));
}

TEST_CASE("initial values have the distribution that was asked for", "[nn]") {
    ParamTable table;
    table.add("normal", {300, 200}, ParamInit::normal(0.02), DecayGroup::decay);
    table.add("uniform", {300, 200}, ParamInit::uniform(0.3), DecayGroup::decay);
    table.allocate(7);
    const auto normal = values_of_parameter(table, "normal"), uniform = values_of_parameter(table, "uniform");
    const double error = 4 / std::sqrt(2.0 * 60000); // four standard errors of a standard deviation
    CHECK(deviation(normal) == Approx(0.02).epsilon(error));
    CHECK(deviation(uniform) == Approx(0.3 / std::sqrt(3)).epsilon(error));
    const auto [low, high] = std::minmax_element(uniform.begin(), uniform.end());
    CHECK(*low >= -0.3F);
    CHECK(*low < -0.299F);
    CHECK(*high <= 0.3F);
    CHECK(*high > 0.299F);
}

TEST_CASE("the init rules are those of their sources", "[nn]") {
    using Kind = ParamInit::Kind;
    const auto check = [](const ParamInit& init, Kind kind, double value) {
        CHECK(init.kind == kind);
        CHECK(init.value == Approx(value));
    };
    ModelConfig model;
    model.layers = 8;
    model.width = 64;
    model.init.std = 0.03;
    const InitRules gpt2(model);
    check(gpt2.matrix(64, 256), Kind::normal, 0.03);
    check(gpt2.branch_output(256, 64), Kind::normal, 0.03 / 4);
    check(gpt2.embedding(), Kind::normal, 0.03);
    model.init.kind = InitKind::xavier;
    const InitRules xavier(model);
    check(xavier.matrix(64, 32), Kind::uniform, 0.25);
    check(xavier.branch_output(64, 32), Kind::uniform, 0.25);
    check(xavier.embedding(), Kind::normal, 0.125);
    model.init.kind = InitKind::fan_in;
    const InitRules fan_in(model);
    check(fan_in.matrix(64, 256), Kind::normal, 0.125);
    check(fan_in.branch_output(256, 64), Kind::normal, 0.0625);
    check(fan_in.embedding(), Kind::normal, 0.125);
    model.init.kind = InitKind::small;
    check(InitRules(model).matrix(64, 256), Kind::normal, std::sqrt(2.0 / (5 * 64)));
    model.init.kind = InitKind::deepnorm;
    const InitRules deepnorm(model);
    check(deepnorm.matrix(64, 64), Kind::normal, 0.125);
    check(deepnorm.branch_output(64, 64), Kind::normal, 0.125 * std::pow(64, -0.25));
    model.init.kind = InitKind::depth_scaled;
    check(InitRules(model, 3).matrix(64, 32), Kind::uniform, 0.125);
}

TEST_CASE("a tie is a second name for the same memory", "[nn]") {
    ParamTable table;
    const Parameter embedding = table.add("embedding", {4, 3}, ParamInit::normal(1), DecayGroup::decay);
    const Parameter head = table.tie("head", embedding);
    table.allocate(1);
    table.allocate_gradients();
    CHECK(table.params().size() == 1);
    CHECK(table.count() == 12);
    REQUIRE(table.ties().size() == 1);
    CHECK(table.ties()[0].name == "head");
    CHECK(table.find("head") == table.find("embedding"));
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    CHECK(head(tape).index == embedding(tape).index);
}

TEST_CASE("names are given once, and before the memory", "[nn]") {
    ParamTable table;
    const Parameter w = table.add("w", {2}, ParamInit::constant(0), DecayGroup::decay);
    CHECK_THROWS_WITH(table.add("w", {3}, ParamInit::constant(0), DecayGroup::decay), ContainsSubstring("'w'"));
    CHECK_THROWS_WITH(table.tie("w", w), ContainsSubstring("'w'"));
    table.tie("v", w);
    CHECK_THROWS_AS(table.add("v", {3}, ParamInit::constant(0), DecayGroup::decay), Error);
    CHECK(table.find("x") == nullptr);
    table.allocate(1);
    CHECK_THROWS_WITH(table.add("late", {3}, ParamInit::constant(0), DecayGroup::decay), ContainsSubstring("'late'"));
    CHECK_THROWS_AS(table.allocate(1), Error);
}

TEST_CASE("a parameter has a gradient where the table has room for it and the tape trains", "[nn]") {
    ParamTable table;
    const Parameter w = table.add("w", {2}, ParamInit::constant(1), DecayGroup::decay);
    table.allocate(1);
    Tape tape(ops::registry());
    const auto has_gradient = [&](Mode mode) {
        tape.begin(mode);
        return tape.gradient(w(tape)) != nullptr;
    };
    CHECK_FALSE(has_gradient(Mode::train));
    table.allocate_gradients();
    const float* gradients = table.gradients();
    table.allocate_gradients(); // harmless
    CHECK(table.gradients() == gradients);
    CHECK(has_gradient(Mode::train));
    CHECK_FALSE(has_gradient(Mode::eval));
    CHECK_FALSE(Parameter{});
    CHECK_FALSE(Parameter{}(tape));
}

TEST_CASE("a linear layer's matrix decays and its bias does not", "[nn]") {
    ParamTable table;
    const Linear with(table, "with", 4, 6, ParamInit::normal(1), true);
    const Linear without(table, "without", 4, 6, ParamInit::normal(1), false);
    CHECK(table.find("with.weight")->shape == Shape{6, 4});
    CHECK(table.find("with.weight")->group == DecayGroup::decay);
    CHECK(table.find("with.bias")->shape == Shape{6});
    CHECK(table.find("with.bias")->group == DecayGroup::no_decay);
    CHECK(table.find("without.bias") == nullptr);
    CHECK_FALSE(without.bias);
}
