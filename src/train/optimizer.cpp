#include "ballast/train/optimizer.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "ballast/base/error.h"

namespace ballast {

namespace {

/// One range of parameters that share everything.
struct Range {
    float* values;
    const float* gradients;
    std::array<float*, 2> moments;
    std::int64_t count;
};

struct StepFacts {
    std::int64_t step;
    float lr;
    float decay; ///< fraction of the parameter that this step removes
    float gradient_scale;
};

/// An optimizer: the names of what it keeps, and its update of one range.
struct Rule {
    OptimizerKind kind;
    std::vector<std::string_view> (*moments)(const OptimizerConfig&);
    UpdateStats (*update)(const OptimizerConfig&, const StepFacts&, const Range&);
};

UpdateStats update_adamw(const OptimizerConfig& config, const StepFacts& facts, const Range& range) {
    // The corrections are for the betas as float has them: 1 - 0.999f is off by 1e-5 of itself, and the moments hold
    // that factor.
    const auto beta1 = static_cast<float>(config.betas[0]), beta2 = static_cast<float>(config.betas[1]);
    const auto correction = [&](float beta) {
        return static_cast<float>(1 / (1 - std::pow(static_cast<double>(beta), static_cast<double>(facts.step))));
    };
    return adamw_update(range.values, range.moments[0], range.moments[1], range.gradients, range.count,
                        {.lr = facts.lr,
                         .beta1 = beta1,
                         .beta2 = beta2,
                         .eps = static_cast<float>(config.eps),
                         .correction1 = correction(beta1),
                         .correction2 = correction(beta2),
                         .decay = facts.decay,
                         .gradient_scale = facts.gradient_scale});
}

UpdateStats update_sgd(const OptimizerConfig& config, const StepFacts& facts, const Range& range) {
    return sgd_update(range.values, range.moments[0], range.gradients, range.count,
                      {.lr = facts.lr,
                       .momentum = static_cast<float>(config.momentum),
                       .nesterov = config.nesterov,
                       .decay = facts.decay,
                       .gradient_scale = facts.gradient_scale});
}

constexpr std::array kRules{
    Rule{OptimizerKind::adamw,
         [](const OptimizerConfig&) {
             return std::vector<std::string_view>{"m", "v"};
         },
         update_adamw},
    Rule{OptimizerKind::sgd,
         [](const OptimizerConfig& config) {
             return config.momentum > 0 ? std::vector<std::string_view>{"velocity"} : std::vector<std::string_view>{};
         },
         update_sgd},
};

const Rule& rule_of(OptimizerKind kind) {
    for (const Rule& rule : kRules)
        if (rule.kind == kind) return rule;
    throw Error("an optimizer without a rule");
}

} // namespace

std::size_t moment_count(const OptimizerConfig& config) { return rule_of(config.kind).moments(config).size(); }

Optimizer::Optimizer(const OptimizerConfig& config, const ParamTable& table) : config_(config), table_(table) {
    for (const std::string_view name : rule_of(config.kind).moments(config)) {
        auto* values = permanent_.allocate<float>(table.size());
        std::fill_n(values, table.size(), 0.0F);
        moments_.push_back({name, values});
    }
    undecayed_.push_back({table.decay_size(), table.size(), false});
}

void Optimizer::set_own_rate(std::span<const std::string> parameters, double scale, std::int64_t warmup) {
    if (parameters.empty() || (scale == 1 && warmup == 0)) return;
    own_scale_ = scale;
    own_warmup_ = warmup;
    undecayed_.clear();
    for (const Param& param : table_.params()) {
        const bool own = std::find(parameters.begin(), parameters.end(), param.name) != parameters.end();
        if (own && param.group == DecayGroup::decay) throw Error(param.name + " decays: it has no rate of its own");
        if (param.group == DecayGroup::decay) continue;
        if (undecayed_.empty() || undecayed_.back().own != own) undecayed_.push_back({param.offset, 0, own});
        undecayed_.back().end = param.offset + param.shape.elements();
    }
}

UpdateStats Optimizer::step(std::int64_t step, double factor, double gradient_scale) {
    const double lr = config_.lr * factor;
    // Coupled decay follows the learning rate (Loshchilov & Hutter, 1711.05101, algorithm 2, as PyTorch has it);
    // independent decay follows the schedule alone (Wortsman et al., 2309.14322, section 3.2.2).
    const double decay = config_.weight_decay * (config_.decay == DecayKind::coupled ? lr : factor);
    UpdateStats total;
    const auto update = [&](std::int64_t begin, std::int64_t end, double range_lr, double range_decay) {
        if (begin == end) return;
        Range range{table_.values() + begin, table_.gradients() + begin, {}, end - begin};
        for (std::size_t i = 0; i < moments_.size(); ++i)
            range.moments[i] = moments_[i].values + begin;
        const UpdateStats stats = rule_of(config_.kind)
                                      .update(config_,
                                              {step, static_cast<float>(range_lr), static_cast<float>(range_decay),
                                               static_cast<float>(gradient_scale)},
                                              range);
        total.update_squares += stats.update_squares;
        total.parameter_squares += stats.parameter_squares;
        total.finite = total.finite && stats.finite;
    };
    update(0, table_.decay_size(), lr, decay);
    const double warmed =
        own_warmup_ > 0 ? std::min(1.0, static_cast<double>(step) / static_cast<double>(own_warmup_)) : 1;
    for (const RateRange& range : undecayed_)
        update(range.begin, range.end, range.own ? lr * own_scale_ * warmed : lr, 0);
    return total;
}

} // namespace ballast
