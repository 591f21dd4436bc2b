#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ballast/lab/diagnose.h"
#include "ballast/lab/run_result.h"
#include "ballast/train/run_directory.h"

// Runs as one HTML page that needs nothing but itself: charts, verdicts and their evidence, configs, environments.

namespace ballast {

/// A run, as a page shows it.
struct ReportedRun {
    std::filesystem::path path;
    std::string label; ///< name of the directory, or its path where two runs have the same name
    RunRecord record;
    std::optional<RunSummary> summary; ///< not there while the run goes on, or when it was killed
    RunResult result;                  ///< what sweep and compare make of it
    std::string summary_json;          ///< the file, with what a later version may have added; empty: no summary
    std::string environment_json;      ///< the same
};

/// A run that could not be read, and why.
struct UnreadableRun {
    std::filesystem::path path;
    std::string problem;
};

struct Report {
    std::vector<ReportedRun> runs; ///< in the order in which they were named, each once
    std::vector<UnreadableRun> unreadable;
};

/// Reads run directories, also of runs that go on. What is wrong with one does not keep the others out.
Report read_report(std::span<const std::filesystem::path> runs);

/// A point of the curve of final loss against learning rate.
struct RatePoint {
    double lr = 0;
    double loss = 0;       ///< min(final loss, loss at the start), which is also that of a run that ended early
    bool diverged = false; ///< or met a value that is not finite
    std::size_t run = 0;   ///< of Report::runs
};

/// Runs that differ in nothing but their learning rate, its end, seed and name.
struct RateCurve {
    std::string label;             ///< "post", "pre, model.qk_norm true"; empty: there is one curve
    std::vector<RatePoint> points; ///< by learning rate
    /// lr_sensitivity() of a sweep: the mean over the seeds that have every learning rate, with its standard error
    /// where there are several. Not there for a single learning rate.
    std::optional<double> sensitivity;
    std::optional<double> standard_error;
};

struct RateCurves {
    std::vector<RateCurve> curves; ///< empty: none has two learning rates
    bool validation = false;       ///< whether a run has a validation loss; see RunResult::final_loss
    bool training = false;         ///< whether a run has none
};

/// Final loss against learning rate. Unfinished runs, and those without a finite loss at the start, are left out.
RateCurves rate_curves(const Report& report);

/// The page, in UTF-8. Equal records give equal pages. A run of more than kMostPoints steps is drawn as the mean,
/// lowest and highest value of groups of consecutive steps, and the page says so.
std::string report_page(const Report& report);
inline constexpr std::int64_t kMostPoints = 20000;

/// The JSON object that the page draws, in ASCII and without a `<`; src/lab/report_data.cpp has its keys.
std::string report_data(const Report& report);

} // namespace ballast
