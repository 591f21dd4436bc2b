#pragma once

#include "ballast/config/keys.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ballast {

/// Where the norms of a block sit. The residual wrapper of every sublayer f is
///
///     y = post(x + out(f(pre(x))))
///
/// with a norm, where the row says so, or the identity in each slot.
struct PlacementRow {
    std::string_view name; ///< in JSON
    bool pre;
    bool out;
    bool post;
    bool final_norm; ///< what `final_norm: auto` means: whether the stream leaves the last block without a norm
    std::string_view doc;
};

/// The placement table: the one place that knows which placements there are. A new one is a new row.
inline constexpr auto kPlacements = std::to_array<PlacementRow>({
    // name,   pre,   out,   post, final
    {"pre", true, false, false, true, "x + f(norm(x)) (Wang 2019, arXiv:1906.01787)"},
    {"post", false, false, true, false, "norm(x + f(x)) (Vaswani 2017, arXiv:1706.03762)"},
    {"none", false, false, false, false, "x + f(x)"},
});

/// A row of the table, by its index.
enum class Placement : std::uint8_t {};

constexpr const PlacementRow& placement_row(Placement placement) {
    return kPlacements[static_cast<std::size_t>(placement)];
}

constexpr auto values_of(Placement) {
    std::array<EnumValue<Placement>, kPlacements.size()> values{};
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = {static_cast<Placement>(i), kPlacements[i].name, kPlacements[i].doc};
    return values;
}

/// The placement called `name`. A name that is not in the table does not compile.
consteval Placement placement_named(std::string_view name) {
    for (const auto& entry : values_of(Placement{}))
        if (entry.name == name) return entry.value;
    throw "no such placement";
}

} // namespace ballast
