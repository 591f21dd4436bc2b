#pragma once

#include <span>

#include "ballast/autograd/op.h"

namespace ballast::inline BALLAST_PRECISION::ops {

/// Every op there is, in a fixed order. Gradient checks and invariance tests loop over this list, and a tape
/// refuses an op that is not in it.
std::span<const OpDef* const> registry();

} // namespace ballast::inline BALLAST_PRECISION::ops
