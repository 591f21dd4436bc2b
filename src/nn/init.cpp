#include "ballast/nn/init.h"

#include <cmath>

namespace ballast::inline BALLAST_PRECISION {

ParamInit InitRules::matrix(std::int64_t in, std::int64_t out) const {
    switch (config_.kind) {
    case InitKind::gpt2: return ParamInit::normal(config_.std);
    case InitKind::xavier: return ParamInit::uniform(std::sqrt(6.0 / static_cast<double>(in + out)));
    case InitKind::fan_in: return ParamInit::normal(1 / std::sqrt(static_cast<double>(in)));
    }
    return {};
}

ParamInit InitRules::branch_output(std::int64_t in, std::int64_t out) const {
    ParamInit init = matrix(in, out);
    if (config_.kind == InitKind::gpt2) init.value /= std::sqrt(2.0 * static_cast<double>(layers_));
    return init;
}

ParamInit InitRules::embedding(std::int64_t width) const {
    return ParamInit::normal(config_.kind == InitKind::gpt2 ? config_.std : 1 / std::sqrt(static_cast<double>(width)));
}

} // namespace ballast::inline BALLAST_PRECISION
