#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "ballast/config/describe.h"

namespace ballast {

/// Something that happened in a run: one line of events.jsonl. kEventFields says what each member means.
struct Event {
    std::int64_t step = 0;
    std::string kind = {};
    std::string message = {};
    std::optional<double> value = {};
    std::optional<double> threshold = {};
    std::optional<double> median = {};
    std::optional<double> mad = {};
    std::optional<std::int64_t> window = {};
    std::optional<std::int64_t> batch = {};
    std::optional<std::string> batch_checksum = {};
};

/// A run was taken up again, with these settings changed.
Event resume_event(std::int64_t step, std::span<const KeyDifference> changes);

/// What a resume changed: "optimizer.lr from 0.002 to 0.1, train.steps from 200 to 400"; empty: nothing.
std::string_view resume_changes(const Event& event);

/// A member of Event: its name in JSON, its unit ("" for a pure number or a text), and one sentence.
struct EventField {
    using Member = std::variant<std::int64_t Event::*, std::string Event::*, std::optional<double> Event::*,
                                std::optional<std::int64_t> Event::*, std::optional<std::string> Event::*>;

    std::string_view name;
    std::string_view unit;
    std::string_view meaning;
    Member member;
};

/// Every member of Event, in the order in which they are written. Writer, reader and documentation walk this list.
inline constexpr auto kEventFields = std::to_array<EventField>({
    {"step", "", "The step that it belongs to; 0: before the first.", &Event::step},
    {"kind", "", "non_finite, loss_spike, gradient_spike, divergence, stall, rewind, resume, graft or interrupted.",
     &Event::kind},
    {"message", "", "A sentence for people.", &Event::message},
    {"value", "", "The number that was judged.", &Event::value},
    {"threshold", "", "What it was compared with.", &Event::threshold},
    {"median", "", "Median of the values that the threshold comes from.", &Event::median},
    {"mad", "", "Their median absolute deviation from it.", &Event::mad},
    {"window", "", "How many they are.", &Event::window},
    {"batch", "", "Number of the batch: with the seed, it says which windows of the data the step has seen.",
     &Event::batch},
    {"batch_checksum", "", "Checksum of the batch's tokens, 16 hexadecimal digits.", &Event::batch_checksum},
});

} // namespace ballast
