// How parameters start: model.init, and the residuals that have a say in it.

#include "ballast/nn/init.h"

#include <cmath>
#include <functional>
#include <string>

#include "ballast/config/load.h"
#include "ballast/nn/transformer.h"
#include "catch.h"

using namespace ballast;

namespace {

ModelConfig config_with(const std::function<void(ModelConfig&)>& change) {
    Config config;
    ModelConfig& model = config.model;
    model.layers = 8;
    model.width = 48;
    model.heads = 4;
    change(model);
    resolve(config);
    return config.model;
}

/// Root mean square of elements [begin, end) of a parameter at the start; the whole of it by default.
double spread(const ParamTable& table, const std::string& name, std::int64_t begin = 0, std::int64_t end = -1) {
    const Param* param = table.find(name);
    REQUIRE(param != nullptr);
    if (end < 0) end = param->shape.elements();
    double squares = 0;
    for (std::int64_t i = begin; i < end; ++i) {
        const double value = static_cast<double>(table.values()[param->offset + i]);
        squares += value * value;
    }
    return std::sqrt(squares / static_cast<double>(end - begin));
}

struct Start {
    ParamTable table;
    explicit Start(const std::function<void(ModelConfig&)>& change) {
        const Transformer model(table, config_with(change), 50);
        table.allocate(1);
    }
};

constexpr double kNoise = 0.06; // relative, for matrices of a thousand elements and more

} // namespace

TEST_CASE("deepnorm scales values, attention's last matrix and the ffn by beta", "[init]") {
    const Start start([](ModelConfig& model) { model.init.kind = InitKind::deepnorm; });
    const double beta = std::pow(64.0, -0.25), square = std::sqrt(2.0 / 96), wide = std::sqrt(2.0 / (48 + 192));
    constexpr std::int64_t kValues = 2 * 48 * 48;
    CHECK(spread(start.table, "blocks.3.attention.qkv.weight", 0, kValues) == Approx(square).epsilon(kNoise));
    CHECK(spread(start.table, "blocks.3.attention.qkv.weight", kValues) == Approx(beta * square).epsilon(kNoise));
    CHECK(spread(start.table, "blocks.3.attention.output.weight") == Approx(beta * square).epsilon(kNoise));
    CHECK(spread(start.table, "blocks.3.ffn.input.weight") == Approx(beta * wide).epsilon(kNoise));
    CHECK(spread(start.table, "blocks.3.ffn.output.weight") == Approx(beta * wide).epsilon(kNoise));
}

TEST_CASE("small is one spread for all matrices", "[init]") {
    const Start start([](ModelConfig& model) { model.init.kind = InitKind::small; });
    for (const char* name :
         {"blocks.0.attention.qkv.weight", "blocks.7.ffn.input.weight", "blocks.2.ffn.output.weight"})
        CHECK(spread(start.table, name) == Approx(std::sqrt(2.0 / (5 * 48))).epsilon(kNoise));
    CHECK(spread(start.table, "embedding.tokens") == Approx(1 / std::sqrt(48.0)).epsilon(kNoise));
}

TEST_CASE("depth_scaled is xavier over the root of the block's number", "[init]") {
    const Start start([](ModelConfig& model) { model.init.kind = InitKind::depth_scaled; });
    for (const int block : {0, 1, 7}) {
        const double expected = std::sqrt(2.0 / 96 / (block + 1));
        const std::string name = "blocks." + std::to_string(block) + ".attention.output.weight";
        CHECK(spread(start.table, name) == Approx(expected).epsilon(kNoise));
    }
}

TEST_CASE("fixup starts branches at 0, and scales what is before their last matrix", "[init]") {
    const Start plain([](ModelConfig& model) { model.norm.placement = placement_named("none"); });
    const Start fixup([](ModelConfig& model) {
        model.norm.placement = placement_named("none");
        model.residual = ResidualKind::fixup;
    });
    CHECK(spread(fixup.table, "blocks.2.attention.output.weight") == 0);
    CHECK(spread(fixup.table, "blocks.2.ffn.output.weight") == 0);
    const auto ratio = [&](const char* name, std::int64_t begin = 0, std::int64_t end = -1) {
        return spread(fixup.table, name, begin, end) / spread(plain.table, name, begin, end);
    };
    constexpr std::int64_t kValues = 2 * 48 * 48;
    CHECK(ratio("blocks.2.ffn.input.weight") == Approx(1 / std::sqrt(16.0)));
    CHECK(ratio("blocks.2.attention.qkv.weight", 0, kValues) == Approx(1));
    CHECK(ratio("blocks.2.attention.qkv.weight", kValues) == Approx(1 / std::sqrt(16.0)));
    // A gated ffn has three factors.
    CHECK(InitRules(config_with([](ModelConfig& model) { model.residual = ResidualKind::fixup; }))
              .ffn_input(64, true)
              .value == Approx(0.02 * std::pow(16.0, -0.25)));
}

TEST_CASE("factors of branches and norms start where their papers say", "[init]") {
    const Start rezero([](ModelConfig& model) { model.residual = ResidualKind::rezero; });
    CHECK(rezero.table.find("blocks.3.residual_scale")->shape == Shape{1});
    CHECK(spread(rezero.table, "blocks.3.residual_scale") == 0);
    CHECK(rezero.table.find("blocks.3.ffn.branch_scale") == nullptr);
    const Start skipinit([](ModelConfig& model) { model.residual = ResidualKind::skipinit; });
    CHECK(skipinit.table.find("blocks.3.ffn.branch_scale")->shape == Shape{1});
    CHECK(spread(skipinit.table, "blocks.3.attention.branch_scale") == 0);
    const Start layerscale([](ModelConfig& model) { model.residual = ResidualKind::layerscale; });
    CHECK(layerscale.table.find("blocks.0.ffn.branch_scale")->shape == Shape{48});
    CHECK(spread(layerscale.table, "blocks.0.ffn.branch_scale") == Approx(0.1));

    const Start scalenorm([](ModelConfig& model) { model.norm.kind = NormKind::scalenorm; });
    CHECK(scalenorm.table.find("final_norm.gain")->shape == Shape{1});
    CHECK(spread(scalenorm.table, "final_norm.gain") == Approx(std::sqrt(48.0)));
    const Start gemma([](ModelConfig& model) {
        model.norm.kind = NormKind::rmsnorm;
        model.norm.unit_offset = true;
        model.head_scale = true;
    });
    CHECK(spread(gemma.table, "final_norm.gain") == 0);
    CHECK(spread(gemma.table, "blocks.0.attention.head_scale") == 1);
    const Start derf([](ModelConfig& model) {
        model.norm.kind = NormKind::derf;
        model.norm.alpha = 0.8;
        model.norm.attention_alpha = 0.2;
        model.norm.shift = 0.5;
    });
    CHECK(spread(derf.table, "blocks.1.attention.pre_norm.alpha") == Approx(0.2));
    CHECK(spread(derf.table, "blocks.1.ffn.pre_norm.alpha") == Approx(0.8));
    CHECK(spread(derf.table, "final_norm.shift") == Approx(0.5));

    // None of them decays.
    for (const Start* start : {&rezero, &skipinit, &layerscale, &scalenorm, &gemma, &derf})
        for (const Param& param : start->table.params())
            CHECK((param.group == DecayGroup::decay) == (param.shape.rank == 2));
}
