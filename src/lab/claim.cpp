#include "ballast/lab/claim.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "lab/claims/claims.h"

namespace ballast {

namespace {

constexpr double kNoise = 2; ///< standard errors

ClaimVerdict judge(double value, bool holds) {
    if (!std::isfinite(value)) return ClaimVerdict::inconclusive;
    return holds ? ClaimVerdict::pass : ClaimVerdict::fail;
}

} // namespace

std::string_view to_string(ClaimVerdict verdict) {
    switch (verdict) {
    case ClaimVerdict::fail: return "FAIL";
    case ClaimVerdict::inconclusive: return "INCONCLUSIVE";
    case ClaimVerdict::pass: return "PASS";
    }
    return "?";
}

void ClaimResult::report(std::string name, double value) { figures.push_back({std::move(name), value, "", {}}); }

void ClaimResult::require_within(std::string name, double value, double low, double high) {
    figures.push_back({std::move(name), value, number_text(low) + " to " + number_text(high),
                       judge(value, value >= low && value <= high)});
}

void ClaimResult::require_at_least(std::string name, double value, double limit) {
    figures.push_back({std::move(name), value, ">= " + number_text(limit), judge(value, value >= limit)});
}

void ClaimResult::require_at_most(std::string name, double value, double limit) {
    figures.push_back({std::move(name), value, "<= " + number_text(limit), judge(value, value <= limit)});
}

void ClaimResult::require(std::string name, bool holds) {
    figures.push_back({std::move(name), holds ? 1.0 : 0.0, "1", judge(0, holds)});
}

void ClaimResult::require_above_noise(std::string name, const Sample& difference) {
    const double value = difference.standard_error() ? difference.mean / *difference.standard_error()
                                                     : std::numeric_limits<double>::quiet_NaN();
    const bool decided = std::abs(value) > kNoise;
    figures.push_back({std::move(name), value, "> " + number_text(kNoise),
                       decided ? judge(value, value > 0) : ClaimVerdict::inconclusive});
}

ClaimVerdict ClaimResult::verdict() const {
    ClaimVerdict worst = ClaimVerdict::pass;
    bool judged = false;
    for (const ClaimFigure& figure : figures) {
        if (figure.expected.empty()) continue;
        judged = true;
        worst = std::min(worst, figure.verdict);
    }
    return judged ? worst : ClaimVerdict::inconclusive;
}

std::string_view ClaimRun::setting(std::string_view axis) const {
    for (const Setting& setting : run.settings)
        if (setting.axis == axis) return setting.value;
    return "";
}

std::vector<const ClaimRun*> ClaimRuns::with(std::string_view sweep, std::initializer_list<Setting> settings) const {
    std::vector<const ClaimRun*> found;
    const auto runs = sweeps.find(sweep);
    if (runs == sweeps.end()) return found;
    for (const ClaimRun& run : runs->second)
        if (std::all_of(settings.begin(), settings.end(),
                        [&](const Setting& wanted) { return run.setting(wanted.axis) == wanted.value; }))
            found.push_back(&run);
    return found;
}

std::span<const Claim* const> claims() {
    static constexpr auto kClaims = std::to_array<const Claim*>(
        {&literature::a1, &literature::a2, &literature::a3, &literature::a4, &literature::a5, &literature::b1,
         &literature::b2, &literature::b4, &literature::b5, &literature::b6, &literature::b8, &literature::b13,
         &literature::b14, &literature::b15});
    return kClaims;
}

const Claim& claim_named(std::string_view name) {
    std::string lower(name);
    std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
    std::vector<std::string_view> names;
    for (const Claim* claim : claims()) {
        if (claim->name == lower) return *claim;
        names.push_back(claim->name);
    }
    throw UsageError(printable(name, 60) + ": no such claim; expected " + any_of(names));
}

} // namespace ballast
