// Equalities between models and between norms that hold exactly in mathematics, and what a norm may depend on.

#include <span>

#include "ballast/nn/norm.h"
#include "catch.h"
#include "norm_models.h"

using namespace norm_models;

namespace {

constexpr double kExact = 1e-10;

const std::vector<NormKind> kKinds = {NormKind::layernorm, NormKind::rmsnorm, NormKind::batchnorm,
                                      NormKind::scalenorm, NormKind::dyt,     NormKind::derf};

Values random_values(std::size_t count, const std::string& name) {
    const RandomStream stream(5, name);
    Values values;
    for (std::uint64_t i = 0; i < count; ++i)
        values.push_back(static_cast<real>(stream.normal(i)));
    return values;
}

/// A norm of `kind` on its own, with gains and biases of its own where it has any.
class OneNorm {
public:
    OneNorm(NormKind kind, std::int64_t width, double eps) : width_(width), tape_(ops::registry()) {
        const NormTraits& traits = norm_traits(kind);
        NormSpec spec;
        spec.kind = kind;
        spec.eps = eps;
        spec.gain = traits.gain;
        spec.bias = traits.bias;
        spec.alpha = 0.7;
        norm_ = Norm(table_, "norm", width, spec);
        table_.allocate(1);
        for (const Param& param : table_.params()) {
            const Values noise = random_values(static_cast<std::size_t>(param.shape.elements()), param.name);
            for (std::int64_t i = 0; i < param.shape.elements(); ++i)
                table_.values()[param.offset + i] += real{0.2} * noise[static_cast<std::size_t>(i)];
        }
    }

    /// norm(x W^T) in training; x [rows, in], weight [width, in].
    Values operator()(const Values& x, const Values& weight, std::int64_t in) {
        tape_.begin(Mode::train);
        const Var rows = tape_.constant({static_cast<std::int64_t>(x.size()) / in, in}, x.data());
        const Var y = norm_(tape_, ops::linear(tape_, rows, tape_.constant({width_, in}, weight.data())));
        return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
    }

private:
    std::int64_t width_;
    ParamTable table_;
    Norm norm_;
    Tape tape_;
};

} // namespace

TEST_CASE("Pre-LN is Pre-RMSNorm once the stream has no mean, in double", "[norm]") {
    CHECK(pre_layernorm_and_pre_rmsnorm(true) < kExact);
    CHECK(pre_layernorm_and_pre_rmsnorm(false) > 1e-2);
}

TEST_CASE("what each kind of norm is invariant to", "[norm]") {
    // Ba et al., 1607.06450, table 1; Zhang & Sennrich, 1910.07467, table 1, in which RMSNorm loses the re-centring.
    constexpr std::int64_t kIn = 5, kWidth = 9, kRows = 4;
    const Values x = random_values(kRows * kIn, "x"), weight = random_values(kWidth * kIn, "weight");
    const Values shift = random_values(kIn, "shift");
    Values rescaled_weight = weight, recentred_weight = weight, rescaled_data = x, one_row_rescaled = x;
    for (real& w : rescaled_weight)
        w *= real{2.5};
    for (std::size_t i = 0; i < recentred_weight.size(); ++i)
        recentred_weight[i] += shift[i % kIn];
    for (real& value : rescaled_data)
        value *= real{3};
    for (std::size_t i = 0; i < kIn; ++i)
        one_row_rescaled[i] *= real{3};

    struct Expected {
        NormKind kind;
        bool weight_scale, weight_centre, data_scale, row_scale;
    };
    for (const Expected& expected : {Expected{NormKind::layernorm, true, true, true, true},
                                     {NormKind::rmsnorm, true, false, true, true},
                                     {NormKind::scalenorm, true, false, true, true},
                                     {NormKind::batchnorm, true, false, true, false},
                                     {NormKind::dyt, false, false, false, false},
                                     {NormKind::derf, false, false, false, false}}) {
        INFO(to_string(expected.kind));
        OneNorm norm(expected.kind, kWidth, 1e-30);
        const Values y = norm(x, weight, kIn);
        const auto same = [&](const Values& other) { return largest_difference(y, other) < kExact; };
        CHECK(same(norm(x, rescaled_weight, kIn)) == expected.weight_scale);
        CHECK(same(norm(x, recentred_weight, kIn)) == expected.weight_centre);
        CHECK(same(norm(rescaled_data, weight, kIn)) == expected.data_scale);
        CHECK(same(norm(one_row_rescaled, weight, kIn)) == expected.row_scale);
    }
}

TEST_CASE("a gain folded into the next linear layer changes nothing", "[norm]") {
    for (const NormKind kind : kKinds) {
        if (kind == NormKind::scalenorm) continue; // its gain is one number, below
        for (const bool unit_offset : {false, true}) {
            if (unit_offset && kind != NormKind::rmsnorm) continue;
            INFO(to_string(kind) << (unit_offset ? ", unit offset" : ""));
            Model model(config_with([&](ModelConfig& config) {
                config.norm.kind = kind;
                config.norm.bias = Switch::off;
                config.norm.unit_offset = unit_offset;
                config.tie_embeddings = false;
            }));
            model.shake_vectors();
            const Values before = model.logits(random_tokens(2), Mode::train);
            const auto fold = [&](const std::string& norm, const std::string& linear, std::int64_t rows) {
                real* const gain = model.values(norm + ".gain");
                real* const weight = model.values(linear + ".weight");
                for (std::int64_t i = 0; i < rows * 16; ++i)
                    weight[i] *= gain[i % 16] + real(unit_offset ? 1 : 0);
                std::fill_n(gain, 16, real(unit_offset ? 0 : 1));
            };
            for (int block = 0; block < 3; ++block) {
                const std::string name = "blocks." + std::to_string(block);
                fold(name + ".attention.pre_norm", name + ".attention.qkv", 48);
                fold(name + ".ffn.pre_norm", name + ".ffn.input", 24);
            }
            fold("final_norm", "head", kVocabulary);
            CHECK(largest_difference(before, model.logits(random_tokens(2), Mode::train)) < kExact);
            *model.values("blocks.1.ffn.pre_norm.gain") += real{0.5}; // a gain matters
            CHECK(largest_difference(before, model.logits(random_tokens(2), Mode::train)) > 1e-4);
        }
    }
}

