// Every cell of kind x placement (the named ones and all slots) x final norm x norm of queries and keys that a config
// can have, certified: its gradients, its equation, that no other cell computes the same, and that every parameter
// takes part. The table of what was certified is printed, and docs/normalization.md has it.

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <set>

#include "catch.h"
#include "certify.h"

using namespace certify;

namespace {

struct Cell {
    NormKind kind;
    Placement placement;
    bool final_norm;
    HeadNorm qk_norm;
    ModelConfig model;

    std::string name() const {
        return std::string(to_string(kind)) + ", " + std::string(to_string(placement)) + ", final norm " +
               (final_norm ? "on" : "off") + ", qk norm " + std::string(to_string(qk_norm));
    }
};

/// The rows of the placement table, and the slots that no row has.
std::vector<Placement> placements() {
    std::vector<Placement> out;
    for (const auto& row : values_of(Placement{}))
        out.push_back(row.value);
    for (unsigned bits = 1; bits < 8; ++bits) {
        const Slots slots{(bits & 1U) != 0, (bits & 2U) != 0, (bits & 4U) != 0};
        const bool has_row = std::any_of(kPlacements.begin(), kPlacements.end(), [&](const PlacementRow& row) {
            return Slots{row.pre, row.out, row.post} == slots;
        });
        if (!has_row) out.push_back(placement_of(slots));
    }
    return out;
}

/// The cells whose config is good. Whoever adds a kind or a placement adds cells.
std::vector<Cell> cells() {
    std::vector<Cell> out;
    for (const auto& kind : values_of(NormKind{}))
        for (const Placement placement : placements())
            for (const bool final_norm : {true, false})
                for (const auto& qk_norm : values_of(HeadNorm{})) {
                    Config config;
                    config.data.path = "text.txt";
                    config.model = config_with([&](ModelConfig& model) {
                        model.norm.kind = kind.value;
                        model.norm.placement = placement;
                        model.norm.eps = norm_traits(kind.value).eps ? 1e-3 : NormConfig{}.eps;
                        model.final_norm = final_norm ? Switch::on : Switch::off;
                        model.qk_norm = qk_norm.value;
                        model.bias = false;
                    });
                    // Where nothing uses it, another eps is a mistake; that is not what is asked here.
                    if (placement == placement_named("none") && !final_norm && qk_norm.value == HeadNorm::none)
                        config.model.norm.eps = NormConfig{}.eps;
                    if (!validate(config).empty()) continue;
                    // A model without any norm is one cell, of kind and placement `none`.
                    const bool nothing = norm_layout(config.model).norms().empty();
                    const bool named_so = kind.value == NormKind::none && to_string(placement) == "none";
                    if (nothing == named_so)
                        out.push_back({kind.value, placement, final_norm, qk_norm.value, config.model});
                }
    return out;
}

/// Rows of kinds, columns of placements, and how many cells of each were certified.
std::string table_of(const std::vector<Cell>& certified) {
    std::map<std::pair<NormKind, Placement>, int> counts;
    for (const Cell& cell : certified)
        ++counts[{cell.kind, cell.placement}];
    std::string out = "| kind |";
    std::string line = "|---|";
    for (const Placement placement : placements()) {
        out += " " + std::string(to_string(placement)) + " |";
        line += "---|";
    }
    out += "\n" + line + "\n";
    for (const auto& kind : values_of(NormKind{})) {
        out += "| " + std::string(kind.name) + " |";
        for (const Placement placement : placements()) {
            const int count = counts[{kind.value, placement}];
            out += count == 0 ? " – |" : " " + std::to_string(count) + " |";
        }
        out += "\n";
    }
    return out + "\n" + std::to_string(certified.size()) + " cells in all.\n";
}

std::string whole_file(const std::string& name) {
    std::ifstream file(std::string(BALLAST_SOURCE_DIR) + "/" + name, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

} // namespace

TEST_CASE("every cell of the norm matrix is certified", "[gradcheck]") {
    std::vector<Cell> certified;
    std::vector<std::pair<std::string, Values>> seen;
    double worst_gradient = 0, worst_equation = 0;
    // Far above rounding. Three functions that squash, one after the other, leave little of how attention is computed.
    constexpr double kOther = 1e-7;
    for (const Cell& cell : cells()) {
        INFO(cell.name());
        TinyModel model(cell.model);
        model.shake();
        const ModelReport equations = check_equations(cell.model, model);
        const ModelReport gradients = check_model(model);
        worst_equation = std::max(worst_equation, equations.worst);
        worst_gradient = std::max(worst_gradient, gradients.worst);
        bool good = equations.failures.empty() && gradients.failures.empty();
        {
            INFO(equations.text() << "\n" << gradients.text());
            CHECK(good);
        }

        model.differentiate();
        for (const Param& param : model.table().params()) {
            const real* gradient = model.table().gradients() + param.offset;
            double largest = 0;
            for (std::size_t i = 0; i < size_of(param.shape); ++i)
                largest = std::max(largest, std::abs(gradient[i]));
            CAPTURE(param.name, largest);
            const bool takes_part = largest > 1e-9 || is_idle(cell.model, model, param);
            CHECK(takes_part);
            good = good && takes_part;
        }

        const Values logits = model.logits();
        for (const auto& [other, values] : seen) {
            CAPTURE(other);
            CHECK(differ(logits, values, kOther));
            good = good && differ(logits, values, kOther);
        }
        seen.emplace_back(cell.name(), logits);
        if (good) certified.push_back(cell);
    }

    const std::string table = table_of(certified);
    std::cout << "certified norms: kind x placement, with and without final norm, without qk norm, by head and full\n\n"
              << table << "largest error of a gradient against finite differences " << worst_gradient
              << ", of logits and gradients against the equations " << worst_equation << "\n";
    CHECK(certified.size() == cells().size());
    CHECK(certified.size() > 300);
    INFO("docs/normalization.md has another table than this one:\n" << table);
    CHECK(whole_file("docs/normalization.md").find("\n" + table) != std::string::npos);
}

namespace {

/// Schemes beyond the matrix, each a change to a small model.
const std::vector<std::pair<std::string, std::function<void(ModelConfig&)>>> kSchemes = {
    {"Peri-LN",
     [](ModelConfig& model) {
         model.norm.placement = placement_named("sandwich");
         model.embedding.norm = true;
     }},
    {"LN scaling", [](ModelConfig& model) { model.norm.depth_scale = DepthScale::inv_sqrt; }},
    {"inner norm, head scale",
     [](ModelConfig& model) {
         model.ffn.inner_norm = true;
         model.head_scale = true;
     }},
    {"embedding scale", [](ModelConfig& model) { model.embedding.scale = EmbeddingScale::sqrt_width; }},
    {"softcap", [](ModelConfig& model) { model.logit_softcap = 0.5; }},
    {"values by head", [](ModelConfig& model) { model.v_norm = HeadNorm::head; }},
    {"values, all heads",
     [](ModelConfig& model) {
         model.v_norm = HeadNorm::full;
         model.kv_heads = 1;
     }},
    {"queries, keys and values, rope",
     [](ModelConfig& model) {
         model.qk_norm = model.v_norm = HeadNorm::head;
         model.position = PositionKind::rope;
     }},
    {"ReZero",
     [](ModelConfig& model) {
         model.norm.placement = placement_named("none");
         model.residual = ResidualKind::rezero;
     }},
    {"SkipInit",
     [](ModelConfig& model) {
         model.norm.placement = placement_named("none");
         model.residual = ResidualKind::skipinit;
     }},
    {"LayerScale", [](ModelConfig& model) { model.residual = ResidualKind::layerscale; }},
    {"LayerScale, DeepNorm",
     [](ModelConfig& model) {
         model.norm.placement = placement_named("deepnorm");
         model.residual = ResidualKind::layerscale;
     }},
    {"Fixup",
     [](ModelConfig& model) {
         model.norm.placement = placement_named("none");
         model.residual = ResidualKind::fixup;
     }},
    {"partial RMS",
     [](ModelConfig& model) {
         model.norm.kind = NormKind::rmsnorm;
         model.norm.partial = 0.3;
     }},
    {"unit offset",
     [](ModelConfig& model) {
         model.norm.kind = NormKind::rmsnorm;
         model.norm.unit_offset = true;
     }},
    {"DyT without gain",
     [](ModelConfig& model) {
         model.norm.kind = NormKind::dyt;
         model.norm.gain = false;
     }},
    {"BatchNorm without gain and bias",
     [](ModelConfig& model) {
         model.norm.kind = NormKind::batchnorm;
         model.norm.gain = false;
         model.norm.bias = Switch::off;
     }},
};

} // namespace

TEST_CASE("every special scheme has its gradients and its equation", "[gradcheck]") {
    std::vector<std::pair<std::string, Values>> seen;
    for (const auto& [name, change] : kSchemes) {
        INFO(name);
        const ModelConfig config = config_with(change);
        TinyModel model(config);
        model.shake();
        const ModelReport equations = check_equations(config, model);
        const ModelReport gradients = check_model(model);
        INFO(equations.text() << "\n" << gradients.text());
        CHECK(equations.failures.empty());
        CHECK(gradients.failures.empty());
        const Values logits = model.logits();
        for (const auto& [other, values] : seen) {
            CAPTURE(other);
            const bool fixup = name == "Fixup"; // an init, not an equation
            CHECK((fixup || differ(logits, values, 1e-5)));
        }
        seen.emplace_back(name, logits);
    }
}

TEST_CASE("norms that differ by place, by sublayer and by depth have their gradients", "[gradcheck]") {
    const std::vector<std::pair<std::string, std::function<void(ModelConfig&)>>> mixed = {
        {"Mix-LN",
         [](ModelConfig& model) {
             model.norm.layers = {{.until = 0.5, .placement = own_placement(placement_named("post"))}};
         }},
        {"sublayers",
         [](ModelConfig& model) {
             model.norm.attn = own_placement(placement_of({.pre = true, .out = true, .post = true}));
             model.norm.ffn = own_placement(placement_named("deepnorm"));
         }},
        {"own norms",
         [](ModelConfig& model) {
             model.norm.placement = placement_of({.pre = true, .out = true, .post = true});
             model.norm.pre.kind = static_cast<OwnNormKind>(NormKind::rmsnorm);
             model.norm.out.kind = static_cast<OwnNormKind>(NormKind::derf);
             model.norm.post.gain = Switch::off;
             model.norm.final.kind = static_cast<OwnNormKind>(NormKind::scalenorm);
             model.norm.qk.kind = static_cast<OwnNormKind>(NormKind::dyt);
             model.norm.embedding.kind = static_cast<OwnNormKind>(NormKind::batchnorm);
             model.norm.inner.eps = 0.1;
             model.final_norm = Switch::on;
             model.qk_norm = HeadNorm::head;
             model.embedding.norm = true;
             model.ffn.inner_norm = true;
         }},
    };
    for (const auto& [name, change] : mixed) {
        INFO(name);
        TinyModel model(config_with(change));
        model.shake();
        const ModelReport report = check_model(model);
        INFO(report.text());
        CHECK(report.failures.empty());
    }
}
