#pragma once

#include <cstdint>

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// Whether a result is so large that no cache holds it until it is used.
constexpr bool beyond_cache(std::int64_t elements) {
    return elements * static_cast<std::int64_t>(sizeof(real)) >= (std::int64_t{32} << 20);
}

/// Long rows leave no room in the first-level cache for what the processor foresees, and for what belongs to the
/// columns.
constexpr std::int64_t kLongRow = 8192 / sizeof(real);

} // namespace ballast::inline BALLAST_PRECISION
