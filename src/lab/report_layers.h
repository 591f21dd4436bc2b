#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/train/layer_record.h"

namespace ballast {

/// A statistic of each block, and of what stands outside the blocks, at each probe.
struct LayerTable {
    std::vector<std::string> rows; ///< from the input to the output: "embedding", "0", "1", "final_norm"
    /// For each row the value at each of LayerHistory::steps; none where it was not measured.
    std::vector<std::vector<std::optional<double>>> values;
};

/// What layers.jsonl says of the blocks.
struct LayerHistory {
    std::vector<std::int64_t> steps;
    std::vector<LayerTable> tables; ///< as kLayerTables
};

/// How the values that one block has at one probe become one.
enum class Gather { root_sum_of_squares, largest, smallest, median, last };

struct LayerTableKind {
    std::string_view name; ///< of the statistic in layers.jsonl
    Gather gather;
};

inline constexpr auto kLayerTables = std::to_array<LayerTableKind>({
    {"gradient_norm", Gather::root_sum_of_squares}, // that of all the block's parameters together
    {"stream_rms", Gather::last},                   // behind the block
    {"update_ratio", Gather::median},               // of its parameters; one that starts at 0 would be the largest
    {"max_attention_logit", Gather::largest},       // of its heads
    {"attention_entropy", Gather::smallest},
    {"branch_ratio", Gather::largest}, // of its two branches
    {"angular_distance", Gather::last},
    {"dead_share", Gather::last},
});

LayerHistory layer_history(std::span<const LayerRecord> records);

} // namespace ballast
