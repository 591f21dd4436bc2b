#include "ballast/lab/explain.h"

#include <cmath>
#include <map>

#include "ballast/base/text.h"
#include "ballast/config/placement.h"
#include "ballast/nn/transformer.h"

namespace ballast {

namespace {

/// "1e-5", "0.02": number_text without the zero in front of short exponents, and with few digits.
std::string short_number(double value) {
    const double scale = value == 0 ? 1 : std::pow(10.0, 3 - std::floor(std::log10(std::abs(value))));
    const double rounded = std::isfinite(scale) ? std::round(value * scale) / scale : value;
    std::string text = number_text(rounded);
    const std::size_t exponent = text.find('e');
    if (exponent != std::string::npos && text.size() == exponent + 4 && text[exponent + 2] == '0')
        text.erase(exponent + 2, 1);
    return text;
}

/// The slots of a config that hold a norm.
PlacementRow slots_of(const NormConfig& norm) {
    PlacementRow row = placement_row(norm.placement);
    if (norm.kind == NormKind::none) row.pre = row.out = row.post = row.final_norm = false;
    return row;
}

bool has_final_norm(const ModelConfig& model) {
    return model.final_norm == Switch::on && model.norm.kind != NormKind::none;
}

std::string_view norm_name(NormKind kind) {
    switch (kind) {
    case NormKind::layernorm: return "LayerNorm";
    case NormKind::rmsnorm: return "RMSNorm";
    case NormKind::none: break;
    }
    return "";
}

std::string normed(const NormConfig& norm, const std::string& what) {
    return std::string(norm_name(norm.kind)) + "(" + what + "; eps=" + short_number(norm.eps) + ")";
}

std::string dropped(const ModelConfig& model, const std::string& what) {
    return model.dropout > 0 ? "dropout(" + what + "; p=" + short_number(model.dropout) + ")" : what;
}

/// One sublayer in its residual wrapper.
std::string residual_equation(const ModelConfig& model, const std::string& sublayer) {
    const PlacementRow slots = slots_of(model.norm);
    std::string branch = sublayer + "(" + (slots.pre ? normed(model.norm, "x") : "x") + ")";
    if (slots.out) branch = normed(model.norm, branch);
    const std::string sum = "x + " + dropped(model, branch);
    return "x ← " + (slots.post ? normed(model.norm, sum) : sum);
}

std::string embedding_equation(const ModelConfig& model) {
    std::string sum = "E[token]";
    if (model.position == PositionKind::learned) sum += " + P[position]";
    if (model.position == PositionKind::sinusoidal) sum += " + sinusoids[position]";
    return "x = " + dropped(model, sum);
}

std::string attention_meaning(const ModelConfig& model) {
    const std::int64_t head_width = model.width / model.heads;
    std::string text = "Attention: causal softmax(Q Kᵀ / √" + std::to_string(head_width) + ") V, " +
                       std::to_string(model.heads) + " heads of width " + std::to_string(head_width);
    if (model.kv_heads != model.heads) text += ", " + std::to_string(model.kv_heads) + " key and value heads";
    if (model.position == PositionKind::rope)
        text += ", Q and K rotated (RoPE, theta " + short_number(model.rope.theta) + ")";
    if (model.position == PositionKind::alibi) text += ", a penalty linear in the distance (ALiBi)";
    return text;
}

std::string ffn_meaning(const ModelConfig& model) {
    const bool gated = model.ffn.kind == FfnKind::swiglu || model.ffn.kind == FfnKind::geglu;
    const std::string activation = model.ffn.kind == FfnKind::swiglu  ? "silu"
                                   : model.ffn.kind == FfnKind::geglu ? "gelu"
                                                                      : std::string(to_string(model.ffn.kind));
    return "FFN: " + (gated ? "(" + activation + "(x Gᵀ) ∘ x Uᵀ) Wᵀ" : activation + "(x Uᵀ) Wᵀ") + ", hidden width " +
           std::to_string(model.ffn.width);
}

std::string norm_meaning(const NormConfig& norm) {
    const std::string formula =
        norm.kind == NormKind::layernorm ? "(x - mean) / √(variance + eps)" : "x / √(mean(x²) + eps)";
    return std::string(norm_name(norm.kind)) + ": " + formula + ", per token" + (norm.gain ? ", times a gain" : "") +
           (norm.bias == Switch::on ? ", plus a bias" : "");
}

Equations equations_of(const ModelConfig& model) {
    Equations out;
    out.embedding = embedding_equation(model);
    out.block = {residual_equation(model, "Attention"), residual_equation(model, "FFN")};
    out.output =
        "logits = " + (has_final_norm(model) ? normed(model.norm, "x") : "x") + (model.tie_embeddings ? " Eᵀ" : " Hᵀ");
    out.meanings = {attention_meaning(model), ffn_meaning(model)};
    const PlacementRow slots = slots_of(model.norm);
    if (slots.pre || slots.out || slots.post || has_final_norm(model)) out.meanings.push_back(norm_meaning(model.norm));
    return out;
}

std::string init_text(const ParamInit& init) {
    switch (init.kind) {
    case ParamInit::Kind::normal: return "normal " + short_number(init.value);
    case ParamInit::Kind::uniform: return "uniform ±" + short_number(init.value);
    case ParamInit::Kind::constant: break;
    }
    return short_number(init.value);
}

/// "blocks.*.ffn.input.weight" for "blocks.3.ffn.input.weight".
std::string folded_name(const std::string& name) {
    constexpr std::string_view kBlocks = "blocks.";
    if (!name.starts_with(kBlocks)) return name;
    const std::size_t end = name.find('.', kBlocks.size());
    return std::string(kBlocks) + "*" + name.substr(std::min(end, name.size()));
}

std::vector<ParamRow> rows_of(const ParamTable& table) {
    std::vector<ParamRow> rows;
    std::map<std::string, std::size_t> row_of;
    for (const Param& param : table.params()) {
        const ParamRow row{folded_name(param.name), param.shape,           1,
                           param.shape.elements(),  init_text(param.init), param.group == DecayGroup::decay};
        // Blocks that differ do not share a row.
        const std::string key = row.name + param.shape.text() + row.init + (row.decays ? "+" : "-");
        const auto [known, fresh] = row_of.emplace(key, rows.size());
        if (fresh) {
            rows.push_back(row);
        } else {
            ++rows[known->second].repeats;
            rows[known->second].count += row.count;
        }
    }
    return rows;
}

NormCost norm_cost_of(const Config& config, const std::vector<ParamRow>& rows) {
    const ModelConfig& model = config.model;
    const PlacementRow slots = slots_of(model.norm);
    const std::int64_t per_sublayer = int{slots.pre} + int{slots.out} + int{slots.post};
    NormCost cost;
    cost.norms = 2 * model.layers * per_sublayer + (has_final_norm(model) ? 1 : 0);
    for (const ParamRow& row : rows)
        if (row.name.find("_norm.") != std::string::npos) cost.parameters += row.count;
    constexpr double kPasses = 5;
    cost.bytes_per_step = kPasses * sizeof(float) * static_cast<double>(cost.norms) * static_cast<double>(model.width) *
                          static_cast<double>(config.train.batch * model.context);
    return cost;
}

/// Variance of a feature of the stream in front of the first block, from the init.
double embedding_variance(const ModelConfig& model) {
    const double deviation = InitRules(model.init, model.layers).embedding(model.width).value;
    const double token = deviation * deviation;
    if (model.position == PositionKind::learned) return 2 * token;
    if (model.position == PositionKind::sinusoidal) return token + 0.5;
    return token;
}

void warn_about_eps(const ModelConfig& model, std::vector<NormWarning>& out) {
    const double eps = model.norm.eps;
    const double variance = embedding_variance(model);
    const std::string shown = "eps " + short_number(eps);
    const std::string beside = "the stream starts with a variance of about " + short_number(variance);
    const std::string source = "Ba et al. 2016, arXiv:1607.06450; Zhang & Sennrich 2019, arXiv:1910.07467";
    constexpr double kResolution = 1.0 / (1 << 24); // half a unit in the last place of a float
    if (static_cast<float>(eps) == 0)
        out.push_back({"eps_zero", shown + " is 0 in float",
                       "a row without variance is divided by 0 and becomes NaN; use 1e-5", source});
    else if (eps < kResolution * variance)
        out.push_back({"eps_unresolved", shown + " is lost beside the variance",
                       beside + ", to which float cannot add so little; it acts only on rows that are all but constant",
                       source});
    else if (eps > variance)
        out.push_back({"eps_large", shown + " outweighs the variance",
                       beside + ", so the first norms shrink their input instead of normalizing it; use a smaller eps "
                                "or a larger model.init.std",
                       source});
}

} // namespace

std::vector<NormWarning> norm_warnings(const Config& config) {
    const ModelConfig& model = config.model;
    const PlacementRow slots = slots_of(model.norm);
    const std::string depth = std::to_string(model.layers) + (model.layers == 1 ? " block" : " blocks");
    std::vector<NormWarning> out;

    if (!slots.pre && !slots.out && !slots.post) {
        const bool scaled_by_depth = model.init.kind == InitKind::gpt2;
        out.push_back(
            {"no_norm_no_branch_scaling",
             depth + " without norms or branch scaling" + (scaled_by_depth ? "" : ", and an init that ignores depth"),
             scaled_by_depth
                 ? "the init keeps the stream and its gradients in bounds at the start, but nothing does once "
                   "the weights grow: expect to need a lower optimizer.lr than with norms"
                 : "each sublayer adds about as much variance as the stream holds, so it grows exponentially "
                   "with depth; use model.init.kind gpt2, or norms",
             "Zhang et al. 2019 (Fixup), arXiv:1901.09321"});
    }
    if (slots.pre && !slots.post && !has_final_norm(model))
        out.push_back(
            {"pre_without_final_norm",
             "placement " + std::string(to_string(model.norm.placement)) + " without a final norm",
             "the residual stream grows with depth and nothing bounds the logits; set model.final_norm to auto",
             "Radford et al. 2019 (GPT-2), section 2.3; Xiong et al. 2020, arXiv:2002.04745"});
    if (slots.post && has_final_norm(model))
        out.push_back(
            {"post_with_final_norm", "placement " + std::string(to_string(model.norm.placement)) + " with a final norm",
             "the last block already ends in a norm, so that two stand in a row; set model.final_norm to auto",
             "Vaswani et al. 2017, arXiv:1706.03762"});

    constexpr std::int64_t kDeep = 10;
    if (slots.post && !slots.pre && model.layers > kDeep && config.schedule.warmup == 0)
        out.push_back({"post_deep_without_warmup", "placement post with " + depth + " and no warm-up",
                       "at the start the gradients near the output are large, and full steps diverge; set "
                       "schedule.warmup, or use placement pre",
                       "Xiong et al. 2020, arXiv:2002.04745; Liu et al. 2020, arXiv:2004.08249"});
    if (slots.pre || slots.out || slots.post) warn_about_eps(model, out);

    // A normalized row has length √width, so a logit has this deviation.
    const double logit =
        std::sqrt(static_cast<double>(model.width)) * InitRules(model.init, model.layers).embedding(model.width).value;
    constexpr double kLargeLogit = 1.5; // adds about 1.1 nats to the first loss
    if (model.tie_embeddings && (has_final_norm(model) || slots.post) && logit > kLargeLogit)
        out.push_back(
            {"tied_large_logits",
             "tied embeddings and an init that gives the first logits a deviation of " + short_number(logit),
             "the first loss is far above log(vocabulary), and the first steps undo the init; use "
             "model.init.std of about " +
                 short_number(1 / std::sqrt(static_cast<double>(model.width))) + " or less, or untied embeddings",
             "Press & Wolf 2017, arXiv:1608.05859; Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5"});
    return out;
}

Explanation explain(const Config& config, std::int64_t vocabulary) {
    ParamTable table;
    const Transformer model(table, config.model, vocabulary);

    Explanation out;
    out.equations = equations_of(config.model);
    out.parameters = rows_of(table);
    for (const ParamTie& tie : table.ties())
        out.ties.push_back({tie.name, table.params()[tie.param].name});
    out.parameter_count = table.count();
    for (const ParamRow& row : out.parameters)
        if (row.decays) out.decayed_count += row.count;
    out.norm_cost = norm_cost_of(config, out.parameters);
    out.warnings = norm_warnings(config);
    return out;
}

} // namespace ballast
