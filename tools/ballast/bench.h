#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "command.h"

// What the benchmarks of `ballast bench` share.

struct BenchOptions {
    int threads = 0;
    double seconds = 0;
    bool json = false;
    std::string compare; ///< what `bench --json` wrote before
};

/// Adds --threads, --seconds, --json and --compare; `seconds` of `options` is the default.
void add_bench_options(CLI::App& command, BenchOptions& options, const std::string& what_seconds_are_for);

/// Adds `bench norms` to `bench`.
void add_bench_norms(CLI::App& bench, Action& action);

/// The figures of one benchmark: measures what this machine can do at most, says so, and ends with JSON, a comparison
/// with earlier figures, or both.
class BenchReport {
public:
    /// Throws IoError or DataError for earlier figures that cannot be read or are of another benchmark, before
    /// anything is measured.
    BenchReport(std::string_view bench, const BenchOptions& options);

    /// Whether tables are to be printed.
    bool prints() const { return !json_; }
    double peak_flops() const { return peak_flops_; }
    double bandwidth() const { return bandwidth_; }

    /// Ends it; `members` are the figures as members of a JSON object. Returns an ExitStatus.
    int finish(std::vector<std::pair<std::string_view, std::string>> members) const;

private:
    std::string_view bench_;
    bool json_;
    std::string earlier_path_;
    std::string earlier_;
    double peak_flops_ = 0;
    double bandwidth_ = 0;
};

/// "12.3 ms", "850 us": three digits.
std::string short_time(double seconds);
/// "4.1 %".
std::string percent(double share);
