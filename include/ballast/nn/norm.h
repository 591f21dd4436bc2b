#pragma once

#include <string>

#include "ballast/config/config.h"
#include "ballast/nn/params.h"

namespace ballast::inline BALLAST_PRECISION {

/// One norm of the network, of any kind; kind `none` is the identity. Parameters NAME.gain (ones) and NAME.bias (zeros)
/// [width], as far as the kind and the config have them.
struct Norm {
    std::string name;
    NormKind kind = NormKind::none;
    double eps = 0;
    Parameter gain;
    Parameter bias;

    Norm() = default;
    /// `config` is resolved: its bias is on or off.
    Norm(ParamTable& table, const std::string& name, std::int64_t width, const NormConfig& config);

    Var operator()(Tape& tape, Var x) const;
};

} // namespace ballast::inline BALLAST_PRECISION
