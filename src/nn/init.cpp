#include "ballast/nn/init.h"

#include <cmath>

namespace ballast::inline BALLAST_PRECISION {

InitRules::InitRules(const ModelConfig& model, std::int64_t block)
    : config_(model.init), residual_(model.residual), layers_(static_cast<double>(model.layers)),
      depth_(static_cast<double>(block + 1)), width_(model.width) {}

ParamInit InitRules::matrix(std::int64_t in, std::int64_t out) const {
    const double sum = static_cast<double>(in + out);
    switch (config_.kind) {
    case InitKind::gpt2: return ParamInit::normal(config_.std);
    case InitKind::xavier: return ParamInit::uniform(std::sqrt(6.0 / sum));
    case InitKind::fan_in: return ParamInit::normal(1 / std::sqrt(static_cast<double>(in)));
    case InitKind::small: return ParamInit::normal(std::sqrt(2.0 / (5 * static_cast<double>(width_))));
    case InitKind::deepnorm: return ParamInit::normal(std::sqrt(2.0 / sum));
    case InitKind::depth_scaled: return ParamInit::uniform(std::sqrt(6.0 / sum / depth_));
    }
    return {};
}

/// What multiplies the matrices of a branch with `factors` matrices in a row, the last one aside.
double InitRules::branch_scale(int factors) const {
    if (config_.kind == InitKind::deepnorm) return std::pow(8 * layers_, -0.25);
    if (residual_ == ResidualKind::fixup) return std::pow(2 * layers_, -1.0 / (2 * factors - 2));
    return 1;
}

ParamInit InitRules::qkv(std::int64_t values) const {
    ParamInit init = matrix(width_, width_);
    if (const double scale = branch_scale(2); scale != 1) {
        init.tail = values;
        init.tail_scale = scale;
    }
    return init;
}

ParamInit InitRules::ffn_input(std::int64_t hidden, bool gated) const {
    ParamInit init = matrix(width_, hidden);
    init.value *= branch_scale(gated ? 3 : 2);
    return init;
}

ParamInit InitRules::branch_output(std::int64_t in, std::int64_t out) const {
    if (residual_ == ResidualKind::fixup) return ParamInit::constant(0);
    ParamInit init = matrix(in, out);
    if (config_.kind == InitKind::gpt2) init.value /= std::sqrt(2.0 * layers_);
    if (config_.kind == InitKind::deepnorm) init.value *= branch_scale(2);
    return init;
}

ParamInit InitRules::embedding() const {
    return ParamInit::normal(config_.kind == InitKind::gpt2 ? config_.std : 1 / std::sqrt(static_cast<double>(width_)));
}

} // namespace ballast::inline BALLAST_PRECISION
