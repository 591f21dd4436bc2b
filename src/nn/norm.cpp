#include "ballast/nn/norm.h"

#include <cmath>

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION {

Norm::Norm(ParamTable& table, const std::string& name, std::int64_t width, const NormSpec& what)
    : name(name), spec(what) {
    const auto add = [&](const char* part, std::int64_t size, double value) {
        return table.add(name + part, {size}, ParamInit::constant(value), DecayGroup::no_decay);
    };
    if (spec.kind == NormKind::scalenorm)
        gain = add(".gain", 1, std::sqrt(static_cast<double>(width)));
    else if (spec.gain)
        gain = add(".gain", width, spec.unit_offset ? 0 : 1);
    if (spec.bias) bias = add(".bias", width, 0);
    if (spec.kind == NormKind::dyt || spec.kind == NormKind::derf) alpha = add(".alpha", 1, spec.alpha);
    if (spec.kind == NormKind::derf) shift = add(".shift", 1, spec.shift);
    if (spec.kind == NormKind::batchnorm) {
        running_mean = table.add_buffer(name + ".running_mean", {width}, 0);
        running_variance = table.add_buffer(name + ".running_variance", {width}, 1);
    }
}

Var Norm::operator()(Tape& tape, Var x) const {
    const Tape::Site site(tape, name);
    switch (spec.kind) {
    case NormKind::none: return x;
    case NormKind::layernorm: return ops::layernorm(tape, x, gain(tape), bias(tape), spec.eps);
    case NormKind::rmsnorm: return ops::rmsnorm(tape, x, gain(tape), spec.eps, {spec.unit_offset, spec.partial});
    case NormKind::batchnorm:
        return ops::batchnorm(tape, x, gain(tape), bias(tape), running_mean(tape), running_variance(tape), spec.eps);
    case NormKind::scalenorm: return ops::scalenorm(tape, x, gain(tape), spec.eps);
    case NormKind::dyt: return ops::dyt(tape, x, alpha(tape), gain(tape), bias(tape));
    case NormKind::derf: return ops::derf(tape, x, alpha(tape), shift(tape), gain(tape), bias(tape));
    }
    return x;
}

} // namespace ballast::inline BALLAST_PRECISION
