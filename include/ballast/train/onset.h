#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ballast/config/config.h"
#include "ballast/train/event.h"
#include "ballast/train/layer_record.h"

namespace ballast {

/// Where something began to go wrong.
struct Onset {
    std::int64_t step = 0;
    std::optional<std::int64_t> layer;
    std::string site;      ///< as in layers.jsonl, or kResumeSite
    std::string statistic; ///< a key of layers.jsonl; of a resume, the settings that it changed
    double value = 0;      ///< of the statistic at that step
    double before = 0;     ///< its median over the probes before

    /// "step 60, layer 3, attention: max_attention_logit 48.1, was 5.2", or
    /// "step 201, resumed with optimizer.lr from 0.002 to 0.1"
    std::string text() const;
};

inline constexpr std::string_view kResumeSite = "resume";

/// The first statistic of layers.jsonl to leave its range between two steps: from that probe to the last one it is not
/// finite, or above twice the median of the 32 probes before and above that + 8 * 1.4826 * MAD. attention_entropy falls
/// below half the median; gradient_rms may also fall, below an eighth. What was 0 has no
/// range, and a dead_share up to 0.25 and a gain_spread up to 0.1 are in theirs whatever they were. Of several at one
/// step, the one that is further out. Heads count by the largest. Nothing when there are fewer than four probes.
std::optional<Onset> find_onset(std::span<const LayerRecord> records, std::int64_t first_step, std::int64_t last_step);

/// The last resume with another config of model, optimizer, schedule, loss, data or batch whose first step is between
/// two steps; or of train.steps, where the `schedule` follows it.
std::optional<Onset> resume_onset(std::span<const Event> events, const ScheduleConfig& schedule,
                                  std::int64_t first_step, std::int64_t last_step);

} // namespace ballast
