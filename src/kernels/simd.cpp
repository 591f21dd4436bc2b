#include "ballast/kernels/simd.h"

#include <cstdint>
#include <hwy/targets.h>

namespace ballast::inline BALLAST_PRECISION {

std::string simd_name() {
    const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
    return hwy::TargetName(usable & -usable); // better targets have lower bits
}

} // namespace ballast::inline BALLAST_PRECISION
