#pragma once

#include "ballast/config/keys.h"
#include "ballast/config/placement.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

// Every setting of a run: its default, its limits and one sentence, once. configs/schema.json and docs/config.md are
// generated from this file. A value of 0 or `automatic` that stands for "derive it" is filled in by `resolve`
// (load.h); all code behind the loader sees resolved values only.

namespace ballast {

enum class NormKind { none, layernorm, rmsnorm, batchnorm, scalenorm, dyt, derf };
constexpr auto values_of(NormKind) {
    using enum NormKind;
    return std::to_array<EnumValue<NormKind>>({
        {none, "none", "the identity"},
        {layernorm, "layernorm", "subtract the mean, divide by the standard deviation (Ba 2016, arXiv:1607.06450)"},
        {rmsnorm, "rmsnorm", "divide by the root mean square (Zhang & Sennrich 2019, arXiv:1910.07467)"},
        {batchnorm, "batchnorm", "each feature over batch and time (Ioffe & Szegedy 2015, arXiv:1502.03167)"},
        {scalenorm, "scalenorm", "a learned length for every row (Nguyen & Salazar 2019, arXiv:1910.05895)"},
        {dyt, "dyt", "tanh(alpha x), no statistics (Zhu 2025, arXiv:2503.10622)"},
        {derf, "derf", "erf(alpha x + shift), no statistics (Chen 2025, arXiv:2512.10938)"},
    });
}

/// A NormKind, or `auto`: model.norm.kind. `auto` stands in the place of `none`.
enum class OwnNormKind { automatic };
constexpr auto values_of(OwnNormKind) {
    constexpr auto kinds = values_of(NormKind{});
    std::array<EnumValue<OwnNormKind>, kinds.size()> values{};
    values[0] = {OwnNormKind::automatic, "auto", ""};
    for (std::size_t i = 1; i < kinds.size(); ++i)
        values[i] = {static_cast<OwnNormKind>(i), kinds[i].name, ""};
    return values;
}

enum class DepthScale { none, inv_sqrt };
constexpr auto values_of(DepthScale) {
    using enum DepthScale;
    return std::to_array<EnumValue<DepthScale>>({
        {none, "none", ""},
        {inv_sqrt, "inv_sqrt", "1/sqrt(l) in block l, from 1 (LayerNorm scaling; Sun 2025, arXiv:2502.05795)"},
    });
}

/// What a norm within attention normalizes as one row.
enum class HeadNorm { none, head, full };
constexpr auto values_of(HeadNorm) {
    using enum HeadNorm;
    return std::to_array<EnumValue<HeadNorm>>({
        {none, "none", "no norm"},
        {head, "head", "each head by itself, with one gain for all (Dehghani 2023, arXiv:2302.05442)"},
        {full, "full", "all heads together (OLMo 2, 2024, arXiv:2501.00656)"},
    });
}

enum class EmbeddingScale { none, sqrt_width };
constexpr auto values_of(EmbeddingScale) {
    using enum EmbeddingScale;
    return std::to_array<EnumValue<EmbeddingScale>>({
        {none, "none", ""},
        {sqrt_width, "sqrt_width", "the root of model.width (Vaswani 2017, arXiv:1706.03762, section 3.4)"},
    });
}

enum class ResidualKind { plain, rezero, skipinit, layerscale, fixup };
constexpr auto values_of(ResidualKind) {
    using enum ResidualKind;
    return std::to_array<EnumValue<ResidualKind>>({
        {plain, "plain", "as it is"},
        {rezero, "rezero",
         "times a learned scalar for each block, 0 at the start (Bachlechner 2020, arXiv:2003.04887)"},
        {skipinit, "skipinit",
         "times a learned scalar for each branch, 0 at the start (De & Smith 2020, "
         "arXiv:2002.10444)"},
        {layerscale, "layerscale", "times a learned vector, small at the start (Touvron 2021, arXiv:2103.17239)"},
        {fixup, "fixup", "its last matrix starts at 0, the one before scaled by depth (Zhang 2019, arXiv:1901.09321)"},
    });
}

enum class Switch { automatic, on, off };
constexpr auto values_of(Switch) {
    using enum Switch;
    return std::to_array<EnumValue<Switch>>({
        {automatic, "auto", ""}, // the key says what decides
        {on, "on", ""},
        {off, "off", ""},
    });
}

enum class FfnKind { gelu, gelu_tanh, relu, relu2, silu, swiglu, geglu };
constexpr auto values_of(FfnKind) {
    using enum FfnKind;
    return std::to_array<EnumValue<FfnKind>>({
        {gelu, "gelu", "x times the normal distribution function, exact"},
        {gelu_tanh, "gelu_tanh", "GELU by its tanh approximation, as in GPT-2"},
        {relu, "relu", "max(x, 0)"},
        {relu2, "relu2", "max(x, 0) squared"},
        {silu, "silu", "x times sigmoid(x)"},
        {swiglu, "swiglu", "gated: silu(x W) times x V (Shazeer 2020, arXiv:2002.05202)"},
        {geglu, "geglu", "gated: gelu(x W) times x V (Shazeer 2020, arXiv:2002.05202)"},
    });
}

enum class PositionKind { learned, rope, sinusoidal, alibi, none };
constexpr auto values_of(PositionKind) {
    using enum PositionKind;
    return std::to_array<EnumValue<PositionKind>>({
        {learned, "learned", "a trained vector per position, added to the embedding"},
        {rope, "rope", "queries and keys rotated by an angle that grows with the position (Su 2021, arXiv:2104.09864)"},
        {sinusoidal, "sinusoidal", "fixed sines and cosines, added to the embedding (Vaswani 2017, arXiv:1706.03762)"},
        {alibi, "alibi", "a penalty on attention that is linear in the distance (Press 2021, arXiv:2108.12409)"},
        {none, "none", "no positions; the causal mask is the only order"},
    });
}

enum class InitKind { gpt2, xavier, fan_in, small, deepnorm, depth_scaled };
constexpr auto values_of(InitKind) {
    using enum InitKind;
    return std::to_array<EnumValue<InitKind>>({
        {gpt2, "gpt2", "normal with `model.init.std`; the last matrix of each branch divided by sqrt(2 layers)"},
        {xavier, "xavier", "uniform with variance 2 / (inputs + outputs) (Glorot & Bengio 2010)"},
        {fan_in, "fan_in", "normal with variance 1 / inputs"},
        {small, "small", "normal with variance 2 / (5 widths) (Nguyen & Salazar 2019, arXiv:1910.05895)"},
        {deepnorm, "deepnorm",
         "xavier, normal; values, attention's last matrix and ffn times (8 layers)^(-1/4) (Wang "
         "2022, arXiv:2203.00555)"},
        {depth_scaled, "depth_scaled", "xavier divided by sqrt(l) in block l, from 1 (Zhang 2019, arXiv:1908.11365)"},
    });
}

enum class TokenizerKind { character, byte };
constexpr auto values_of(TokenizerKind) {
    using enum TokenizerKind;
    return std::to_array<EnumValue<TokenizerKind>>({
        {character, "char", "one token per distinct character of the text"},
        {byte, "byte", "one token per byte, 256 in all"},
    });
}

enum class TaskKind { none, majority, copy, induction, modular_addition };
constexpr auto values_of(TaskKind) {
    using enum TaskKind;
    return std::to_array<EnumValue<TaskKind>>({
        {none, "none", "no task: the data of `path`"},
        {majority, "majority", "the most frequent symbol of a sequence (Brody 2023, arXiv:2305.02582)"},
        {copy, "copy", "the first half of a sequence, once more (Graves 2014, arXiv:1410.5401)"},
        {induction, "induction", "what came after the same symbol before (Olsson 2022, arXiv:2209.11895)"},
        {modular_addition, "modular_addition", "a + b modulo a number (Power 2022, arXiv:2201.02177)"},
    });
}

enum class DataFormat { automatic, text, bin };
constexpr auto values_of(DataFormat) {
    using enum DataFormat;
    return std::to_array<EnumValue<DataFormat>>({
        {automatic, "auto", "`bin` for a directory that holds train.bin, otherwise `text`"},
        {text, "text", "a text file, split and tokenized here"},
        {bin, "bin", "a directory with train.bin and val.bin: token ids in 16 bits, as nanoGPT writes them"},
    });
}

enum class OptimizerKind { adamw, sgd };
constexpr auto values_of(OptimizerKind) {
    using enum OptimizerKind;
    return std::to_array<EnumValue<OptimizerKind>>({
        {adamw, "adamw", "Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101)"},
        {sgd, "sgd", "gradient descent with momentum"},
    });
}

enum class DecayKind { coupled, independent };
constexpr auto values_of(DecayKind) {
    using enum DecayKind;
    return std::to_array<EnumValue<DecayKind>>({
        {coupled, "coupled", "each step takes off weight_decay times the learning rate, as PyTorch does"},
        {independent, "independent", "each step takes off weight_decay times the schedule's factor, whatever `lr` is"},
    });
}

enum class ScheduleKind { constant, linear, cosine, wsd, inverse_sqrt };
constexpr auto values_of(ScheduleKind) {
    using enum ScheduleKind;
    return std::to_array<EnumValue<ScheduleKind>>({
        {constant, "constant", "stays at `optimizer.lr`"},
        {linear, "linear", "a straight line down to `final_lr`"},
        {cosine, "cosine", "half a cosine down to `final_lr` (Loshchilov & Hutter 2017, arXiv:1608.03983)"},
        {wsd, "wsd", "stays, then falls in a straight line to `final_lr` over the last `decay_fraction` of the run"},
        {inverse_sqrt, "inverse_sqrt", "falls with one over the square root of the step (Vaswani 2017)"},
    });
}

/// Smaller ones are 0 or denormal in float: nothing that is added to could tell.
inline constexpr double kLeastEps = 1e-37;

/// Larger ones are infinite in float, or soon are with what is added to them or multiplied with them.
inline constexpr double kMostReal = 1e37;

/// Larger ones are 1 in float: what decays with them takes in nothing new.
inline constexpr double kLargestDecayRate = 0.9999999;

enum class Policy { stop, skip, rewind, go_on };
constexpr auto values_of(Policy) {
    using enum Policy;
    return std::to_array<EnumValue<Policy>>({
        {stop, "stop", "save and end the run, with exit status 3"},
        {skip, "skip", "drop the step's update and go on with the next batch"},
        {rewind, "rewind", "go back `rewind_steps` steps and leave out the batches since (PaLM, arXiv:2204.02311)"},
        {go_on, "continue", "record it and go on"},
    });
}

struct TokenizerConfig {
    BALLAST_KEYS_BEGIN(TokenizerConfig);
    TokenizerKind kind = TokenizerKind::character;
    BALLAST_KEY(kind, "What a token of a text file is.");
    BALLAST_KEYS_END;
};

struct PoisonConfig {
    BALLAST_KEYS_BEGIN(PoisonConfig);
    std::int64_t first = 0;
    BALLAST_KEY(first, "Number of the first training batch that is replaced; 0: none.", at_least(0));
    std::int64_t batches = 3;
    BALLAST_KEY(batches, "How many are.", at_least(1));
    std::int64_t period = 4;
    BALLAST_KEY(period, "Tokens of the random pattern that fills them, repeated.", between(1, 65536));
    BALLAST_KEYS_END;
};

/// A synthetic task; data/task.h says what its sequences are.
struct TaskConfig {
    BALLAST_KEYS_BEGIN(TaskConfig);
    TaskKind kind = TaskKind::none;
    BALLAST_KEY(kind, "What is asked; its sequences fill `model.context`.");
    std::int64_t symbols = 20;
    BALLAST_KEY(symbols, "How many symbols there are; modular_addition: the modulus.", between(2, 1024));
    BALLAST_KEYS_END;
};

struct DataConfig {
    BALLAST_KEYS_BEGIN(DataConfig);
    std::string path;
    BALLAST_KEY(path, "Text file or data directory, relative to the config file it stands in; required without a task.",
                path_from_this_file());
    TaskConfig task;
    BALLAST_KEY(task, "A synthetic task in the place of a text: no `path`, sequences drawn from the seed.");
    DataFormat format = DataFormat::automatic;
    BALLAST_KEY(format, "How the data is stored.");
    TokenizerConfig tokenizer;
    BALLAST_KEY(tokenizer, "How a text file becomes tokens.");
    double val_fraction = 0.1;
    BALLAST_KEY(val_fraction, "Share of a text, at its end, or of the sums of modular_addition, kept for validation.",
                between(0, 0.9));
    std::int64_t vocab_size = 0;
    BALLAST_KEY(vocab_size, "bin: number of token ids; 0: from meta.json, else the largest seen.",
                between(0, 2147483647));
    PoisonConfig poison;
    BALLAST_KEY(poison, "Batches that are spoilt on purpose, to see what damaged data does to a run.");
    BALLAST_KEYS_END;
};

struct FfnConfig {
    BALLAST_KEYS_BEGIN(FfnConfig);
    FfnKind kind = FfnKind::gelu;
    BALLAST_KEY(kind, "Activation of the feed-forward sublayer.");
    std::int64_t width = 0;
    BALLAST_KEY(width, "Hidden width; 0: 4 model widths; gated: 8/3, rounded up to a multiple of 8.",
                between(0, 4194304));
    bool inner_norm = false;
    BALLAST_KEY(inner_norm, "A norm in front of the last matrix (NormFormer; Shleifer 2021, arXiv:2110.09456).");
    BALLAST_KEYS_END;
};

/// Where one norm of the model differs from `model.norm`.
struct OwnNormConfig {
    BALLAST_KEYS_BEGIN(OwnNormConfig);
    OwnNormKind kind = OwnNormKind::automatic;
    BALLAST_KEY(kind, "What it computes; auto: `model.norm.kind`.");
    double eps = 0;
    BALLAST_KEY(eps, "Its eps; 0: `model.norm.eps`.", between(0, kMostReal));
    Switch gain = Switch::automatic;
    BALLAST_KEY(gain, "Whether it has a gain; auto: `model.norm.gain`.");
    Switch bias = Switch::automatic;
    BALLAST_KEY(bias,
                "Whether it has a bias; auto: `model.norm.bias`, or what that is by default for a kind of its own.");
    BALLAST_KEYS_END;
};

/// The placement of the first blocks.
struct DepthPlacementConfig {
    BALLAST_KEYS_BEGIN(DepthPlacementConfig);
    double until = 0;
    BALLAST_KEY(until, "Share of the depth where this ends; it begins where the entry before ends.",
                above(0).at_most(1));
    OwnPlacement placement = OwnPlacement::automatic;
    BALLAST_KEY(placement, "Where the norms of these blocks sit; auto: as in the other blocks.");
    OwnPlacement attn = OwnPlacement::automatic;
    BALLAST_KEY(attn, "That of the attention sublayers; auto: `placement` of this entry.");
    OwnPlacement ffn = OwnPlacement::automatic;
    BALLAST_KEY(ffn, "That of the feed-forward sublayers; auto: `placement` of this entry.");
    BALLAST_KEYS_END;
};

struct NormConfig {
    BALLAST_KEYS_BEGIN(NormConfig);
    NormKind kind = NormKind::layernorm;
    BALLAST_KEY(kind, "What a norm computes.");
    Placement placement = placement_named("pre");
    BALLAST_KEY(placement, "Where the norms of a block sit.");
    OwnPlacement attn = OwnPlacement::automatic;
    BALLAST_KEY(attn, "Where those of the attention sublayers sit; auto: `placement`.");
    OwnPlacement ffn = OwnPlacement::automatic;
    BALLAST_KEY(ffn, "Where those of the feed-forward sublayers sit; auto: `placement`.");
    std::vector<DepthPlacementConfig> layers;
    BALLAST_KEY(layers, "Placements of the first blocks, in the order of depth (Mix-LN; Li 2024, arXiv:2412.13795).");
    DepthScale depth_scale = DepthScale::none;
    BALLAST_KEY(depth_scale, "A factor on the output of every norm in front of a sublayer.");
    double eps = 1e-5;
    BALLAST_KEY(eps, "Added to the variance or mean square, inside the root; scalenorm: the least length.",
                between(kLeastEps, kMostReal));
    bool gain = true;
    BALLAST_KEY(gain, "Whether a norm has a trained factor per feature; scalenorm always has its one.");
    Switch bias = Switch::automatic;
    BALLAST_KEY(bias,
                "Whether a norm has a trained offset per feature; auto: layernorm follows `model.bias`; batchnorm, "
                "dyt and derf have one.");
    bool unit_offset = false;
    BALLAST_KEY(unit_offset, "rmsnorm: the factor is 1 + gain, and gain starts at 0 (Gemma, 2024, arXiv:2403.08295).");
    double partial = 1;
    BALLAST_KEY(partial, "rmsnorm: share of the features, the first ones, whose mean square counts.",
                above(0).at_most(1));
    double momentum = 0.1;
    BALLAST_KEY(momentum, "batchnorm: share of a step's statistics in the new running ones.", above(0).at_most(1));
    double alpha = 0.5;
    BALLAST_KEY(alpha, "dyt, derf: the learned factor of the input at the start.", between(kLeastEps, kMostReal));
    double attention_alpha = 0;
    BALLAST_KEY(attention_alpha, "dyt, derf: `alpha` of the attention sublayers' norms; 0: `alpha`.",
                between(0, kMostReal));
    double shift = 0;
    BALLAST_KEY(shift, "derf: the learned offset of the input at the start.", between(-kMostReal, kMostReal));
    OwnNormConfig pre;
    BALLAST_KEY(pre, "The norms in front of the sublayers, where they differ.");
    OwnNormConfig out;
    BALLAST_KEY(out, "The norms behind the sublayers, on their branch, where they differ.");
    OwnNormConfig post;
    BALLAST_KEY(post, "The norms behind the residual sums, where they differ.");
    OwnNormConfig final;
    BALLAST_KEY(final, "The norm of `model.final_norm`, where it differs.");
    OwnNormConfig embedding;
    BALLAST_KEY(embedding, "The norm of `model.embedding.norm`, where it differs.");
    OwnNormConfig qk;
    BALLAST_KEY(qk, "The norms of `model.qk_norm`, where they differ.");
    OwnNormConfig v;
    BALLAST_KEY(v, "The norms of `model.v_norm`, where they differ.");
    OwnNormConfig inner;
    BALLAST_KEY(inner, "The norms of `model.ffn.inner_norm`, where they differ.");
    BALLAST_KEYS_END;
};

struct EmbeddingConfig {
    BALLAST_KEYS_BEGIN(EmbeddingConfig);
    EmbeddingScale scale = EmbeddingScale::none;
    BALLAST_KEY(scale, "A factor on the token embeddings; positions are added behind it.");
    bool norm = false;
    BALLAST_KEY(norm, "A norm in front of the first block (Peri-LN; Kim 2025, arXiv:2502.02732).");
    BALLAST_KEYS_END;
};

struct RopeConfig {
    BALLAST_KEYS_BEGIN(RopeConfig);
    double theta = 10000;
    BALLAST_KEY(theta, "Base of the rotation's wavelengths.", above(0).at_most(kMostReal));
    BALLAST_KEYS_END;
};

struct InitConfig {
    BALLAST_KEYS_BEGIN(InitConfig);
    InitKind kind = InitKind::gpt2;
    BALLAST_KEY(kind, "How weights are drawn.");
    double std = 0.02;
    BALLAST_KEY(std, "Standard deviation of embeddings and matrices for the gpt2 init.", between(0, kMostReal));
    BALLAST_KEYS_END;
};

struct ModelConfig {
    BALLAST_KEYS_BEGIN(ModelConfig);
    std::int64_t layers = 4;
    BALLAST_KEY(layers, "Number of blocks.", between(1, 10000));
    std::int64_t heads = 4;
    BALLAST_KEY(heads, "Attention heads in a block; divides `width`.", between(1, 65536));
    std::int64_t kv_heads = 0;
    BALLAST_KEY(kv_heads, "Key and value heads for groups of heads; divides `heads`; 0: `heads`.", between(0, 65536));
    std::int64_t width = 128;
    BALLAST_KEY(width, "Features of the residual stream.", between(1, 1048576));
    std::int64_t context = 64;
    BALLAST_KEY(context, "Tokens in a sequence.", between(1, 16777216));
    FfnConfig ffn;
    BALLAST_KEY(ffn, "The feed-forward sublayer.");
    NormConfig norm;
    BALLAST_KEY(norm, "The norms of the network.");
    Switch final_norm = Switch::automatic;
    BALLAST_KEY(final_norm,
                "A norm before the output layer; auto: on where the last block leaves the stream without one.");
    EmbeddingConfig embedding;
    BALLAST_KEY(embedding, "From tokens to the residual stream.");
    HeadNorm qk_norm = HeadNorm::none;
    BALLAST_KEY(qk_norm, "A norm of the queries and one of the keys, before they are rotated.");
    HeadNorm v_norm = HeadNorm::none;
    BALLAST_KEY(v_norm, "A norm of the values.");
    double logit_softcap = 0;
    BALLAST_KEY(logit_softcap,
                "Bound c of attention's logits, c tanh(logit / c) (Gemma 2, 2024, arXiv:2408.00118); 0: none.",
                between(0, kMostReal));
    bool head_scale = false;
    BALLAST_KEY(head_scale, "A learned factor for each head's output (NormFormer; Shleifer 2021, arXiv:2110.09456).");
    ResidualKind residual = ResidualKind::plain;
    BALLAST_KEY(residual, "What a branch is multiplied with before it is added to the stream.");
    double layerscale_init = 0;
    BALLAST_KEY(layerscale_init,
                "layerscale: the vector at the start; 0: 0.1 up to 18 blocks, 1e-5 up to 24, 1e-6 beyond.",
                between(0, kMostReal));
    PositionKind position = PositionKind::learned;
    BALLAST_KEY(position, "How the model knows the order of the tokens.");
    RopeConfig rope;
    BALLAST_KEY(rope, "Settings of position `rope`.");
    bool tie_embeddings = true;
    BALLAST_KEY(tie_embeddings, "Whether the output layer uses the token embedding's weights.");
    bool bias = false;
    BALLAST_KEY(bias, "Whether linear layers have biases.");
    double dropout = 0;
    BALLAST_KEY(dropout, "Probability with which a value is dropped in training.", at_least(0).below(1));
    InitConfig init;
    BALLAST_KEY(init, "The weights at the start.");
    BALLAST_KEYS_END;
};

struct LossConfig {
    BALLAST_KEYS_BEGIN(LossConfig);
    double z_loss = 0;
    BALLAST_KEY(z_loss, "Weight of the squared log partition function added to the loss.", between(0, kMostReal));
    BALLAST_KEYS_END;
};

struct OptimizerConfig {
    BALLAST_KEYS_BEGIN(OptimizerConfig);
    OptimizerKind kind = OptimizerKind::adamw;
    BALLAST_KEY(kind, "The update rule.");
    double lr = 1e-3;
    BALLAST_KEY(lr, "Learning rate after the warm-up.", at_least(0));
    std::array<double, 2> betas = {0.9, 0.99};
    BALLAST_KEY(betas, "adamw: decay rates of the mean gradient and the mean square.", between(0, kLargestDecayRate));
    double eps = 1e-8;
    BALLAST_KEY(eps, "adamw: added to the root of the mean squared gradient.", between(kLeastEps, kMostReal));
    double weight_decay = 0.1;
    BALLAST_KEY(weight_decay, "Pull of matrices and embeddings towards 0; gains and biases are exempt.",
                between(0, kMostReal));
    DecayKind decay = DecayKind::coupled;
    BALLAST_KEY(decay, "Whether the weight decay of a step follows `lr`.");
    double momentum = 0.9;
    BALLAST_KEY(momentum, "sgd: decay rate of the running gradient.", between(0, kLargestDecayRate));
    bool nesterov = false;
    BALLAST_KEY(nesterov, "sgd: whether to look one step ahead.");
    double clip = 1.0;
    BALLAST_KEY(clip, "Largest norm of the whole gradient, which is scaled down to it; 0: no clipping.", at_least(0));
    BALLAST_KEYS_END;
};

struct ScheduleConfig {
    BALLAST_KEYS_BEGIN(ScheduleConfig);
    ScheduleKind kind = ScheduleKind::cosine;
    BALLAST_KEY(kind, "Shape of the learning rate after the warm-up.");
    std::int64_t warmup = 100;
    BALLAST_KEY(warmup, "Steps of linear warm-up to `optimizer.lr`; a shorter run ends within it.", at_least(0));
    double final_lr = 1e-4;
    BALLAST_KEY(final_lr, "Learning rate at the last step of linear, cosine and wsd.", at_least(0));
    double decay_fraction = 0.2;
    BALLAST_KEY(decay_fraction, "wsd: share of the run, at its end, in which the rate falls.", between(0, 1));
    BALLAST_KEYS_END;
};

struct TrainConfig {
    BALLAST_KEYS_BEGIN(TrainConfig);
    std::int64_t steps = 2000;
    BALLAST_KEY(steps, "Optimizer steps in all.", at_least(0));
    std::int64_t batch = 12;
    BALLAST_KEY(batch, "Sequences per step.", between(1, 16777216));
    std::int64_t micro_batch = 0;
    BALLAST_KEY(micro_batch, "Sequences computed at once; divides `batch`; 0: `batch`.", between(0, 16777216));
    std::int64_t eval_every = 250;
    BALLAST_KEY(eval_every, "Steps between evaluations; 0: only at the end.", at_least(0));
    std::int64_t eval_batches = 20;
    BALLAST_KEY(eval_batches, "Batches in an evaluation.", at_least(1));
    std::int64_t checkpoint_every = 500;
    BALLAST_KEY(checkpoint_every, "Steps between checkpoints; 0: only at the end.", at_least(0));
    std::int64_t keep_checkpoints = 3;
    BALLAST_KEY(keep_checkpoints, "Newest checkpoints to keep, beside the best; 0: all.", at_least(0));
    std::int64_t log_every = 10;
    BALLAST_KEY(log_every, "Steps between lines of output when it is not a terminal.", at_least(1));
    BALLAST_KEYS_END;
};

struct StabilityConfig {
    BALLAST_KEYS_BEGIN(StabilityConfig);
    std::int64_t probe_every = 10;
    BALLAST_KEY(probe_every, "Steps between measurements of every layer, to layers.jsonl; 0: none.", at_least(0));
    Policy on_non_finite = Policy::stop;
    BALLAST_KEY(on_non_finite, "What to do at a NaN or an infinity; `skip` copies the state before every update.");
    Policy on_spike = Policy::go_on;
    BALLAST_KEY(on_spike, "What to do at a spike of the loss or the gradient norm.");
    Policy on_divergence = Policy::stop;
    BALLAST_KEY(on_divergence, "What to do when the loss has diverged; not `skip`.");
    Policy on_stall = Policy::go_on;
    BALLAST_KEY(on_stall, "What to do when nothing but token frequencies is learned; `stop` or `continue`.");
    std::int64_t spike_window = 128;
    BALLAST_KEY(spike_window, "Values without spikes that a value is compared with.", between(32, 65536));
    std::int64_t divergence_window = 50;
    BALLAST_KEY(divergence_window, "Steps whose median loss tells divergence and stall.", between(1, 65536));
    std::int64_t rewind_steps = 100;
    BALLAST_KEY(rewind_steps, "Steps that `rewind` goes back, or more, to a state that is kept.", at_least(1));
    std::int64_t max_rewinds = 3;
    BALLAST_KEY(max_rewinds, "Rewinds in a run; what would be one more is a stop.", at_least(0));
    std::int64_t snapshot_every = 50;
    BALLAST_KEY(snapshot_every, "Steps between copies of the training state, for rewind and replay; 0: none.",
                at_least(0));
    std::int64_t snapshot_memory = 1024;
    BALLAST_KEY(snapshot_memory, "MiB of such copies that are kept in memory; more go to recorder/ on the disk.",
                between(0, 16777216));
    BALLAST_KEYS_END;
};

struct LogConfig {
    BALLAST_KEYS_BEGIN(LogConfig);
    bool csv = false;
    BALLAST_KEY(csv, "Whether to write metrics.csv beside metrics.jsonl.");
    bool tensorboard = false;
    BALLAST_KEY(tensorboard, "Whether to write an event file for TensorBoard.");
    BALLAST_KEYS_END;
};

/// The start from another run's weights; train/graft.h says what becomes of each tensor.
struct InitFromConfig {
    BALLAST_KEYS_BEGIN(InitFromConfig);
    std::string run;
    BALLAST_KEY(run, "Run directory, relative to the config file it stands in; empty: the weights are drawn.",
                path_from_this_file());
    std::string checkpoint = "newest";
    BALLAST_KEY(checkpoint, "Which of its checkpoints: a step, newest, or best, that of the lowest validation loss.");
    bool calibrate = false;
    BALLAST_KEY(calibrate, "Whether gains (and biases) of norms that the other run lacks are fitted to what it has in "
                           "their places.");
    double new_norm_lr_scale = 1;
    BALLAST_KEY(new_norm_lr_scale, "Factor on the learning rate of such norms' parameters.", at_least(0));
    std::int64_t new_norm_warmup = 0;
    BALLAST_KEY(new_norm_warmup, "Steps in which their learning rate rises from 0, on top of the schedule.",
                at_least(0));
    BALLAST_KEYS_END;
};

struct Config {
    BALLAST_KEYS_BEGIN(Config);
    std::string name = "run";
    BALLAST_KEY(name, "Name of the run, and of its directory.", usable_as_file_name());
    std::uint64_t seed = 1337;
    BALLAST_KEY(seed, "Seed of every random stream: weights, batches, dropout.");
    DataConfig data;
    BALLAST_KEY(data, "What to train on.");
    ModelConfig model;
    BALLAST_KEY(model, "The Transformer.");
    InitFromConfig init_from;
    BALLAST_KEY(init_from, "Weights to start from: those of another run, of this architecture or another.");
    LossConfig loss;
    BALLAST_KEY(loss, "The loss beyond cross-entropy.");
    OptimizerConfig optimizer;
    BALLAST_KEY(optimizer, "How the weights are updated.");
    ScheduleConfig schedule;
    BALLAST_KEY(schedule, "The learning rate over the run.");
    TrainConfig train;
    BALLAST_KEY(train, "The training loop.");
    StabilityConfig stability;
    BALLAST_KEY(stability, "How instability is found, and what to do about it.");
    LogConfig log;
    BALLAST_KEY(log, "What is written while training.");
    BALLAST_KEYS_END;
};

} // namespace ballast
