#pragma once

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// Where a backward kernel puts the gradient of one of its inputs. The first consumer to run in a backward pass
/// writes (add = false: the memory holds rubbish), later ones add. `data` is null when nobody wants this gradient.
struct Grad {
    real* data = nullptr;
    bool add = false;

    explicit operator bool() const { return data != nullptr; }
};

} // namespace ballast::inline BALLAST_PRECISION
