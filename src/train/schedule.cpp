#include "ballast/train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ballast {

double schedule_factor(const ScheduleConfig& schedule, double lr, std::int64_t steps, std::int64_t step) {
    step = std::clamp<std::int64_t>(step, 1, std::max<std::int64_t>(steps, 1));
    const std::int64_t warmup = schedule.warmup;
    if (step < warmup) return static_cast<double>(step) / static_cast<double>(warmup);

    const double last = lr > 0 ? schedule.final_lr / lr : 0;
    /// Share of the way from step `from` (0) to the last step (1).
    const auto progress = [&](double from) {
        const double length = static_cast<double>(steps) - from;
        return length > 0 ? std::clamp((static_cast<double>(step) - from) / length, 0.0, 1.0) : 0.0;
    };
    switch (schedule.kind) {
    case ScheduleKind::constant: return 1;
    case ScheduleKind::linear: return 1 - (1 - last) * progress(static_cast<double>(warmup));
    case ScheduleKind::cosine:
        return last + (1 - last) * (1 + std::cos(std::numbers::pi * progress(static_cast<double>(warmup)))) / 2;
    case ScheduleKind::wsd: {
        const double start = static_cast<double>(steps) * (1 - schedule.decay_fraction);
        return 1 - (1 - last) * progress(std::max(start, static_cast<double>(warmup)));
    }
    case ScheduleKind::inverse_sqrt:
        return std::sqrt(static_cast<double>(std::max<std::int64_t>(warmup, 1)) / static_cast<double>(step));
    }
    return 1;
}

bool follows_length(const ScheduleConfig& schedule) {
    return schedule.kind != ScheduleKind::constant && schedule.kind != ScheduleKind::inverse_sqrt;
}

} // namespace ballast
