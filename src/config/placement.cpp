#include "ballast/config/placement.h"

#include <array>

#include "ballast/base/error.h"

namespace ballast {

namespace {
constexpr std::array kPlacements{
    PlacementRow{Placement::pre, true, false, false, true},
    PlacementRow{Placement::post, false, false, true, false},
    PlacementRow{Placement::none, false, false, false, false},
};
} // namespace

const PlacementRow& placement_row(Placement placement) {
    for (const PlacementRow& row : kPlacements)
        if (row.placement == placement) return row;
    throw Error("a placement without a row in the placement table");
}

} // namespace ballast
