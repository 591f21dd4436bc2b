#include "ballast/lab/explain.h"

#include <algorithm>
#include <string>

#include "ballast/config/load.h"
#include "ballast/nn/transformer.h"
#include "catch.h"

using namespace ballast;

namespace {

Config config_with(const std::vector<std::string>& overrides) {
    return config_from_json(R"({"data": {"path": "text.txt"}})", "config.json", overrides);
}

std::vector<std::string> block_of(const std::vector<std::string>& overrides) {
    const BlockEquations block = explain(config_with(overrides), 65).equations.blocks.at(0);
    return {block.attention, block.ffn};
}

} // namespace

TEST_CASE("the equations say where the norms are, and with which values", "[lab]") {
    CHECK(block_of({}) ==
          std::vector<std::string>{"x ← x + Attention(LayerNorm(x; eps=1e-5))", "x ← x + FFN(LayerNorm(x; eps=1e-5))"});
    CHECK(block_of({"model.norm.placement=post", "model.norm.kind=rmsnorm", "model.norm.eps=1e-6"})[1] ==
          "x ← RMSNorm(x + FFN(x); eps=1e-6)");
    CHECK(block_of({"model.norm.placement=none"})[0] == "x ← x + Attention(x)");
    CHECK(block_of({"model.norm.kind=none"})[0] == "x ← x + Attention(x)");
    CHECK(block_of({"model.dropout=0.1"})[0] == "x ← x + dropout(Attention(LayerNorm(x; eps=1e-5)); p=0.1)");

    const Equations plain = explain(config_with({}), 65).equations;
    CHECK(plain.embedding == "x = E[token] + P[position]");
    CHECK(plain.output == "logits = LayerNorm(x; eps=1e-5) Eᵀ");
    CHECK(plain.meanings.size() == 3);
    const Equations other = explain(config_with({"model.norm.placement=none", "model.position=rope",
                                                 "model.tie_embeddings=false", "model.final_norm=off"}),
                                    65)
                                .equations;
    CHECK(other.embedding == "x = E[token]");
    CHECK(other.output == "logits = x Hᵀ");
    CHECK(other.meanings.size() == 2); // no norm to explain
}

TEST_CASE("the rows of the table add up to the model, for every placement and kind", "[lab]") {
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{}))
            for (const char* tied : {"model.tie_embeddings=true", "model.tie_embeddings=false"}) {
                CAPTURE(placement.name, kind.name, tied);
                std::vector<std::string> keys{tied, "model.bias=true"};
                // A model without norms has no kind of them, and norms of no kind no place.
                if (kind.value == NormKind::none) {
                    if (placement.value != placement_named("none")) continue;
                } else {
                    if (placement.value == placement_named("none")) keys.emplace_back("model.final_norm=on");
                    keys.push_back("model.norm.kind=" + std::string(kind.name));
                }
                keys.push_back("model.norm.placement=" + std::string(placement.name));
                const Config config = config_with(keys);
                const Explanation explanation = explain(config, 65);
                ParamTable table;
                const Transformer model(table, config.model, 65);
                std::int64_t count = 0, decayed = 0, norms = 0, params = 0, norm_vectors = 0;
                for (const ParamRow& row : explanation.parameters) {
                    count += row.count;
                    decayed += row.decays ? row.count : 0;
                    params += row.repeats;
                    CHECK(row.count == row.repeats * row.shape.elements());
                }
                for (const Param& param : table.params())
                    if (param.name.find("_norm.") != std::string::npos) {
                        norms += param.shape.elements();
                        norm_vectors += param.name.ends_with(".gain") ? 1 : 0;
                    }
                CHECK(count == table.count());
                CHECK(explanation.parameter_count == table.count());
                CHECK(explanation.decayed_count == decayed);
                CHECK(params == static_cast<std::int64_t>(table.params().size()));
                CHECK(explanation.norm_cost.parameters == norms);
                CHECK(explanation.norm_cost.norms == norm_vectors);
                CHECK((explanation.norm_cost.bytes_per_step > 0) == (norm_vectors > 0));
                CHECK(explanation.ties.size() == table.ties().size());
            }
}

TEST_CASE("parameters are counted by hand for a known model", "[lab]") {
    const Explanation explanation = explain(config_with({}), 65);
    // 4 layers of width 128: embeddings 65 and 64 rows; qkv, output, two ffn matrices; two gains; a final gain.
    const std::int64_t expected = (65 + 64) * 128 + 4 * (12 * 128 * 128 + 2 * 128) + 128;
    CHECK(explanation.parameter_count == expected);
    CHECK(explanation.decayed_count == expected - 4 * 2 * 128 - 128);
    REQUIRE(explanation.ties.size() == 1);
    CHECK(explanation.ties[0].name == "head.weight");
    CHECK(explanation.ties[0].same_as == "embedding.tokens");
    const auto row = std::find_if(explanation.parameters.begin(), explanation.parameters.end(),
                                  [](const ParamRow& r) { return r.name == "blocks.*.ffn.input.weight"; });
    REQUIRE(row != explanation.parameters.end());
    CHECK(row->repeats == 4);
    CHECK(row->init == "normal 0.02");
    CHECK(row->decays);
    // 9 norms of 5 passes over 12 * 64 rows of 128 floats
    CHECK(explanation.norm_cost.norms == 9);
    CHECK(explanation.norm_cost.bytes_per_step == 9.0 * 5 * 4 * 128 * 12 * 64);
}
