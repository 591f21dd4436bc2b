// The gradient of the loss by every parameter of whole models, against central differences.

#include "catch.h"
#include "tiny_model.h"

using namespace tiny_model;

namespace {

constexpr std::uint64_t kDirections = 3;
constexpr std::uint64_t kElements = 2;

/// Every parameter along random directions that move all of its elements, and at single elements.
Report check_model(TinyModel& model) {
    Report report;
    model.differentiate();
    const ParamTable& table = model.table();
    for (std::size_t p = 0; p < table.params().size(); ++p) {
        const Param& param = table.params()[p];
        const std::size_t count = size_of(param.shape);
        const real* gradient = table.gradients() + param.offset;
        real* values = table.values() + param.offset;
        const Values before(values, values + count);

        const auto check_along = [&](const std::string& what, std::size_t number, auto&& direction) {
            double analytic = 0;
            for (std::size_t k = 0; k < count; ++k)
                analytic += gradient[k] * direction(k);
            const auto loss_at = [&](double t) {
                for (std::size_t k = 0; k < count; ++k)
                    values[k] = before[k] + t * direction(k);
                return model.loss();
            };
            const double expected = derivative([&](double h) { return loss_at(h) - loss_at(-h); });
            std::copy(before.begin(), before.end(), values);
            if (!close(expected, analytic)) report.fail(param.name + ", " + what, p, number, analytic, expected);
        };
        for (std::uint64_t d = 0; d < kDirections; ++d) {
            const RandomStream signs(d, param.name);
            check_along("direction", d, [&](std::size_t k) { return signs.block(k)[0] % 2 == 0 ? 1.0 : -1.0; });
        }
        for (std::uint64_t e = 0; e < kElements; ++e) {
            const auto element = static_cast<std::size_t>(RandomStream(9, param.name).below(e, count));
            check_along("element", element, [&](std::size_t k) { return k == element ? 1.0 : 0.0; });
        }
        // Zeros that are right prove nothing: every parameter matters in every model.
        report.moves.push_back(std::any_of(gradient, gradient + count, [](real g) { return g != 0; }));
    }
    return report;
}

void require_gradients(const ModelConfig& config) {
    INFO(name_of(config));
    TinyModel model(config);
    model.shake();
    const Report report = check_model(model);
    INFO(report.text());
    CHECK(report.failures.empty());
    CHECK(std::find(report.moves.begin(), report.moves.end(), false) == report.moves.end());
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
