// Mistakes with norms that well-known frameworks have shipped, made on purpose in modules of the network: the
// comparison with the equations finds every one. Those within an op are in mutation_test.cpp.

#include <utility>

#include "catch.h"
#include "certify.h"

using namespace certify;

namespace {

/// The model of a config, put together from its modules as Transformer does it, so that they can be put together wrong.
class Assembled {
public:
    explicit Assembled(const ModelConfig& config) : tape_(ops::registry()) {
        prepare();
        const NormLayout layout = norm_layout(config);
        tokens_ = table_.add("embedding.tokens", {kVocabulary, config.width}, ParamInit::normal(1), DecayGroup::decay);
        for (std::int64_t i = 0; i < config.layers; ++i)
            blocks.emplace_back(table_, "blocks." + std::to_string(i), config, layout, i);
        final_norm = Norm(table_, "final_norm", config.width, layout.final);
        head_ = table_.tie("head.weight", tokens_);
        table_.allocate(1);
        table_.allocate_gradients();
        for (const Param& param : table_.params()) {
            const Values noise = op_calls::uniform_values(size_of(param.shape), hash_name(param.name), -0.3, 0.3);
            for (std::size_t i = 0; i < noise.size(); ++i)
                table_.values()[param.offset + static_cast<std::int64_t>(i)] += noise[i];
        }
    }

    Values logits() {
        tape_.begin(Mode::train);
        const Var y = put_logits();
        return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
    }
    double loss() {
        tape_.begin(Mode::train);
        return *tape_.data(put_loss());
    }
    void differentiate() {
        tape_.begin(Mode::train);
        tape_.backward(put_loss());
    }
    const ParamTable& table() const { return table_; }

    std::vector<Block> blocks;
    Norm final_norm;
    bool cut_before_final_norm = false; ///< the stream goes into the final norm as a constant

private:
    Var put_logits() {
        Var x = ops::embedding(tape_, tokens_(tape_), {}, kTokens, kSequences.time);
        for (const Block& block : blocks)
            x = block(tape_, x, kSequences, {});
        if (cut_before_final_norm) x = tape_.constant(tape_.shape(x), tape_.data(x));
        return ops::linear(tape_, final_norm(tape_, x), head_(tape_));
    }
    Var put_loss() { return ops::cross_entropy(tape_, put_logits(), kTargets, kLossScale, kZLoss); }

    ParamTable table_;
    Parameter tokens_, head_;
    Tape tape_;
};

ModelConfig config_for(const char* placement, NormKind kind = NormKind::layernorm) {
    return config_with([&](ModelConfig& model) {
        from_string(placement, model.norm.placement);
        model.norm.kind = kind;
        model.position = PositionKind::none;
    });
}

/// What the comparison with the equations of `config` says to a model that was put together by `spoil`.
template <class Spoil>
ModelReport report_on(const ModelConfig& config, Spoil&& spoil) {
    Assembled model(config);
    spoil(model);
    return check_equations(config, model);
}

bool complains_of(const ModelReport& report, const std::string& where) {
    return std::any_of(report.failures.begin(), report.failures.end(),
                       [&](const std::string& failure) { return failure.starts_with(where); });
}

} // namespace

TEST_CASE("a model put together right is found right", "[gradcheck]") {
    for (const auto& placement : values_of(Placement{})) {
        INFO(placement.name);
        const std::string name(placement.name);
        const ModelReport report = report_on(config_for(name.c_str()), [](Assembled&) {});
        INFO(report.text());
        CHECK(report.failures.empty());
    }
}

TEST_CASE("a pre-norm that is on the branch is found", "[gradcheck]") {
    // flashlight's `preLN`: x + norm(f(x)).
    const ModelReport report = report_on(config_for("pre"), [](Assembled& model) {
        for (Block& block : model.blocks)
            for (Residual* residual : {&block.attention_residual, &block.ffn_residual})
                std::swap(residual->pre, residual->out);
    });
    CHECK(complains_of(report, "logits"));
}

