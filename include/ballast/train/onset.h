#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "ballast/train/layer_record.h"

namespace ballast {

/// Where something began to go wrong.
struct Onset {
    std::int64_t step = 0;
    std::optional<std::int64_t> layer;
    std::string site;
    std::string statistic; ///< a key of layers.jsonl
    double value = 0;      ///< of the statistic at that step
    double before = 0;     ///< its median over the probes before

    /// "step 60, layer 3, attention: max_attention_logit 48.1, was 5.2"
    std::string text() const;
};

/// The first statistic of layers.jsonl to leave its range between two steps: from that probe to the last one it is not
/// finite, or above twice the median of the 32 probes before and above that + 8 * 1.4826 * MAD (attention_entropy:
/// below half the median). Of several at one step, the one that is further out. Heads count by the largest. Nothing
/// when there are fewer than four probes.
std::optional<Onset> find_onset(std::span<const LayerRecord> records, std::int64_t first_step, std::int64_t last_step);

} // namespace ballast
