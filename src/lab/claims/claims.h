#pragma once

#include "ballast/lab/claim.h"

// A file for each.

namespace ballast::literature {

extern const Claim a1, a2, a3, a4, a5;
extern const Claim b1, b2, b4, b5, b6, b8, b13, b14, b15;

} // namespace ballast::literature
