#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/train/event.h"
#include "ballast/train/step_record.h"

// How a run is judged: after the backward pass of each step and before its update.
//
// A value that is not finite is found before any statistic is fed, so no window ever holds a NaN, and a value is
// compared with a window before it becomes part of it: within its own window of n values it could not be further than
// sqrt(n - 1) standard deviations from the mean, and would widen the threshold that it is held against.

namespace ballast {

/// What the judging of a step depends on, beyond the steps before it.
struct StabilityRules {
    StabilityConfig config;
    double unigram_entropy = 0;  ///< of the data: the loss of the best model without context
    std::int64_t stall_step = 0; ///< when a run must be better than that

    /// A stall is judged at the end of warm-up plus 25 % of the run.
    StabilityRules(const Config& run, double entropy)
        : config(run.stability), unigram_entropy(entropy), stall_step(run.schedule.warmup + run.train.steps / 4) {}
};

/// What has been seen so far, a part of every checkpoint. Steps of 0 stand for "never".
struct StabilityState {
    std::vector<double> calm_losses;         ///< the last `spike_window` losses that were no spikes, oldest first
    std::vector<double> calm_gradient_norms; ///< the same of the norm of the gradient
    std::vector<double> recent_losses;       ///< the last `divergence_window` losses, oldest first
    double first_loss = std::numeric_limits<double>::quiet_NaN();
    double best_median = std::numeric_limits<double>::infinity(); ///< lowest median that recent_losses ever had
    std::int64_t loss_spikes = 0;                                 ///< steps
    std::int64_t gradient_spikes = 0;
    std::int64_t last_loss_spike = 0; ///< a spike goes on while steps follow each other
    std::int64_t last_gradient_spike = 0;
    std::int64_t non_finite_since = 0;
    std::int64_t diverged_since = 0;
    std::int64_t stalled_since = 0;
    std::int64_t remedied = 0; ///< events after which a skip or a rewind has taken the run on

    bool operator==(const StabilityState&) const = default;
};

struct StabilityField {
    std::string_view name;
    std::variant<std::vector<double> StabilityState::*, double StabilityState::*, std::int64_t StabilityState::*>
        member;
};

/// Every member of StabilityState, for checkpoints.
inline constexpr auto kStabilityFields = std::to_array<StabilityField>({
    {"calm_losses", &StabilityState::calm_losses},
    {"calm_gradient_norms", &StabilityState::calm_gradient_norms},
    {"recent_losses", &StabilityState::recent_losses},
    {"first_loss", &StabilityState::first_loss},
    {"best_median", &StabilityState::best_median},
    {"loss_spikes", &StabilityState::loss_spikes},
    {"gradient_spikes", &StabilityState::gradient_spikes},
    {"last_loss_spike", &StabilityState::last_loss_spike},
    {"last_gradient_spike", &StabilityState::last_gradient_spike},
    {"non_finite_since", &StabilityState::non_finite_since},
    {"diverged_since", &StabilityState::diverged_since},
    {"stalled_since", &StabilityState::stalled_since},
    {"remedied", &StabilityState::remedied},
});

/// What was found in one step.
struct Judgement {
    std::vector<Event> events; ///< what begins with this step
    std::string flags;         ///< kinds of all that holds at this step, separated by blanks
    /// The strictest that is asked for: stop, rewind, skip, continue. Stop and rewind are asked for when something
    /// begins, so that a run which is taken up again goes on.
    Policy policy = Policy::go_on;

    void add(Judgement other);
};

/// What the config asks for at an event of this kind; go_on for those that are no instability.
Policy policy_of(const StabilityConfig& config, std::string_view event_kind);

/// Judges a step by its loss and gradient norm and takes them into `state`. `non_finite` names what is not finite (see
/// Learner::Step); if it is not empty, no window is touched.
///
/// - spike: value - median > max(6 * 1.4826 * MAD, 5 % of the median) over the last `spike_window` values that were no
///   spikes, once there are 32 of them. 1.4826 MAD is the standard deviation of a normal distribution. A gradient norm,
///   which healthy runs scatter by factors, has to be four times the median.
/// - divergence, by the median of the last `divergence_window` losses: 5 % above the first loss of the run, or above
///   the best such median + max(1 nat, half of what that one gained on the first loss).
/// - stall: at `stall_step` that median is not 1 % below the unigram entropy of the data.
Judgement judge(const StabilityRules& rules, StabilityState& state, const StepRecord& record,
                std::string_view non_finite);

/// Where values lie, whatever a few of them do.
struct Centre {
    double median = 0;
    double mad = 0; ///< median of the distances from the median
};
inline constexpr double kDeviation = 1.4826; ///< standard deviation of a normal distribution over its MAD

/// `values` are not empty and finite.
Centre centre_of(std::vector<double> values);

/// Four digits, for sentences.
std::string short_number(double value);

/// How a run with this history is called: "non_finite", "diverged" and "stalled" while that holds, otherwise "spiky"
/// when there were spikes of the loss, or anything that a skip or rewind has remedied, and "stable". Spikes of the
/// gradient norm alone, which clipping is there for, do not make a run spiky.
std::string_view verdict_of(const StabilityState& state);

/// Share of the values that are 7 standard deviations or more away from the mean of the last 1000 values, themselves
/// included (the spike score of OLMo 2, 2501.00656, section 3.1). It cannot see a spike before the 51st value: within
/// its own window of n, a value is at most sqrt(n - 1) standard deviations from the mean. What is not finite counts as
/// a spike and is left out of every mean.
class SpikeScore {
public:
    void add(double value);
    double score() const { return count_ == 0 ? 0 : static_cast<double>(spikes_) / static_cast<double>(count_); }

private:
    std::vector<double> window_; ///< the last values, the oldest at count_ % size once it is full
    std::int64_t count_ = 0, spikes_ = 0;
};

} // namespace ballast
