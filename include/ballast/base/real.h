#pragma once

// The engine (kernels, autograd, ops, nn) computes in `real`, which is float. The gradient tests compile the same
// sources a second time with `real = double`; everything that mentions `real` therefore lives in
// `namespace ballast::inline BALLAST_PRECISION`, so that mixing the two builds in one program fails to link
// instead of corrupting memory.
#ifdef BALLAST_DOUBLE
#define BALLAST_PRECISION f64
#else
#define BALLAST_PRECISION f32
#endif

namespace ballast::inline BALLAST_PRECISION {
#ifdef BALLAST_DOUBLE
using real = double;
#else
using real = float;
#endif
} // namespace ballast::inline BALLAST_PRECISION
