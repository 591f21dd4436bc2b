#pragma once

#include <cstdint>

#include "ballast/config/config.h"

namespace ballast {

/// The schedule's factor on `optimizer.lr` at a step, counted from 1 to `steps`.
///
/// Warm-up is linear: step / warmup up to step `warmup`, which has factor 1. After it, with p the share of the
/// remaining steps that are done and r = final_lr / lr: constant 1; linear 1 - (1-r) p; cosine
/// r + (1-r) (1 + cos(pi p)) / 2 (Loshchilov & Hutter, 1608.03983); wsd 1 until the last decay_fraction of the whole
/// run, then linear to r (Hu et al., 2404.06395); inverse_sqrt sqrt(max(warmup, 1) / step) (Vaswani et al. 2017,
/// section 5.3). Steps beyond `steps` keep the last step's factor.
double schedule_factor(const ScheduleConfig& schedule, double lr, std::int64_t steps, std::int64_t step);

/// Whether the factor at a step depends on `steps`, so that a run that is made longer goes on with another rate.
bool follows_length(const ScheduleConfig& schedule);

} // namespace ballast
