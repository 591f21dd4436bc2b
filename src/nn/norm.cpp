#include "ballast/nn/norm.h"

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION {

Norm::Norm(ParamTable& table, const std::string& name, std::int64_t width, const NormConfig& config)
    : name(name), kind(config.kind), eps(config.eps) {
    if (kind == NormKind::none) return;
    if (config.gain) gain = table.add(name + ".gain", {width}, ParamInit::constant(1), DecayGroup::no_decay);
    if (kind == NormKind::layernorm && config.bias == Switch::on)
        bias = table.add(name + ".bias", {width}, ParamInit::constant(0), DecayGroup::no_decay);
}

Var Norm::operator()(Tape& tape, Var x) const {
    const Tape::Site site(tape, name);
    switch (kind) {
    case NormKind::none: return x;
    case NormKind::layernorm: return ops::layernorm(tape, x, gain(tape), bias(tape), eps);
    case NormKind::rmsnorm: return ops::rmsnorm(tape, x, gain(tape), eps);
    }
    return x;
}

} // namespace ballast::inline BALLAST_PRECISION
