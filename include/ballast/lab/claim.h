#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/lab/run_result.h"
#include "ballast/lab/statistics.h"
#include "ballast/lab/sweep.h"

// Published claims, run again. A claim is one file in src/lab/claims: its criterion, fixed before the run, its source,
// a note on what is disputed or does not show at this size, and the function that measures. What it has to train are
// sweeps, files in configs/claims, which whoever reproduces it runs first.

namespace ballast {

/// From the worst on.
enum class ClaimVerdict : std::uint8_t { fail, inconclusive, pass };
/// "FAIL", "INCONCLUSIVE", "PASS".
std::string_view to_string(ClaimVerdict verdict);

/// A number that was measured.
struct ClaimFigure {
    std::string name;
    double value = std::numeric_limits<double>::quiet_NaN();
    std::string expected; ///< what the criterion asks of it: ">= 3"; empty: reported, and not judged
    ClaimVerdict verdict = ClaimVerdict::pass;
};

struct ClaimSeries {
    std::string name;
    std::vector<std::pair<double, double>> points;
};

/// Lines through points; what is not finite, or not positive on a logarithmic axis, is left out.
struct ClaimChart {
    std::string title, x, y;
    bool log_x = false, log_y = false;
    std::vector<ClaimSeries> series;
};

/// What a claim came to.
struct ClaimResult {
    std::vector<ClaimFigure> figures;
    ClaimChart chart;
    std::vector<std::string> remarks; ///< a sentence each

    /// A number that is reported and not judged.
    void report(std::string name, double value);
    /// Numbers that the criterion asks something of. One that is not finite decides nothing.
    void require_within(std::string name, double value, double low, double high);
    void require_at_least(std::string name, double value, double limit);
    void require_at_most(std::string name, double value, double limit);
    /// Whether something holds; the value is 1 where it does.
    void require(std::string name, bool holds);
    /// The value is the mean over its standard error, which has to be above 2; between -2 and 2 nothing is decided.
    void require_above_noise(std::string name, const Sample& difference);

    /// FAIL when a figure fails, else INCONCLUSIVE when one decides nothing or none is judged, else PASS.
    ClaimVerdict verdict() const;
};

/// A run of a claim's sweep, which may have diverged.
struct ClaimRun {
    SweepRun run;
    Config config;
    RunResult result;

    /// Its value on an axis of the sweep; empty where there is no such axis.
    std::string_view setting(std::string_view axis) const;
};

/// What a claim measures on: the runs of its sweeps, all of which have ended.
struct ClaimRuns {
    std::map<std::string, std::vector<ClaimRun>, std::less<>> sweeps; ///< by name, in the order of the grid
    std::filesystem::path directory; ///< for what a claim trains itself; is kept for its next start
    const std::atomic<bool>* interrupt = nullptr;

    /// The runs of a sweep that have these settings: with({"variant", "post"}).
    std::vector<const ClaimRun*> with(std::string_view sweep, std::initializer_list<Setting> settings = {}) const;
};

/// A sweep of a claim.
struct ClaimSweep {
    std::string_view name; ///< of configs/claims/NAME.json and of the sweep
    /// The sweep whose run of the same seed its runs start from (`init_from`), before it in the list; empty: none.
    std::string_view from = {};
};

struct Claim {
    std::string_view name; ///< "a1"
    std::string_view title;
    std::string_view source;
    std::string_view criterion;
    std::string_view note;
    /// Why the criterion is another one than at the first run; empty: it is not.
    std::string_view revision;
    std::span<const ClaimSweep> sweeps; ///< none: takes seconds
    ClaimResult (*measure)(const ClaimRuns&);
};

/// All claims, in the order of their names.
std::span<const Claim* const> claims();

/// The one called `name`, in letters of any case. Throws UsageError, with the nearest one.
const Claim& claim_named(std::string_view name);

} // namespace ballast
