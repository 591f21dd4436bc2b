#pragma once

#include "ballast/config/config.h"

namespace ballast {

/// Where the norms of a block sit: a row of the placement table. The residual wrapper of every sublayer f is
///
///     y = post(x + out(f(pre(x))))
///
/// with a norm or the identity in each slot.
struct PlacementRow {
    Placement placement;
    bool pre;
    bool out;
    bool post;
    bool final_norm; ///< what `final_norm: auto` means: whether the stream leaves the last block without a norm
};

/// The row of a placement.
const PlacementRow& placement_row(Placement placement);

} // namespace ballast
