#pragma once

#include "ballast/config/keys.h"

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace ballast {

/// A scale that depends on the number of blocks: (factor * blocks)^power.
struct DepthPower {
    double factor = 1;
    double power = 0;

    double at(std::int64_t blocks) const { return std::pow(factor * static_cast<double>(blocks), power); }
    bool operator==(const DepthPower&) const = default;
};

/// Where the norms of a sublayer f sit, and how its residual is scaled. The wrapper of every sublayer is
///
///     y = post(skip * x + out(f(pre(x))))
///
/// with a norm, where the row says so, or the identity in each slot.
struct PlacementRow {
    std::string_view name; ///< in JSON
    bool pre;
    bool out;
    bool post;
    DepthPower skip;
    bool final_norm; ///< what `final_norm: auto` means: whether the stream leaves the last block without a norm
    std::string_view doc;
};

/// The placement table: the one place that knows which placements there are. A new one is a new row.
inline constexpr auto kPlacements = std::to_array<PlacementRow>({
    // name,   pre,   out,   post, skip, final
    {"pre", true, false, false, {}, true, "x + f(norm(x)) (Wang 2019, arXiv:1906.01787)"},
    {"post", false, false, true, {}, false, "norm(x + f(x)) (Vaswani 2017, arXiv:1706.03762)"},
    {"sandwich", true, true, false, {}, true, "x + norm(f(norm(x))) (Ding 2021, CogView, arXiv:2105.13290)"},
    {"branch_out", false, true, false, {}, true, "x + norm(f(x)) (OLMo 2, 2024, arXiv:2501.00656)"},
    {"deepnorm",
     false,
     false,
     true,
     {2, 0.25},
     false,
     "norm((2 layers)^(1/4) x + f(x)), made for init `deepnorm` (Wang 2022, arXiv:2203.00555)"},
    {"none", false, false, false, {}, false, "x + f(x)"},
});

/// The slots of a sublayer, given one by one.
struct Slots {
    bool pre = false;
    bool out = false;
    bool post = false;

    bool any() const { return pre || out || post; }
    bool operator==(const Slots&) const = default;
};

/// A row of the table, by its index; or slots given one by one (has_slots).
enum class Placement : std::uint8_t {};

/// A placement, or `auto`: the one of the level above.
enum class OwnPlacement : std::uint8_t { automatic };

namespace detail {
inline constexpr std::uint8_t kFirstSlots = 128; // every Placement from here on is kFirstSlots + a bit for each slot

constexpr PlacementRow slots_row(std::string_view name, unsigned bits) {
    const bool pre = (bits & 1U) != 0, out = (bits & 2U) != 0, post = (bits & 4U) != 0;
    return {name, pre, out, post, {}, !post && (pre || out), ""};
}

inline constexpr auto kSlotsRows = std::to_array<PlacementRow>({
    slots_row("slots (none)", 0),
    slots_row("slots pre", 1),
    slots_row("slots out", 2),
    slots_row("slots pre, out", 3),
    slots_row("slots post", 4),
    slots_row("slots pre, post", 5),
    slots_row("slots out, post", 6),
    slots_row("slots pre, out, post", 7),
});
} // namespace detail

/// Whether a placement is slots given one by one, rather than a row of the table.
constexpr bool has_slots(Placement placement) { return static_cast<std::uint8_t>(placement) >= detail::kFirstSlots; }

constexpr Placement placement_of(const Slots& slots) {
    const unsigned bits = (slots.pre ? 1U : 0U) | (slots.out ? 2U : 0U) | (slots.post ? 4U : 0U);
    return static_cast<Placement>(detail::kFirstSlots + bits);
}

/// The row of a placement; for slots given one by one, one that is not in the table.
constexpr const PlacementRow& placement_row(Placement placement) {
    const auto code = static_cast<std::size_t>(placement);
    return has_slots(placement) ? detail::kSlotsRows[code - detail::kFirstSlots] : kPlacements[code];
}

constexpr Slots slots_of(Placement placement) {
    const PlacementRow& row = placement_row(placement);
    return {row.pre, row.out, row.post};
}

constexpr OwnPlacement own_placement(Placement placement) {
    return static_cast<OwnPlacement>(static_cast<std::uint8_t>(placement) + 1);
}

/// `own`, or `above` where it is `auto`.
constexpr Placement placement_or(OwnPlacement own, Placement above) {
    return own == OwnPlacement::automatic ? above : static_cast<Placement>(static_cast<std::uint8_t>(own) - 1);
}

constexpr auto values_of(Placement) {
    std::array<EnumValue<Placement>, kPlacements.size()> values{};
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = {static_cast<Placement>(i), kPlacements[i].name, kPlacements[i].doc};
    return values;
}

constexpr auto values_of(OwnPlacement) {
    std::array<EnumValue<OwnPlacement>, kPlacements.size() + 1> values{};
    values[0] = {OwnPlacement::automatic, "auto", ""};
    for (std::size_t i = 0; i < kPlacements.size(); ++i)
        values[i + 1] = {own_placement(static_cast<Placement>(i)), kPlacements[i].name, ""};
    return values;
}

/// The placement's spelling in JSON; for slots given one by one, a description of them.
constexpr std::string_view to_string(Placement placement) { return placement_row(placement).name; }

/// The placement called `name`. A name that is not in the table does not compile.
consteval Placement placement_named(std::string_view name) {
    for (const auto& entry : values_of(Placement{}))
        if (entry.name == name) return entry.value;
    throw "no such placement";
}

} // namespace ballast
