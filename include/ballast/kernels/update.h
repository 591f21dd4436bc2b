#pragma once

#include <cstdint>

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// What one optimizer step did to one range of parameters, for the stability record.
struct UpdateStats {
    double update_squares = 0;    ///< sum of (new - old)^2
    double parameter_squares = 0; ///< sum of new^2
    bool finite = true;           ///< no new parameter is NaN or infinite
};

struct AdamWStep {
    real lr;             ///< learning rate of this step
    real beta1, beta2;   ///< decay of the moments
    real eps;            ///< added to the root, as in the paper's algorithm 1
    real correction1;    ///< 1 / (1 - beta1^t)
    real correction2;    ///< 1 / (1 - beta2^t)
    real decay;          ///< fraction of the parameter removed: lr * weight_decay when coupled to the learning rate
    real gradient_scale; ///< the clip coefficient
};

/// One fused pass over n parameters (Loshchilov & Hutter, 1711.05101, algorithm 2): g = gradient_scale * gradient;
/// m = beta1 m + (1-beta1) g; v = beta2 v + (1-beta2) g^2;
/// p = p - decay p - lr * (m correction1) / (sqrt(v correction2) + eps). Parallel in fixed chunks.
UpdateStats adamw_update(real* p, real* m, real* v, const real* gradient, std::int64_t n, const AdamWStep& step);

struct SgdStep {
    real lr;
    real momentum; ///< 0 leaves `velocity` unused (it may be null)
    bool nesterov;
    real decay; ///< as in AdamWStep
    real gradient_scale;
};

/// velocity = momentum * velocity + g; p = p - decay p - lr * (nesterov ? g + momentum * velocity : velocity).
UpdateStats sgd_update(real* p, real* velocity, const real* gradient, std::int64_t n, const SgdStep& step);

} // namespace ballast::inline BALLAST_PRECISION
