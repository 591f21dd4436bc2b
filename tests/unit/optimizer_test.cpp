// Which parameters an optimizer's step touches, and with which decay. The update rules themselves are for
// update_kernel_test.cpp and, against PyTorch, tests/interop.

#include "ballast/train/optimizer.h"

#include <algorithm>
#include <memory>

#include "ballast/config/load.h"
#include "ballast/nn/transformer.h"
#include "ballast/ops/registry.h"
#include "catch.h"

using namespace ballast;

namespace {

/// A matrix that decays and a gain that does not, both of ones, with all gradients `gradient`.
struct Two {
    ParamTable table;
    const Param* matrix;
    const Param* gain;

    explicit Two(float gradient) {
        table.add("gain", {5}, ParamInit::constant(1), DecayGroup::no_decay);
        table.add("matrix", {3, 4}, ParamInit::constant(1), DecayGroup::decay);
        table.allocate(1);
        table.allocate_gradients();
        matrix = table.find("matrix");
        gain = table.find("gain");
        for (const Param* param : {matrix, gain})
            std::fill_n(table.gradients() + param->offset, param->shape.elements(), gradient);
    }
    float value(const Param* param) const {
        const float* begin = table.values() + param->offset;
        CHECK(std::all_of(begin, begin + param->shape.elements(), [&](float x) { return x == *begin; }));
        return *begin;
    }
    void check_padding() const {
        for (const Param* param : {matrix, gain})
            for (std::int64_t i = param->shape.elements(); i % 16 != 0; ++i)
                CHECK(table.values()[param->offset + i] == 0);
    }
};

OptimizerConfig sgd(double weight_decay, DecayKind decay) {
    OptimizerConfig config;
    config.kind = OptimizerKind::sgd;
    config.lr = 0.1;
    config.momentum = 0;
    config.weight_decay = weight_decay;
    config.decay = decay;
    return config;
}

} // namespace

TEST_CASE("weight decay takes from the decaying parameters alone", "[train]") {
    for (const auto& kind : values_of(OptimizerKind{}))
        for (const DecayKind decay : {DecayKind::coupled, DecayKind::independent}) {
            INFO(kind.name << ", " << to_string(decay));
            Two two(0);
            OptimizerConfig config = sgd(0.2, decay);
            config.kind = kind.value;
            Optimizer optimizer(config, two.table);
            optimizer.step(1, 0.5, 1);
            // lr 0.1, decay 0.2, factor of the schedule 0.5
            CHECK(two.value(two.matrix) == Approx(decay == DecayKind::coupled ? 1 - 0.1 * 0.2 * 0.5 : 1 - 0.2 * 0.5));
            CHECK(two.value(two.gain) == 1);
            two.check_padding();
        }
}

TEST_CASE("a step scales the gradient on the way in and counts what it did", "[train]") {
    Two two(2);
    Optimizer optimizer(sgd(0, DecayKind::coupled), two.table);
    const UpdateStats stats = optimizer.step(1, 0.5, 0.25);
    // 1 - lr factor scale gradient
    const float expected = 1 - 0.1F * 0.5F * 0.25F * 2;
    CHECK(two.value(two.matrix) == Approx(expected));
    CHECK(two.value(two.gain) == Approx(expected));
    CHECK(stats.finite);
    CHECK(stats.parameter_squares == Approx(17 * expected * expected));
    CHECK(stats.update_squares == Approx(17 * 0.025 * 0.025));
    two.check_padding();
}

TEST_CASE("Adam's first step has the size of the learning rate", "[train]") {
    for (const float gradient : {1e-3F, -50.0F}) {
        Two two(gradient);
        OptimizerConfig config;
        config.lr = 0.01;
        config.weight_decay = 0;
        Optimizer optimizer(config, two.table);
        optimizer.step(1, 1, 1);
        CHECK(two.value(two.gain) == Approx(gradient > 0 ? 0.99 : 1.01).epsilon(1e-5));
    }
}

TEST_CASE("an update that is not finite is reported", "[train]") {
    Two two(1);
    two.table.gradients()[two.gain->offset] = std::numeric_limits<float>::infinity();
    CHECK_FALSE(Optimizer(sgd(0, DecayKind::coupled), two.table).step(1, 1, 1).finite);
}

TEST_CASE("optimizers keep what their rules need, from zero", "[train]") {
    const auto names = [](const OptimizerConfig& config) {
        const Two two(1);
        const Optimizer optimizer(config, two.table);
        CHECK(moment_count(config) == optimizer.moments().size());
        std::string all;
        for (const Moment& moment : optimizer.moments()) {
            all += std::string(moment.name) + " ";
            CHECK(std::all_of(moment.values, moment.values + two.table.size(), [](float x) { return x == 0; }));
        }
        return all;
    };
    OptimizerConfig config;
    CHECK(names(config) == "m v ");
    config.kind = OptimizerKind::sgd;
    CHECK(names(config) == "velocity ");
    config.momentum = 0;
    CHECK(names(config).empty());
}

TEST_CASE("moments of one parameter do not reach another, and the padding stays zero", "[train]") {
    Two two(0);
    two.table.gradients()[two.matrix->offset + 3] = 1;
    Optimizer optimizer(OptimizerConfig{}, two.table);
    for (std::int64_t step = 1; step <= 5; ++step)
        optimizer.step(step, 1, 1);
    for (const Moment& moment : optimizer.moments())
        for (std::int64_t i = 0; i < two.table.size(); ++i)
            CHECK((moment.values[i] != 0) == (i == two.matrix->offset + 3));
    CHECK(two.value(two.gain) == 1);
    two.check_padding();
}

TEST_CASE("in a model, matrices and embeddings decay, gains and biases do not", "[train]") {
    for (const bool tied : {true, false}) {
        Config config;
        config.model.bias = true;
        config.model.tie_embeddings = tied;
        config.model.layers = 1;
        resolve(config);
        ParamTable table;
        const Transformer model(table, config.model, 11);
        for (const Param& param : table.params()) {
            INFO(param.name);
            CHECK((param.group == DecayGroup::decay) == (param.shape.rank == 2));
        }
        // A tied matrix is one parameter, so that a step moves and decays it once.
        const auto named_head = std::count_if(table.params().begin(), table.params().end(),
                                              [](const Param& param) { return param.name == "head.weight"; });
        CHECK(named_head == (tied ? 0 : 1));
        CHECK(table.find("head.weight") != nullptr);
        CHECK((table.find("head.weight") == table.find("embedding.tokens")) == tied);
    }
}
