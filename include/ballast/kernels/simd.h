#pragma once

#include <string>

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// The instruction set that the vector kernels run with on this machine, in Highway's words: "AVX3", "NEON".
std::string simd_name();

} // namespace ballast::inline BALLAST_PRECISION