TEST_CASE("attention's logits are bounded by normalized queries and keys", "[norm]") {
    // |q k| / sqrt(d) <= sqrt(d) max|g_q| max|g_k|, however large the weights are.
    constexpr std::int64_t kWidth = 8, kRows = 50, kIn = 6;
    NormSpec spec;
    spec.kind = NormKind::rmsnorm;
    spec.eps = 1e-6;
    spec.gain = true;
    ParamTable table;
    const Norm q_norm(table, "q_norm", kWidth, spec), k_norm(table, "k_norm", kWidth, spec);
    table.allocate(1);
    double bound = std::sqrt(static_cast<double>(kWidth));
    for (const char* name : {"q_norm.gain", "k_norm.gain"}) {
        real* const gain = table.values() + table.find(name)->offset;
        const Values noise = random_values(kWidth, name);
        double largest = 0;
        for (std::size_t i = 0; i < kWidth; ++i) {
            gain[i] = 1 + real{0.5} * noise[i];
            largest = std::max(largest, std::abs(static_cast<double>(gain[i])));
        }
        bound *= largest;
    }
    Tape tape(ops::registry());
    double reached = 0;
    for (const double scale : {1e-2, 1.0, 1e3, 1e6}) {
        Values x = random_values(kRows * kIn, "x"), wq = random_values(kWidth * kIn, "q"),
               wk = random_values(kWidth * kIn, "k");
        for (real& value : x)
            value *= static_cast<real>(scale);
        tape.begin(Mode::eval);
        const Var in = tape.constant({kRows, kIn}, x.data());
        const Var q = q_norm(tape, ops::linear(tape, in, tape.constant({kWidth, kIn}, wq.data())));
        const Var k = k_norm(tape, ops::linear(tape, in, tape.constant({kWidth, kIn}, wk.data())));
        const Var logits = ops::matmul(tape, q, k, false, true);
        for (std::int64_t i = 0; i < kRows * kRows; ++i)
            reached = std::max(reached, std::abs(static_cast<double>(tape.data(logits)[i])) / std::sqrt(8.0));
    }
    CHECK(reached <= bound * (1 + 1e-12));
    CHECK(reached > bound / 3); // the bound is not idle
}

TEST_CASE("a row's norm does not depend on the other rows, but for batchnorm", "[norm]") {
    constexpr std::int64_t kWidth = 7, kRows = 5;
    Values identity(kWidth * kWidth);
    for (std::size_t i = 0; i < kWidth; ++i)
        identity[i * kWidth + i] = 1;
    const Values x = random_values(kRows * kWidth, "rows");
    Values other = x;
    for (std::size_t i = kWidth; i < other.size(); ++i)
        other[i] = real{2} * other[i] + 1; // all rows but the first
    for (const NormKind kind : kKinds) {
        INFO(to_string(kind));
        OneNorm norm(kind, kWidth, 1e-5);
        const Values a = norm(x, identity, kWidth), b = norm(other, identity, kWidth);
        CHECK(std::equal(a.begin(), a.begin() + kWidth, b.begin()) == (kind != NormKind::batchnorm));
        CHECK_FALSE(std::equal(a.begin() + kWidth, a.end(), b.begin() + kWidth));
    }
}

TEST_CASE("batchnorm shows a position its future in training, the others never", "[norm]") {
    // The last token of every sequence changes: do earlier positions predict otherwise?
    Tokens tokens = random_tokens(3), changed = tokens;
    for (std::int64_t row = 0; row < kSequences.batch; ++row) {
        auto& last = changed[static_cast<std::size_t>((row + 1) * kSequences.time - 1)];
        last = static_cast<std::int32_t>((last + 1) % kVocabulary);
    }
    const auto leak = [&](NormKind kind, Mode mode) {
        Model model(config_with([&](ModelConfig& config) { config.norm.kind = kind; }));
        const Values a = model.logits(tokens, mode), b = model.logits(changed, mode);
        double worst = 0;
        for (std::int64_t row = 0; row < kSequences.batch; ++row)
            for (std::int64_t i = 0; i < (kSequences.time - 1) * kVocabulary; ++i) {
                const auto at = static_cast<std::size_t>(row * kSequences.time * kVocabulary + i);
                worst = std::max(worst, std::abs(static_cast<double>(a[at]) - static_cast<double>(b[at])));
            }
        return worst;
    };
    for (const NormKind kind : kKinds) {
        INFO(to_string(kind));
        const double seen = leak(kind, Mode::train);
        CAPTURE(seen);
        if (kind == NormKind::batchnorm)
            CHECK(seen > 0.01); // of logits of size 1
        else
            CHECK(seen == 0);
        CHECK(leak(kind, Mode::eval) == 0);
    }
}
