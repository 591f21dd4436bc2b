// The gradient of the loss by every parameter of whole models, against central differences.

#include "catch.h"
#include "certify.h"

using namespace certify;

namespace {

void require_gradients(const ModelConfig& config) {
    INFO(name_of(config));
    TinyModel model(config);
    model.shake();
    const ModelReport report = check_model(model);
    INFO(report.text());
    CHECK(report.failures.empty());
    for (std::size_t p = 0; p < report.moves.size(); ++p) {
        const Param& param = model.table().params()[p];
        INFO(param.name);
        CHECK((report.moves[p] || is_idle(config, model, param)));
    }
}

} // namespace

TEST_CASE("gradients of whole models for every placement and kind of norm", "[gradcheck]") {
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{}))
            for (const Switch final_norm : {Switch::on, Switch::off})
                for (const bool tied : {true, false})
                    require_gradients(config_with([&](ModelConfig& model) {
                        model.norm.placement = placement.value;
                        model.norm.kind = kind.value;
                        model.final_norm = final_norm;
                        model.tie_embeddings = tied;
                    }));
}

TEST_CASE("gradients of whole models for every kind of position and ffn", "[gradcheck]") {
    for (const auto& position : values_of(PositionKind{}))
        for (const auto& ffn : values_of(FfnKind{}))
            require_gradients(config_with([&](ModelConfig& model) {
                model.position = position.value;
                model.ffn.kind = ffn.value;
                model.kv_heads = 1;
            }));
}

TEST_CASE("gradients of whole models without biases, and of norms without gains", "[gradcheck]") {
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{}))
            require_gradients(config_with([&](ModelConfig& model) {
                model.norm.placement = placement.value;
                model.norm.kind = kind.value;
                model.norm.gain = false;
                model.norm.eps = 0.1;
                model.bias = false;
                model.layers = 1;
            }));
}

TEST_CASE("a tied matrix gets the gradients of both of its uses", "[gradcheck]") {
    // The same numbers as one matrix and as two.
    const auto config = [](bool tied) { return config_with([&](ModelConfig& model) { model.tie_embeddings = tied; }); };
    TinyModel tied(config(true)), untied(config(false));
    tied.shake();
    untied.shake();
    const auto at = [](const TinyModel& model, real* values, const char* name) {
        return values + model.table().find(name)->offset;
    };
    const std::int64_t count = tied.table().find("embedding.tokens")->shape.elements();
    std::copy_n(at(tied, tied.table().values(), "embedding.tokens"), count,
                at(untied, untied.table().values(), "head.weight"));
    REQUIRE(tied.logits() == untied.logits());
    tied.differentiate();
    untied.differentiate();
    const real* sum = at(tied, tied.table().gradients(), "embedding.tokens");
    const real* embedding = at(untied, untied.table().gradients(), "embedding.tokens");
    const real* head = at(untied, untied.table().gradients(), "head.weight");
    for (std::int64_t k = 0; k < count; ++k) {
        CHECK(close(sum[k], embedding[k] + head[k], 1e-12));
        CHECK_FALSE(close(sum[k], head[k]));
    }
}
