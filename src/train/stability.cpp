#include "ballast/train/stability.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>
#include <utility>

#include "ballast/base/text.h"

namespace ballast {

namespace {

constexpr std::size_t kFewestValues = 32;
constexpr double kSpikeDeviations = 6;
constexpr double kLeastRise = 0.05; ///< of the median or of the first loss
/// Of the median: from batch to batch the gradient norm of a healthy run doubles and trebles.
constexpr double kLeastGradientRise = 3;
constexpr double kLeastGap = 1;     ///< nats
constexpr double kLeastGain = 0.01; ///< on the unigram entropy

double median_of(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (values.size() % 2 == 1) return *middle;
    return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

void push(std::vector<double>& values, double value, std::int64_t capacity) {
    values.push_back(value);
    const auto most = static_cast<std::size_t>(capacity);
    if (values.size() > most) values.erase(values.begin(), values.end() - static_cast<std::ptrdiff_t>(most));
}

/// When a step shows several things, the strictest policy wins.
Policy stricter(Policy a, Policy b) {
    for (const Policy policy : {Policy::stop, Policy::rewind, Policy::skip})
        if (a == policy || b == policy) return policy;
    return Policy::go_on;
}

class Judge {
public:
    Judge(const StabilityRules& rules, StabilityState& state, const StepRecord& record)
        : rules_(rules), state_(state), record_(record) {}

    void non_finite(std::string_view what) {
        flag("non_finite", policy_of(rules_.config, "non_finite"));
        if (goes_on(state_.non_finite_since)) return;
        Event& event = begin("non_finite", std::string(what) + " is not finite");
        event.value = record_.loss;
    }

    /// A loss or gradient norm and what is known of the calm ones before it.
    void spike(std::string_view kind, std::string_view name, double value, double least_rise, std::vector<double>& calm,
               std::int64_t& count, std::int64_t& last) {
        if (calm.size() >= kFewestValues) {
            const Centre centre = centre_of(calm);
            const double rise =
                std::max(kSpikeDeviations * kDeviation * centre.mad, least_rise * std::abs(centre.median));
            if (value - centre.median > rise) {
                const bool goes_on = last == record_.step - 1;
                const Policy policy = policy_of(rules_.config, kind);
                flag(kind, goes_on && policy != Policy::skip ? Policy::go_on : policy);
                ++count;
                last = record_.step;
                if (goes_on) return;
                Event& event = begin(kind, std::string(name) + " " + short_number(value) + ", above " +
                                               short_number(centre.median + rise));
                event.value = value;
                event.threshold = centre.median + rise;
                event.median = centre.median;
                event.mad = centre.mad;
                event.window = static_cast<std::int64_t>(calm.size());
                return;
            }
        }
        push(calm, value, rules_.config.spike_window);
    }

    void recent_losses() {
        std::vector<double>& recent = state_.recent_losses;
        if (std::isnan(state_.first_loss)) state_.first_loss = record_.loss;
        push(recent, record_.loss, rules_.config.divergence_window);
        if (static_cast<std::int64_t>(recent.size()) < rules_.config.divergence_window) return;
        const Centre centre = centre_of(recent);
        divergence(centre);
        stall(centre);
        state_.best_median = std::min(state_.best_median, centre.median);
    }

    Judgement take() { return std::move(judgement_); }

private:
    void divergence(const Centre& centre) {
        const double from_first = (1 + kLeastRise) * state_.first_loss;
        const double gap = std::max(kLeastGap, (state_.first_loss - state_.best_median) / 2);
        const double threshold = std::min(from_first, state_.best_median + gap);
        if (centre.median <= threshold) {
            state_.diverged_since = 0;
            return;
        }
        if (goes_on(state_.diverged_since)) return flag("divergence", Policy::go_on);
        flag("divergence", policy_of(rules_.config, "divergence"));
        describe(begin("divergence", recent_text(centre) + ", above " + short_number(threshold)), centre, threshold);
    }

    void stall(const Centre& centre) {
        // A run that has learned the frequencies alone stays at their entropy, now above and now below it.
        const double threshold = (1 - kLeastGain) * rules_.unigram_entropy;
        const bool better = centre.median < threshold;
        if (better) state_.stalled_since = 0;
        if (better || record_.step < rules_.stall_step) return;
        // A run that has learned something and lost it again has diverged or is about to.
        if (state_.stalled_since == 0 && state_.best_median < threshold) return;
        if (goes_on(state_.stalled_since)) return flag("stall", Policy::go_on);
        flag("stall", policy_of(rules_.config, "stall"));
        describe(begin("stall", recent_text(centre) + ", not 1 % below the unigram entropy of the data, " +
                                    short_number(rules_.unigram_entropy)),
                 centre, threshold);
    }

    /// Whether something has held before this step; if not, it does from now on.
    bool goes_on(std::int64_t& since) const {
        if (since != 0) return true;
        since = record_.step;
        return false;
    }

    std::string recent_text(const Centre& centre) const {
        return "median loss " + short_number(centre.median) + " over " + std::to_string(state_.recent_losses.size()) +
               " steps";
    }

    void describe(Event& event, const Centre& centre, double threshold) const {
        event.value = event.median = centre.median;
        event.threshold = threshold;
        event.mad = centre.mad;
        event.window = static_cast<std::int64_t>(state_.recent_losses.size());
    }

    void flag(std::string_view kind, Policy policy) {
        if (!judgement_.flags.empty()) judgement_.flags += ' ';
        judgement_.flags += kind;
        judgement_.policy = stricter(judgement_.policy, policy);
    }

    Event& begin(std::string_view kind, std::string message) {
        Event& event = judgement_.events.emplace_back();
        event.step = record_.step;
        event.kind = kind;
        event.message = std::move(message);
        return event;
    }

    const StabilityRules& rules_;
    StabilityState& state_;
    const StepRecord& record_;
    Judgement judgement_;
};

} // namespace

Policy policy_of(const StabilityConfig& config, std::string_view event_kind) {
    if (event_kind == "non_finite") return config.on_non_finite;
    if (event_kind == "loss_spike" || event_kind == "gradient_spike") return config.on_spike;
    if (event_kind == "divergence") return config.on_divergence;
    if (event_kind == "stall") return config.on_stall;
    return Policy::go_on;
}

Centre centre_of(std::vector<double> values) {
    Centre centre;
    centre.median = median_of(values);
    for (double& value : values)
        value = std::abs(value - centre.median);
    centre.mad = median_of(values);
    return centre;
}

std::string short_number(double value) {
    if (!std::isfinite(value)) return number_text(value);
    // By its digits: scaling by a power of ten, rounding and scaling back leaves 1.3599999999999998e+20.
    std::array<char, 32> digits{};
    const auto end =
        std::to_chars(digits.data(), digits.data() + digits.size(), value, std::chars_format::scientific, 3).ptr;
    std::from_chars(digits.data(), end, value);
    return number_text(value);
}

void Judgement::add(Judgement other) {
    std::move(other.events.begin(), other.events.end(), std::back_inserter(events));
    flags += (flags.empty() || other.flags.empty() ? "" : " ") + other.flags;
    policy = stricter(policy, other.policy);
}

Judgement judge(const StabilityRules& rules, StabilityState& state, const StepRecord& record,
                std::string_view non_finite) {
    Judge judge(rules, state, record);
    if (!non_finite.empty()) {
        judge.non_finite(non_finite);
        return judge.take();
    }
    state.non_finite_since = 0;
    judge.spike("loss_spike", "loss", record.loss, kLeastRise, state.calm_losses, state.loss_spikes,
                state.last_loss_spike);
    judge.spike("gradient_spike", "gradient norm", record.gradient_norm, kLeastGradientRise, state.calm_gradient_norms,
                state.gradient_spikes, state.last_gradient_spike);
    judge.recent_losses();
    return judge.take();
}

std::string_view verdict_of(const StabilityState& state) {
    if (state.non_finite_since != 0) return "non_finite";
    if (state.diverged_since != 0) return "diverged";
    if (state.stalled_since != 0) return "stalled";
    return state.loss_spikes > 0 || state.remedied > 0 ? "spiky" : "stable";
}

void SpikeScore::add(double value) {
    constexpr std::size_t kWindow = 1000;
    constexpr double kDeviations = 7;
    if (window_.size() < kWindow)
        window_.push_back(value);
    else
        window_[static_cast<std::size_t>(count_) % kWindow] = value;
    ++count_;
    if (!std::isfinite(value)) {
        ++spikes_;
        return;
    }
    // Anew for every value, in two passes: sums that values enter and leave would be spoilt for good by a large one.
    double sum = 0, squares = 0, finite = 0;
    for (const double other : window_)
        if (std::isfinite(other)) {
            sum += other;
            ++finite;
        }
    const double mean = sum / finite;
    for (const double other : window_)
        if (std::isfinite(other)) squares += (other - mean) * (other - mean);
    const double distance = std::abs(value - mean);
    if (distance > 0 && distance * distance >= kDeviations * kDeviations * squares / finite) ++spikes_;
}

} // namespace ballast