TEST_CASE("a post-norm network that keeps its final norm is found", "[gradcheck]") {
    // mlx's encoder, when it is switched to post-norm.
    const ModelConfig config = config_for("post");
    REQUIRE(config.final_norm == Switch::off);
    const ModelReport report =
        report_on(config, [&](Assembled& model) { model.final_norm.spec = model.blocks[0].ffn_residual.post.spec; });
    CHECK(complains_of(report, "logits"));
}

TEST_CASE("norms that use each other's weights are found", "[gradcheck]") {
    // burn's flag, and a pre-norm of one sublayer that takes the parameters of the other's.
    for (const char* placement : {"pre", "post", "sandwich", "branch_out", "deepnorm"}) {
        INFO(placement);
        const ModelReport report = report_on(config_for(placement), [](Assembled& model) {
            Block& block = model.blocks[1];
            std::swap(block.attention_residual.pre, block.ffn_residual.pre);
            std::swap(block.attention_residual.out, block.ffn_residual.out);
            std::swap(block.attention_residual.post, block.ffn_residual.post);
        });
        CHECK(complains_of(report, "logits"));
    }
    const ModelReport report = report_on(config_for("sandwich"), [](Assembled& model) {
        std::swap(model.blocks[0].ffn_residual.pre, model.blocks[0].ffn_residual.out);
    });
    CHECK(complains_of(report, "logits"));
}

TEST_CASE("a norm that cuts the gradient is found, though every prediction is right", "[gradcheck]") {
    const ModelReport report =
        report_on(config_for("pre"), [](Assembled& model) { model.cut_before_final_norm = true; });
    CHECK_FALSE(complains_of(report, "logits"));
    CHECK_FALSE(complains_of(report, "loss"));
    CHECK_FALSE(complains_of(report, "final_norm.gain"));
    CHECK(complains_of(report, "blocks.0.attention.qkv.weight"));
    CHECK(complains_of(report, "blocks.1.ffn.output.weight"));
}

TEST_CASE("scales that are forgotten are found", "[gradcheck]") {
    CHECK(complains_of(
        report_on(config_for("deepnorm"), [](Assembled& model) { model.blocks[1].ffn_residual.skip_scale = 1; }),
        "logits"));
    ModelConfig scaled = config_for("pre");
    scaled.norm.depth_scale = DepthScale::inv_sqrt;
    CHECK(report_on(scaled, [](Assembled&) {}).failures.empty());
    CHECK(complains_of(report_on(scaled, [](Assembled& model) { model.blocks[1].attention_residual.pre_scale = 1; }),
                       "logits"));
}

TEST_CASE("another eps, another place of eps and a missing gain are found", "[gradcheck]") {
    for (const NormKind kind : {NormKind::layernorm, NormKind::rmsnorm, NormKind::batchnorm}) {
        INFO(to_string(kind));
        CHECK(complains_of(report_on(config_for("pre", kind),
                                     [](Assembled& model) { model.blocks[0].attention_residual.pre.spec.eps *= 1.01; }),
                           "logits"));
        CHECK(complains_of(
            report_on(config_for("pre", kind), [](Assembled& model) { model.blocks[1].ffn_residual.pre.gain = {}; }),
            "logits"));
    }
    // x / (RMS + eps) for x / sqrt(RMS^2 + eps): as another eps that depends on the row.
    const Values x = op_calls::uniform_values(12, 1, -1, 1);
    Tape tape(ops::registry());
    tape.begin(Mode::eval);
    constexpr double kEps = 0.1;
    const Var y = ops::rmsnorm(tape, tape.constant({1, 12}, x.data()), {}, kEps);
    double squares = 0;
    for (const real value : x)
        squares += value * value;
    const double inside = x[3] / std::sqrt(squares / 12 + kEps), outside = x[3] / (std::sqrt(squares / 12) + kEps);
    CHECK(close(inside, tape.data(y)[3], 1e-14));
    CHECK_FALSE(close(outside, tape.data(y)[3], 1e-3));
}
