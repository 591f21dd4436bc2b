#include <algorithm>
#include <array>
#include <cmath>

#include "ballast/base/rng.h"
#include "ballast/config/norm_layout.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "bare_model.h"
#include "claims.h"

// In float, on whole models where the claim is about one; tests/gradcheck/norm_equivalence_test.cpp has them in double.

namespace ballast::literature {

namespace {

using Values = std::vector<float>;

constexpr std::int64_t kWidth = 64, kLayers = 4, kVocabulary = 32;
constexpr SequenceShape kSequences{4, 32};

Values random_values(std::int64_t count, std::string_view name) {
    const RandomStream stream(5, name);
    Values values;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(count); ++i)
        values.push_back(static_cast<float>(stream.normal(i)));
    return values;
}

ModelConfig model_of(NormKind kind) {
    return model_with([&](ModelConfig& model) {
        model.layers = kLayers;
        model.width = kWidth;
        model.context = kSequences.time;
        model.norm.kind = kind;
        model.norm.bias = Switch::off;
        model.tie_embeddings = false;
        model.init.kind = InitKind::fan_in;
    });
}

/// Moves gains away from 1: equalities that hold for gains of 1 alone would say little.
void shake_gains(BareModel& model) {
    for (const Param& param : model.table().params()) {
        if (param.shape.rank != 1) continue;
        const Values noise = random_values(param.shape.elements(), param.name);
        for (std::size_t i = 0; i < noise.size(); ++i)
            model.values(param.name)[i] += 0.2F * noise[i];
    }
}

/// Takes the mean out of `count` numbers that are `stride` apart.
void centre_line(float* values, std::int64_t count, std::int64_t stride) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i)
        sum += static_cast<double>(values[i * stride]);
    for (std::int64_t i = 0; i < count; ++i)
        values[i * stride] -= static_cast<float>(sum / static_cast<double>(count));
}

/// Takes the mean out of all that is added to the residual stream.
void centre(BareModel& model) {
    for (const Param& param : model.table().params()) {
        float* const values = model.values(param.name);
        const std::int64_t rows = param.shape.rows(), width = param.shape.width();
        if (param.name.starts_with("embedding."))
            for (std::int64_t row = 0; row < rows; ++row)
                centre_line(values + row * width, width, 1);
        if (param.name.ends_with(".output.weight"))
            for (std::int64_t column = 0; column < width; ++column)
                centre_line(values + column, rows, width);
    }
}

/// Largest difference of the logits of Pre-LN and Pre-RMSNorm with the same parameters.
double layernorm_against_rmsnorm(bool centred) {
    std::array<Values, 2> logits;
    const std::array<NormKind, 2> kinds = {NormKind::layernorm, NormKind::rmsnorm};
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        BareModel model(model_of(kinds[i]), kVocabulary, 3);
        shake_gains(model);
        if (centred) centre(model);
        logits[i] = model.logits(random_tokens(1, "tokens", 128, kVocabulary), kSequences, Mode::eval);
    }
    return largest_difference(logits[0], logits[1]);
}

/// Largest change of a model's logits when the gains of its norms go into the matrices behind them.
double folded_gains() {
    BareModel model(model_of(NormKind::layernorm), kVocabulary, 3);
    shake_gains(model);
    const auto tokens = random_tokens(1, "tokens", 128, kVocabulary);
    const Values before = model.logits(tokens, kSequences, Mode::eval);
    const auto fold = [&](const std::string& norm, const std::string& weight) {
        float* const gain = model.values(norm + ".gain");
        float* const values = model.values(weight + ".weight");
        for (std::int64_t i = 0; i < model.param(weight + ".weight").shape.elements(); ++i)
            values[i] *= gain[i % kWidth];
        std::fill_n(gain, kWidth, 1.0F);
    };
    for (std::int64_t layer = 0; layer < kLayers; ++layer) {
        const std::string block = "blocks." + std::to_string(layer);
        fold(block + ".attention.pre_norm", block + ".attention.qkv");
        fold(block + ".ffn.pre_norm", block + ".ffn.input");
    }
    fold("final_norm", "head");
    return largest_difference(before, model.logits(tokens, kSequences, Mode::eval));
}

/// norm(x W^T) without gain or bias.
Values norm_of_product(NormKind kind, const Values& x, const Values& weight) {
    ParamTable table;
    NormSpec spec;
    spec.kind = kind;
    spec.eps = 1e-12;
    const Norm norm(table, "norm", kWidth, spec);
    table.allocate(1);
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    const auto rows = static_cast<std::int64_t>(x.size()) / kWidth;
    const Var in = tape.constant({rows, kWidth}, x.data());
    const Var y = norm(tape, ops::linear(tape, in, tape.constant({kWidth, kWidth}, weight.data())));
    return {tape.data(y), tape.data(y) + tape.shape(y).elements()};
}

struct Invariance {
    double weight_scale, weight_centre, data_scale;
    bool rows_apart; ///< whether a row depends on itself alone, to the bit
};

