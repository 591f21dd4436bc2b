#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Elementwise non-linearities, parallel inside unless named `_range`.
namespace ballast::inline BALLAST_PRECISION {

enum class Activation : std::uint8_t {
    identity,
    gelu,      ///< x * Phi(x), with erf (Hendrycks & Gimpel, 1606.08415)
    gelu_tanh, ///< 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the same paper's approximation; GPT-2's
    relu,      ///< max(x, 0); the derivative at 0 is 0
    relu2,     ///< max(x, 0)^2 (So et al., Primer, 2109.08668)
    silu,      ///< x * sigmoid(x)
    sigmoid,
    tanh,
    erf,
    exp,
};

/// y = f(x), n elements. y may be x.
void activation_forward(Activation kind, real* y, const real* x, std::int64_t n);
/// dx (+)= dy * f'(x). dx.data may be dy.
void activation_backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t n);

/// The same on one thread, for use inside a task (a gemm's epilogue).
void activation_forward_range(Activation kind, real* y, const real* x, std::int64_t n);

/// y = cap * tanh(x / cap), cap > 0, n elements (logit soft-capping; Gemma 2, 2408.00118, section 2). y may be x.
/// Serial inside a task, as every parallel loop is.
void softcap_forward(real* y, const real* x, real cap, std::int64_t n);
/// dx (+)= dy * (1 - tanh(x / cap)^2). dx.data may be dy.
void softcap_backward(Grad dx, const real* dy, const real* x, real cap, std::int64_t n);

/// y = x + bias on one thread: rows of `width` with distances `stride` (bias may be null); when `kind` is not
/// identity, `pre` (same stride) receives x + bias and y receives f(x + bias). x may be y or pre.
void bias_activation_rows(Activation kind, real* y, real* pre, const real* x, const real* bias, std::int64_t rows,
                          std::int64_t width, std::int64_t stride);

/// Gated linear unit (Shazeer, 2002.05202): x is [rows, 2 width], gate first; y = f(gate) * up, [rows, width].
void glu_forward(Activation kind, real* y, const real* x, std::int64_t rows, std::int64_t width);
/// dx is [rows, 2 width].
void glu_backward(Activation kind, Grad dx, const real* dy, const real* x, std::int64_t rows, std::int64_t width);

} // namespace ballast::inline BALLAST_PRECISION
