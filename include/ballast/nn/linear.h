#pragma once

#include <string>

#include "ballast/nn/params.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION {

/// y = f(x W^T + b); parameters NAME.weight [out, in] and, if wanted, NAME.bias [out] (zeros at the start).
struct Linear {
    std::string name;
    Parameter weight;
    Parameter bias;
    Activation activation = Activation::identity;

    Linear() = default;
    Linear(ParamTable& table, const std::string& name, std::int64_t in, std::int64_t out, ParamInit init, bool has_bias,
           Activation f = Activation::identity)
        : name(name), weight(table.add(name + ".weight", {out, in}, init, DecayGroup::decay)), activation(f) {
        if (has_bias) bias = table.add(name + ".bias", {out}, ParamInit::constant(0), DecayGroup::no_decay);
    }

    Var operator()(Tape& tape, Var x) const {
        const Tape::Site site(tape, name);
        return ops::linear(tape, x, weight(tape), bias(tape), activation);
    }
};

} // namespace ballast::inline BALLAST_PRECISION
