// Names, shapes and limits of whole models. What they compute is for tests/gradcheck and tests/interop.

#include "ballast/nn/transformer.h"

#include <cmath>
#include <map>
#include <string>

#include "ballast/base/error.h"
#include "ballast/config/load.h"
#include "ballast/ops/registry.h"
#include "catch.h"

using namespace ballast;

namespace {

Config small_config() {
    Config config;
    config.model.layers = 2;
    config.model.heads = 4;
    config.model.kv_heads = 2;
    config.model.width = 16;
    config.model.context = 8;
    config.model.ffn.kind = FfnKind::swiglu;
    config.model.ffn.width = 24;
    config.model.bias = true;
    resolve(config);
    return config;
}

std::map<std::string, std::string> shapes_of(const Config& config) {
    ParamTable table;
    const Transformer model(table, config.model, 11);
    std::map<std::string, std::string> shapes;
    for (const Param& param : table.params())
        shapes[param.name] = param.shape.text();
    return shapes;
}

} // namespace

TEST_CASE("parameters have the names and shapes that checkpoints rely on", "[nn]") {
    const auto shapes = shapes_of(small_config());
    CHECK(shapes.at("embedding.tokens") == "[11, 16]");
    CHECK(shapes.at("embedding.positions") == "[8, 16]");
    CHECK(shapes.at("blocks.0.attention.qkv.weight") == "[32, 16]"); // (4 + 2 + 2) heads of width 4
    CHECK(shapes.at("blocks.1.attention.qkv.bias") == "[32]");
    CHECK(shapes.at("blocks.1.attention.output.weight") == "[16, 16]");
    CHECK(shapes.at("blocks.1.ffn.input.weight") == "[48, 16]"); // gate and up
    CHECK(shapes.at("blocks.1.ffn.output.weight") == "[16, 24]");
    CHECK(shapes.at("blocks.0.attention.pre_norm.gain") == "[16]");
    CHECK(shapes.at("blocks.0.ffn.pre_norm.bias") == "[16]");
    CHECK(shapes.at("final_norm.gain") == "[16]");
    CHECK(shapes.count("head.weight") == 0); // a second name
    CHECK(shapes.size() == 2 + 2 * (4 + 4 + 4) + 2);
}

TEST_CASE("norms sit where the placement's row says", "[nn]") {
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{})) {
            INFO(placement.name << ", " << kind.name);
            Config config = small_config();
            config.model.norm.placement = placement.value;
            config.model.norm.kind = kind.value;
            config.model.final_norm = Switch::automatic;
            config.model.norm.bias = Switch::automatic;
            resolve(config);
            const PlacementRow& row = placement_row(placement.value);
            const bool norms = kind.value != NormKind::none;
            const auto shapes = shapes_of(config);
            for (const std::string sublayer : {"blocks.1.attention", "blocks.0.ffn"}) {
                CHECK(shapes.count(sublayer + ".pre_norm.gain") == std::size_t{norms && row.pre});
                CHECK(shapes.count(sublayer + ".out_norm.gain") == std::size_t{norms && row.out});
                CHECK(shapes.count(sublayer + ".post_norm.gain") == std::size_t{norms && row.post});
            }
            CHECK(shapes.count("final_norm.gain") == std::size_t{norms && row.final_norm});
        }
}

TEST_CASE("a model takes sequences up to its context, and no unknown tokens", "[nn]") {
    const Config config = small_config();
    ParamTable table;
    const Transformer model(table, config.model, 11);
    table.allocate(1);
    CHECK(model.vocabulary() == 11);
    CHECK(model.context() == 8);
    Tape tape(ops::registry());
    const auto run = [&](std::vector<std::int32_t> tokens, SequenceShape shape) {
        tape.begin(Mode::eval);
        return tape.shape(model(tape, {tokens, shape}));
    };
    CHECK(run(std::vector<std::int32_t>(16, 3), {2, 8}) == Shape{16, 11});
    CHECK(run({10}, {1, 1}) == Shape{1, 11});
    CHECK_THROWS_AS(run(std::vector<std::int32_t>(9, 3), {1, 9}), ShapeError);
    CHECK_THROWS_AS(run({11}, {1, 1}), DataError);
    CHECK_THROWS_AS(run({-1}, {1, 1}), DataError);
}

TEST_CASE("sinusoids are those of the paper", "[nn]") {
    const std::vector<real> table = sinusoidal_positions(20, 7);
    REQUIRE(table.size() == 140);
    for (std::size_t t = 0; t < 20; ++t)
        for (std::size_t i = 0; i < 7; ++i) {
            const double angle = static_cast<double>(t) / std::pow(10000.0, static_cast<double>(i - i % 2) / 7);
            CHECK(table[7 * t + i] == Approx(i % 2 == 0 ? std::sin(angle) : std::cos(angle)).margin(1e-6));
        }
}

TEST_CASE("dropout acts in training alone", "[nn]") {
    Config config = small_config();
    config.model.dropout = 0.5;
    ParamTable table;
    const Transformer model(table, config.model, 11);
    table.allocate(1);
    Tape tape(ops::registry());
    const std::vector<std::int32_t> tokens{1, 2, 3, 4};
    const auto logits = [&](Mode mode, std::uint64_t step) {
        tape.begin(mode, {1, step});
        const Var y = model(tape, {tokens, {1, 4}});
        return std::vector<real>(tape.data(y), tape.data(y) + 44);
    };
    CHECK(logits(Mode::eval, 1) == logits(Mode::eval, 2));
    CHECK(logits(Mode::train, 1) == logits(Mode::train, 1));
    CHECK(logits(Mode::train, 1) != logits(Mode::train, 2));
    CHECK(logits(Mode::train, 1) != logits(Mode::eval, 1));
}
