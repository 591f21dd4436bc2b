#include "ballast/train/event.h"

namespace ballast {

Event resume_event(std::int64_t step, std::span<const KeyDifference> changes) {
    std::string message = "went on from step " + std::to_string(step);
    for (const KeyDifference& change : changes)
        message += ", " + change.path + " from " + change.a + " to " + change.b;
    return {.step = step, .kind = "resume", .message = std::move(message)};
}

std::string_view resume_changes(const Event& event) {
    const std::string_view message = event.message;
    const std::size_t comma = message.find(", ");
    return comma == std::string_view::npos ? std::string_view() : message.substr(comma + 2);
}

} // namespace ballast
