#pragma once

#include <string>

#include "ballast/config/norm_layout.h"
#include "ballast/nn/params.h"

namespace ballast::inline BALLAST_PRECISION {

/// One norm of the network, of any kind; kind `none` is the identity. Parameters, as far as the kind and the config
/// have them: NAME.gain [width] (ones; zeros with a unit offset; a scalenorm's is [1] and starts at sqrt(width)),
/// NAME.bias [width] (zeros), NAME.alpha [1] and NAME.shift [1]. Buffers of a batchnorm: NAME.running_mean and
/// NAME.running_variance [width].
struct Norm {
    std::string name;
    NormSpec spec;
    Parameter gain, bias, alpha, shift;
    Buffer running_mean, running_variance;

    Norm() = default;
    Norm(ParamTable& table, const std::string& name, std::int64_t width, const NormSpec& what);

    /// x is [rows, width].
    Var operator()(Tape& tape, Var x) const;
};

} // namespace ballast::inline BALLAST_PRECISION
