#include <cstdio>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/kernels/peak.h"
#include "ballast/lab/bench.h"
#include "ballast/train/run_directory.h"
#include "bench.h"
#include "format.h"
#include "json.h"
#include "table.h"
#include "training.h"

using namespace ballast;

void add_bench_options(CLI::App& command, BenchOptions& options, const std::string& what_seconds_are_for) {
    constexpr double kMostSeconds = 3600;
    command.add_option("--seconds", options.seconds, what_seconds_are_for)
        ->type_name("S")
        ->check(CLI::Range(0.0, kMostSeconds))
        ->capture_default_str();
    add_threads_option(command, options.threads);
    command.add_flag("--json", options.json, "Print one JSON object");
    command.add_option("--compare", options.compare, "Earlier figures, as --json prints them: adds the ratios")
        ->type_name("FILE");
}

namespace {

BenchComparison compare(const std::string& path, const std::string& earlier, const std::string& now) {
    try {
        return compare_benchmarks(earlier, now);
    } catch (const DataError& error) {
        throw DataError(path + ": " + error.what());
    }
}

void print_comparison(const std::string& path, const BenchComparison& comparison) {
    std::printf("\nbefore: %s\n", path.c_str());
    for (const std::string& difference : comparison.machine)
        std::printf("not the same machine: %s\n", difference.c_str());
    if (comparison.figures.empty()) std::printf("no figure in common\n");
    std::vector<std::vector<std::string>> rows;
    if (!comparison.figures.empty()) rows.push_back({"time", "before", "now", "times as fast"});
    for (const FigureChange& change : comparison.figures)
        rows.push_back({change.name, short_time(change.before), short_time(change.after),
                        change.after > 0 ? format("%.2f", change.before / change.after) : "-"});
    print_table(rows, {false, true, true, true});
}

std::string json_of(const BenchComparison& comparison) {
    std::vector<std::string> machine, figures;
    for (const std::string& difference : comparison.machine)
        machine.push_back(json::text(difference));
    for (const FigureChange& change : comparison.figures)
        figures.push_back(json::object({{"name", json::text(change.name)},
                                        {"before", json::number(change.before)},
                                        {"after", json::number(change.after)},
                                        {"ratio", json::number(change.before / change.after)}}));
    return json::object({{"machine", json::array(machine)}, {"figures", json::array(figures)}});
}

} // namespace

BenchReport::BenchReport(std::string_view bench, const BenchOptions& options)
    : bench_(bench), json_(options.json), earlier_path_(options.compare) {
    use_threads(options.threads);
    const Environment facts = current_environment();
    if (!earlier_path_.empty()) {
        earlier_ = read_file(earlier_path_);
        compare(earlier_path_, earlier_, json::object({{"bench", json::text(bench_)}, {"machine", to_json(facts)}}));
    }
    constexpr double kSeconds = 0.5;
    peak_flops_ = measure_peak_flops(kSeconds);
    bandwidth_ = measure_bandwidth(kSeconds);
    if (!prints()) return;
    std::printf("%s; %s\n", facts.cpu.c_str(), machine_text(facts).c_str());
    std::printf("peak %.1f GFLOP/s with multiply-adds on registers; memory %.1f GB/s with y = a x + z\n",
                1e-9 * peak_flops_, 1e-9 * bandwidth_);
    std::fflush(stdout);
}

int BenchReport::finish(std::vector<std::pair<std::string_view, std::string>> members) const {
    members.insert(members.begin(), {{"bench", json::text(bench_)},
                                     {"machine", to_json(current_environment())},
                                     {"peak_flops", json::number(peak_flops_)},
                                     {"bandwidth", json::number(bandwidth_)}});
    if (!earlier_path_.empty()) {
        const BenchComparison comparison = compare(earlier_path_, earlier_, json::object(members));
        if (prints()) print_comparison(earlier_path_, comparison);
        members.emplace_back("comparison", json_of(comparison));
    }
    if (!prints()) std::printf("%s\n", json::object(members).c_str());
    return kDone;
}

std::string short_time(double seconds) {
    if (seconds >= 0.9995) return format("%.2f s", seconds);
    if (seconds >= 0.9995e-3) return format("%.*f ms", seconds < 0.0995 ? 2 : 1, 1e3 * seconds);
    return format("%.*f us", seconds < 0.0995e-3 ? 1 : 0, 1e6 * seconds);
}

std::string percent(double share) { return format("%.1f %%", 100 * share); }
