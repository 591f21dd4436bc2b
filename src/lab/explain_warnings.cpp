#include <algorithm>
#include <cmath>

#include "ballast/config/norm_layout.h"
#include "ballast/lab/explain.h"
#include "ballast/nn/init.h"
#include "explain_text.h"

namespace ballast {

namespace {

/// What the warnings look at.
struct Facts {
    const Config& config;
    const ModelConfig& model;
    NormLayout layout;
    std::vector<NormSpec> norms;
    std::string depth; ///< "4 blocks"

    explicit Facts(const Config& of)
        : config(of), model(of.model), layout(norm_layout(of.model)), norms(layout.norms()),
          depth(std::to_string(model.layers) + (model.layers == 1 ? " block" : " blocks")) {}

    template <class Predicate>
    bool any_sublayer(Predicate&& predicate) const {
        return std::any_of(layout.blocks.begin(), layout.blocks.end(),
                           [&](const BlockNorms& block) { return predicate(block.attention) || predicate(block.ffn); });
    }
    std::string placement() const { return std::string(to_string(layout.blocks.back().ffn.placement)); }
};

bool has_norm(const SublayerNorms& norms) { return norms.pre || norms.out || norms.post; }

void warn_about_missing_norms(const Facts& facts, std::vector<NormWarning>& out) {
    if (facts.any_sublayer(has_norm)) return;
    const std::string source = "Zhang et al. 2019 (Fixup), arXiv:1901.09321";
    if (facts.model.residual != ResidualKind::plain) {
        constexpr std::int64_t kDeepest = 128; // what ReZero trained without norms
        if (facts.model.layers > kDeepest)
            out.push_back({"no_norm_too_deep", facts.depth + " without norms",
                           "branch scaling has been shown to carry Transformers of " + std::to_string(kDeepest) +
                               " blocks; beyond, use norms",
                           "Bachlechner et al. 2020 (ReZero), arXiv:2003.04887"});
        return;
    }
    const InitKind init = facts.model.init.kind;
    const bool scaled_by_depth = init == InitKind::gpt2 || init == InitKind::deepnorm || init == InitKind::depth_scaled;
    out.push_back(
        {"no_norm_no_branch_scaling",
         facts.depth + " without norms or branch scaling" + (scaled_by_depth ? "" : ", and an init that ignores depth"),
         scaled_by_depth ? "the init keeps the stream and its gradients in bounds at the start, but nothing does once "
                           "the weights grow: expect to need a lower optimizer.lr than with norms, or use "
                           "model.residual rezero"
                         : "each sublayer adds about as much variance as the stream holds, so it grows exponentially "
                           "with depth; use model.residual rezero, model.init.kind gpt2, or norms",
         source});
}

void warn_about_the_end(const Facts& facts, std::vector<NormWarning>& out) {
    const SublayerNorms& last = facts.layout.blocks.back().ffn;
    const bool bare =
        !last.post && facts.any_sublayer([](const SublayerNorms& norms) { return norms.pre || norms.out; });
    if (bare && !facts.layout.final)
        out.push_back(
            {"pre_without_final_norm", "placement " + facts.placement() + " without a final norm",
             "the residual stream grows with depth and nothing bounds the logits; set model.final_norm to auto",
             "Radford et al. 2019 (GPT-2), section 2.3; Xiong et al. 2020, arXiv:2002.04745"});
    if (last.post && facts.layout.final)
        out.push_back(
            {"post_with_final_norm", "placement " + facts.placement() + " with a final norm",
             "the last block already ends in a norm, so that two stand in a row; set model.final_norm to auto",
             "Vaswani et al. 2017, arXiv:1706.03762"});
}

void warn_about_post(const Facts& facts, std::vector<NormWarning>& out) {
    const bool deepnorm = facts.any_sublayer([](const SublayerNorms& norms) { return norms.skip_scale != 1; });
    if (deepnorm && facts.model.init.kind != InitKind::deepnorm)
        out.push_back({"deepnorm_with_other_init",
                       "placement deepnorm with model.init.kind " + std::string(to_string(facts.model.init.kind)),
                       "its bound on the update holds for the factor of the stream and the init together; set "
                       "model.init.kind deepnorm",
                       "Wang et al. 2022 (DeepNet), arXiv:2203.00555"});
    if (!deepnorm && facts.model.init.kind == InitKind::deepnorm)
        out.push_back({"deepnorm_init_alone", "model.init.kind deepnorm without placement deepnorm",
                       "its small branches are made for a stream that is scaled up; set model.norm.placement deepnorm, "
                       "or another init",
                       "Wang et al. 2022 (DeepNet), arXiv:2203.00555"});
    constexpr std::int64_t kDeep = 10;
    const std::int64_t post =
        std::count_if(facts.layout.blocks.begin(), facts.layout.blocks.end(), [](const BlockNorms& block) {
            const auto bare_post = [](const SublayerNorms& norms) { return norms.post && !norms.pre; };
            return bare_post(block.attention) || bare_post(block.ffn);
        });
    if (post > kDeep && !deepnorm && facts.config.schedule.warmup == 0)
        out.push_back({"post_deep_without_warmup", "placement post with " + facts.depth + " and no warm-up",
                       "at the start the gradients near the output are large, and full steps diverge; set "
                       "schedule.warmup, or use placement pre",
                       "Xiong et al. 2020, arXiv:2002.04745; Liu et al. 2020, arXiv:2004.08249"});
}

void warn_about_batchnorm(const Facts& facts, std::vector<NormWarning>& out) {
    const auto is_batchnorm = [](const NormSpec& norm) { return norm.kind == NormKind::batchnorm; };
    if (std::none_of(facts.norms.begin(), facts.norms.end(), is_batchnorm)) return;
    out.push_back({"batchnorm_sees_future", "batchnorm in a causal model",
                   "its statistics run over time, so in training a position sees its future, and the training loss is "
                   "too good; in evaluation running statistics stand in for them, and the two differ. A control for "
                   "experiments, not a norm to train with",
                   "Shen et al. 2020 (PowerNorm), arXiv:2003.07845"});
    const TrainConfig& train = facts.config.train;
    if (train.micro_batch < train.batch)
        out.push_back({"batchnorm_micro_batches",
                       "batchnorm with a train.micro_batch of " + std::to_string(train.micro_batch) +
                           " in a batch of " + std::to_string(train.batch),
                       "every micro-batch has statistics of its own, so results depend on train.micro_batch",
                       "Ioffe & Szegedy 2015, arXiv:1502.03167"});
}

/// Variance of a feature of the stream in front of the first block, from the init.
double embedding_variance(const Facts& facts) {
    if (facts.layout.embedding) return 1;
    const double deviation = InitRules(facts.model).embedding().value;
    const double position = deviation * deviation;
    const double token = facts.model.embedding.scale == EmbeddingScale::sqrt_width
                             ? position * static_cast<double>(facts.model.width)
                             : position;
    if (facts.model.position == PositionKind::learned) return token + position;
    if (facts.model.position == PositionKind::sinusoidal) return token + 0.5;
    return token;
}

void warn_about_eps(const Facts& facts, std::vector<NormWarning>& out) {
    const auto beside_variance = [](const NormSpec& norm) {
        return norm_traits(norm.kind).eps && norm.kind != NormKind::scalenorm;
    };
    // One warning for the smallest and the largest: most models have one eps.
    double smallest = INFINITY, largest = 0;
    for (const BlockNorms& block : facts.layout.blocks)
        for (const SublayerNorms* norms : {&block.attention, &block.ffn})
            for (const NormSpec* norm : {&norms->pre, &norms->out, &norms->post}) {
                if (!beside_variance(*norm)) continue;
                smallest = std::min(smallest, norm->eps);
                largest = std::max(largest, norm->eps);
            }
    // The stream that a final norm reads has at least the variance that it started with.
    if (beside_variance(facts.layout.final)) smallest = std::min(smallest, facts.layout.final.eps);
    const double variance = embedding_variance(facts);
    const std::string beside = "the stream starts with a variance of about " + rounded_number(variance);
    const std::string source = "Ba et al. 2016, arXiv:1607.06450; Zhang & Sennrich 2019, arXiv:1910.07467";
    constexpr double kResolution = 1.0 / (1 << 24); // half a unit in the last place of a float
    if (smallest < kResolution * variance)
        out.push_back({"eps_unresolved", "eps " + rounded_number(smallest) + " is lost beside the variance",
                       beside + ", to which float cannot add so little; it acts only on rows that are all but constant",
                       source});
    if (largest > variance)
        out.push_back({"eps_large", "eps " + rounded_number(largest) + " outweighs the variance",
                       beside + ", so the first norms shrink their input instead of normalizing it; use a smaller eps "
                                "or a larger model.init.std",
                       source});
}

void warn_about_logits(const Facts& facts, std::vector<NormWarning>& out) {
    // A normalized row has length √width, so a logit has this deviation.
    const double logit = std::sqrt(static_cast<double>(facts.model.width)) * InitRules(facts.model).embedding().value;
    constexpr double kLargeLogit = 1.5; // adds about 1.1 nats to the first loss
    const bool normalized = facts.layout.final || facts.layout.blocks.back().ffn.post;
    if (facts.model.tie_embeddings && normalized && logit > kLargeLogit)
        out.push_back(
            {"tied_large_logits",
             "tied embeddings and an init that gives the first logits a deviation of " + rounded_number(logit),
             "the first loss is far above log(vocabulary), and the first steps undo the init; use "
             "model.init.std of about " +
                 rounded_number(1 / std::sqrt(static_cast<double>(facts.model.width))) +
                 " or less, or untied embeddings",
             "Press & Wolf 2017, arXiv:1608.05859; Chowdhery et al. 2022 (PaLM), arXiv:2204.02311, section 5"});
}

} // namespace

std::vector<NormWarning> norm_warnings(const Config& config) {
    const Facts facts(config);
    std::vector<NormWarning> out;
    warn_about_missing_norms(facts, out);
    warn_about_the_end(facts, out);
    warn_about_post(facts, out);
    warn_about_batchnorm(facts, out);
    warn_about_eps(facts, out);
    warn_about_logits(facts, out);
    return out;
}

std::vector<NormWarning> source_warnings(const ModelConfig& model, const ModelConfig& source) {
    const std::string changes = eps_changes(source, model);
    if (changes.empty()) return {};
    return {{"eps_changed", "eps is another than the checkpoint was trained with: " + changes,
             "rows whose variance is not far above eps come out with another size, and the loss changes before any "
             "step; keep the eps of the checkpoint, or expect to need fine-tuning",
             "claim b6: LLaMA-2-7B, trained with 1e-5, has perplexity 5.8283 with it and 5.8986 with 1e-6"}};
}

} // namespace ballast