/// Largest changes of norm(x W^T), whose elements are of size 1.
Invariance invariance_of(NormKind kind) {
    constexpr std::int64_t kRows = 8;
    const Values x = random_values(kRows * kWidth, "x"), weight = random_values(kWidth * kWidth, "weight");
    const Values shift = random_values(kWidth, "shift");
    Values scaled_weight = weight, shifted_weight = weight, scaled_x = x, other_rows = x;
    for (float& value : scaled_weight)
        value *= 2.5F;
    for (std::size_t i = 0; i < shifted_weight.size(); ++i)
        shifted_weight[i] += shift[i % kWidth];
    for (float& value : scaled_x)
        value *= 3;
    std::for_each(other_rows.begin() + kWidth, other_rows.end(), [](float& value) { value = 2 * value + 1; });
    const Values y = norm_of_product(kind, x, weight), beside_others = norm_of_product(kind, other_rows, weight);
    return {largest_difference(y, norm_of_product(kind, x, scaled_weight)),
            largest_difference(y, norm_of_product(kind, x, shifted_weight)),
            largest_difference(y, norm_of_product(kind, scaled_x, weight)),
            std::equal(y.begin(), y.begin() + kWidth, beside_others.begin())};
}

/// Largest |q k| / sqrt(d) of normalized queries and keys of weights of any size, over its bound
/// sqrt(d) max|g_q| max|g_k|.
double normalized_logits() {
    constexpr std::int64_t kHead = 16, kRows = 64;
    Values gains[] = {random_values(kHead, "q gain"), random_values(kHead, "k gain")};
    double bound = std::sqrt(static_cast<double>(kHead));
    for (const Values& gain : gains)
        bound *= std::abs(static_cast<double>(
            *std::max_element(gain.begin(), gain.end(), [](float a, float b) { return std::abs(a) < std::abs(b); })));
    Tape tape(ops::registry());
    double largest = 0;
    for (const float scale : {0.01F, 1.0F, 1e3F, 1e6F}) {
        Values x = random_values(kRows * kHead, "rows");
        for (float& value : x)
            value *= scale;
        const Values weights[] = {random_values(kHead * kHead, "q"), random_values(kHead * kHead, "k")};
        tape.begin(Mode::eval);
        std::array<Var, 2> normalized;
        for (std::size_t i = 0; i < 2; ++i)
            normalized[i] = ops::rmsnorm(tape,
                                         ops::linear(tape, tape.constant({kRows, kHead}, x.data()),
                                                     tape.constant({kHead, kHead}, weights[i].data())),
                                         tape.constant({kHead}, gains[i].data()), 1e-12);
        const Var products = ops::matmul(tape, normalized[0], normalized[1], false, true);
        for (std::int64_t i = 0; i < kRows * kRows; ++i)
            largest = larger(largest, std::abs(static_cast<double>(tape.data(products)[i])));
    }
    return largest / std::sqrt(static_cast<double>(kHead)) / bound;
}

ClaimResult measure(const ClaimRuns&) {
    constexpr double kSame = 1e-4, kOther = 1e-2;
    ClaimResult result;
    result.require_at_most("Pre-LN against Pre-RMSNorm, centred: largest difference of a logit",
                           layernorm_against_rmsnorm(true), kSame);
    result.require_at_least("control: the same, not centred", layernorm_against_rmsnorm(false), kOther);
    result.require_at_most("gains folded into the next matrix: largest difference of a logit", folded_gains(), kSame);
    const Invariance layernorm = invariance_of(NormKind::layernorm), rmsnorm = invariance_of(NormKind::rmsnorm);
    result.require_at_most("LayerNorm, weights scaled", layernorm.weight_scale, kSame);
    result.require_at_most("LayerNorm, weights shifted", layernorm.weight_centre, kSame);
    result.require_at_most("LayerNorm, data scaled", layernorm.data_scale, kSame);
    result.require_at_most("RMSNorm, weights scaled", rmsnorm.weight_scale, kSame);
    result.require_at_least("RMSNorm, weights shifted", rmsnorm.weight_centre, kOther);
    result.require_at_most("RMSNorm, data scaled", rmsnorm.data_scale, kSame);
    result.require("a LayerNorm's row depends on itself alone, to the bit", layernorm.rows_apart);
    result.require("control: a BatchNorm's does not", !invariance_of(NormKind::batchnorm).rows_apart);
    result.require_at_most("largest attention logit of normalized queries and keys over its bound", normalized_logits(),
                           1 + 1e-5);
    result.chart = {"Equal to rounding, and controls that are not",
                    "row of the table",
                    "largest difference",
                    false,
                    true,
                    {{"to be at most the bound", {}}, {"to be at least the bound", {}}}};
    for (std::size_t i = 0; i < result.figures.size(); ++i) {
        const bool equal = result.figures[i].expected.starts_with("<=");
        if (equal || result.figures[i].expected.starts_with(">="))
            result.chart.series[equal ? 0 : 1].points.emplace_back(i + 1, result.figures[i].value);
    }
    return result;
}

} // namespace

const Claim a3{
    "a3",
    "What norms are equal to, and what they do not see",
    "Jiang et al., 2305.14858; Ba et al., 1607.06450, table 1; Zhang & Sennrich, 1910.07467, table 1",
    "In float, with logits and norms of size 1, 1e-4 counts as equal and 1e-2 as different. Pre-LN equals Pre-RMSNorm "
    "once embeddings and the last matrices of the branches have no mean; not before. Gains folded into the next "
    "matrix change nothing. LayerNorm does not see weights scaled or shifted, nor data scaled; RMSNorm sees the shift "
    "alone. A row of LayerNorm depends on itself alone, one of BatchNorm does not. Attention logits of RMS-normalized "
    "queries and keys keep to sqrt(d) max|g_q| max|g_k|.",
    "Mathematics, not experiment: a failure is a fault of this program. In double, tests/gradcheck has the same and "
    "more to 1e-10.",
    "",
    {},
    measure};

} // namespace ballast::literature
