#pragma once

#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Bounded functions in the place of a norm: y = gain * f(alpha * x + shift) + bias, elementwise, with learned scalars
// alpha and shift. f = tanh is DyT (Zhu et al., 2503.10622; shift 0), f = erf is Derf (Chen et al., 2512.10938).
namespace ballast::inline BALLAST_PRECISION {

enum class Squash : std::uint8_t { tanh, erf };

/// x, y [rows, width]; gain, bias [width] or null (1 and 0).
void squash_forward(Squash kind, real* y, const real* x, real alpha, real shift, const real* gain, const real* bias,
                    std::int64_t rows, std::int64_t width);

/// Written in this order, which matters where two share their memory.
struct SquashGrads {
    Grad x;
    Grad gain;
    Grad bias;
    Grad alpha; ///< a scalar
    Grad shift; ///< a scalar
};

/// Sums over rows go through partial buffers, one per fixed-size group of rows. `scratch` holds them during the call.
void squash_backward(Squash kind, const SquashGrads& grads, const real* dy, const real* x, real alpha, real shift,
                     const real* gain, std::int64_t rows, std::int64_t width, Arena& scratch);

} // namespace ballast::inline BALLAST_PRECISION
