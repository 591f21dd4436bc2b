// Every model equals its equations written out with primitive ops, and models that should differ do.

#include "catch.h"
#include "certify.h"

using namespace certify;

namespace {

void require_equations(const ModelConfig& config) {
    INFO(name_of(config));
    TinyModel model(config);
    model.shake();
    const ModelReport report = check_equations(config, model);
    INFO(report.text());
    CHECK(report.failures.empty());
}

/// The logits as the model starts: gains 1 and biases 0, so that nothing but the equation makes a difference.
Values starting_logits(Placement placement, NormKind kind) {
    return TinyModel(config_with([&](ModelConfig& model) {
               model.norm.placement = placement;
               model.norm.kind = kind;
               model.final_norm = Switch::off;
           }))
        .logits();
}

} // namespace

TEST_CASE("every placement and kind of norm is its equation", "[gradcheck]") {
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{}))
            for (const Switch final_norm : {Switch::on, Switch::off})
                require_equations(config_with([&](ModelConfig& model) {
                    model.norm.placement = placement.value;
                    model.norm.kind = kind.value;
                    model.norm.eps = 1e-2;
                    model.final_norm = final_norm;
                }));
}

TEST_CASE("every kind of position and ffn is its equation", "[gradcheck]") {
    for (const auto& position : values_of(PositionKind{}))
        for (const auto& ffn : values_of(FfnKind{}))
            for (const std::int64_t kv_heads : {1, 2, 4})
                require_equations(config_with([&](ModelConfig& model) {
                    model.position = position.value;
                    model.ffn.kind = ffn.value;
                    model.heads = 4;
                    model.kv_heads = kv_heads;
                    model.layers = 1;
                    model.tie_embeddings = kv_heads == 2;
                    model.bias = kv_heads != 4;
                }));
}

TEST_CASE("norms without gains and biases are their equations", "[gradcheck]") {
    for (const auto& kind : values_of(NormKind{}))
        for (const bool gain : {true, false})
            require_equations(config_with([&](ModelConfig& model) {
                model.norm.kind = kind.value;
                model.norm.gain = gain;
                model.norm.bias = gain ? Switch::off : Switch::automatic;
            }));
}

TEST_CASE("every placement differs from every other", "[gradcheck]") {
    for (const auto& kind : values_of(NormKind{})) {
        if (kind.value == NormKind::none) continue; // without norms, their places are all the same
        const auto placements = values_of(Placement{});
        for (std::size_t i = 0; i < placements.size(); ++i)
            for (std::size_t j = 0; j < i; ++j) {
                INFO(kind.name << ": " << placements[i].name << " and " << placements[j].name);
                CHECK(differ(starting_logits(placements[i].value, kind.value),
                             starting_logits(placements[j].value, kind.value)));
            }
    }
}

TEST_CASE("every kind of norm differs from every other", "[gradcheck]") {
    for (const auto& placement : values_of(Placement{})) {
        const PlacementRow& row = placement_row(placement.value);
        if (!row.pre && !row.out && !row.post) continue;
        const auto kinds = values_of(NormKind{});
        for (std::size_t i = 0; i < kinds.size(); ++i)
            for (std::size_t j = 0; j < i; ++j) {
                // g x / |x| with g = sqrt(width) is x over its root mean square: they start as one, eps aside.
                if (kinds[i].value == NormKind::scalenorm && kinds[j].value == NormKind::rmsnorm) continue;
                INFO(placement.name << ": " << kinds[i].name << " and " << kinds[j].name);
                CHECK(differ(starting_logits(placement.value, kinds[i].value),
                             starting_logits(placement.value, kinds[j].value)));
            }
    }
}
