#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ballast/lab/run_result.h"
#include "ballast/lab/statistics.h"
#include "ballast/lab/sweep.h"

// What a sweep has found: a row for each cell, and how much the learning rate matters.

namespace ballast {

struct SweepRow {
    SweepRun run;
    RunResult result;
};

/// Reads the row of a cell from its run directory. Throws IoError for records that are damaged.
SweepRow read_sweep_row(const SweepRun& run, const Config& config);

/// Nothing, a word, a count or a number.
using SweepValue = std::variant<std::monostate, std::string, std::int64_t, std::uint64_t, double>;

/// A column of table.csv, a key of table.json.
struct SweepColumn {
    std::string_view name;
    std::string_view unit; ///< "" for a pure number
    std::string_view meaning;
    SweepValue (*value)(const SweepRow&);
};

/// All columns but those of the settings, which stand between the first and the others, named by their axes. Everything
/// but the last two, which are times, depends on the sweep alone.
std::span<const SweepColumn> sweep_columns();

/// table.csv (RFC 4180, lines end with \n): a line of names, then the rows. Empty where there is nothing.
std::string sweep_csv(std::span<const std::string> axes, std::span<const SweepRow> rows);

/// Final losses of the runs of one seed, one for each learning rate.
struct LrPoint {
    double lr = 0;
    std::optional<double> initial_loss;
    std::optional<double> final_loss; ///< none: the run diverged
};

/// Learning rate sensitivity: the mean over learning rates of min(final loss, loss at the start), minus the least of
/// these (Wortsman et al., 2309.14322, section 2.2). A run without a final loss counts with its loss at the start. None
/// when no run has a final loss, or one has no loss at the start: S would say nothing.
std::optional<double> lr_sensitivity(std::span<const LrPoint> points);

/// That of the cells that differ in optimizer.lr and the seed alone.
struct LrSensitivity {
    std::vector<Setting> settings; ///< without the learning rate
    std::vector<double> rates;     ///< ascending
    std::vector<double> losses;    ///< for each rate, the mean over seeds of min(final loss, loss at the start)
    Sample sample;                 ///< of S, over the seeds whose runs have all ended
    std::int64_t left_out = 0;     ///< seeds with a run that has not ended, or none that has learned
    double best_rate = 0;          ///< with the lowest of `losses`
};

/// Empty unless optimizer.lr is an axis with at least two values.
std::vector<LrSensitivity> lr_sensitivities(std::span<const SweepRow> rows);

/// table.json: one object with the name, the axes, the rows and the sensitivities.
std::string sweep_json(std::string_view name, std::span<const std::string> axes, std::span<const SweepRow> rows);

} // namespace ballast
