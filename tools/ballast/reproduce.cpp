#include <atomic>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/memory.h"
#include "ballast/base/parallel.h"
#include "ballast/base/text.h"
#include "ballast/lab/claim.h"
#include "ballast/lab/claim_record.h"
#include "ballast/lab/sweep_table.h"
#include "command.h"
#include "errors.h"
#include "format.h"
#include "signals.h"
#include "sweep_display.h"
#include "sweep_memory.h"
#include "sweep_runner.h"
#include "table.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

struct ReproduceOptions {
    std::vector<std::string> names;
    std::string out = "claims";
    std::string configs = "configs/claims";
    std::string page;
    std::vector<std::string> overrides;
    int jobs = 0;
    bool list = false;
    bool fast = false;
    bool all = false;
    bool json = false;
};

std::vector<const Claim*> chosen(const ReproduceOptions& options) {
    std::vector<const Claim*> found;
    for (const std::string& name : options.names)
        found.push_back(&claim_named(name));
    for (const Claim* claim : claims())
        if (options.names.empty() && (options.all || (options.fast && claim->sweeps.empty()))) found.push_back(claim);
    if (found.empty()) throw UsageError("nothing to reproduce; expected names of claims, --fast, --all or --list");
    return found;
}

int list_claims() {
    std::vector<std::vector<std::string>> rows = {{"claim", "", "trains"}};
    for (const Claim* claim : claims()) {
        std::string sweeps;
        for (const ClaimSweep& sweep : claim->sweeps)
            sweeps += (sweeps.empty() ? "" : ", ") + std::string(sweep.name) + ".json";
        rows.push_back({std::string(claim->name), std::string(claim->title), sweeps.empty() ? "nothing" : sweeps});
    }
    print_table(rows, {false, false, false});
    return kDone;
}

/// The grid of a sweep; its runs start from those of `from` of the same seed, if there are any.
Grid grid_of(const ClaimSweep& sweep, const ClaimRuns& runs, const ReproduceOptions& options) {
    Grid grid = load_grid(fs::path(options.configs) / (std::string(sweep.name) + ".json"), options.overrides);
    if (sweep.from.empty()) return grid;
    for (GridCell& cell : grid.cells) {
        const ClaimRun* source = nullptr;
        for (const ClaimRun* run : runs.with(sweep.from))
            if (run->run.seed == cell.seed) source = run;
        if (source == nullptr)
            throw UsageError(cell.name + ": " + std::string(sweep.from) + " has no run of its seed to start from");
        cell.config.init_from.run = fs::absolute(source->run.path).lexically_normal().string();
    }
    return grid;
}

/// Trains what has not been trained, and adds the runs to `runs`.
int train(const ClaimSweep& sweep, const ReproduceOptions& options, ClaimRuns& runs) {
    const Grid grid = grid_of(sweep, runs, options);
    const fs::path out = fs::path(options.out) / "sweeps" / sweep.name;
    const std::vector<double> memory = memory_of_cells(grid, std::string(sweep.name) + ".json", out);
    const SweepDirectory directory(out, grid);
    // What a program reads on standard output is the records alone.
    SweepDisplay display(options.json ? Terminal() : Terminal::of_output(), options.json ? stderr : stdout);
    const SweepLimits limits{available_processors(), options.jobs, 0,
                             static_cast<double>(memory_limit() - resident_memory())};
    SweepRunner runner(grid, directory, memory, limits, display);
    if (const int status = runner.run(); status != kDone) return status;
    for (std::size_t i = 0; i < grid.cells.size(); ++i)
        runs.sweeps[std::string(sweep.name)].push_back(
            {runner.rows()[i].run, grid.cells[i].config, runner.rows()[i].result});
    return kDone;
}

void print_text(const Claim& claim, const ClaimRecord& record) {
    std::printf("%s  %s: %s\n", std::string(to_string(record.verdict())).c_str(), record.name.c_str(),
                std::string(claim.title).c_str());
    std::vector<std::vector<std::string>> rows;
    for (const ClaimFigure& figure : record.result.figures)
        rows.push_back({figure.name, format("%.4g", unsigned_nan(figure.value)), figure.expected,
                        figure.expected.empty() ? "" : std::string(to_string(figure.verdict))});
    print_table(rows, {false, true, false, false});
    for (const std::string& remark : record.result.remarks)
        std::printf("  %s\n", remark.c_str());
    if (!record.settings.empty()) std::printf("  a trial with other settings, which decides nothing\n");
    std::printf("  source: %s\n", std::string(claim.source).c_str());
    std::printf("  %s", duration(record.seconds).c_str());
    if (record.runs > 0)
        std::printf(" and %s of training in %s runs", duration(record.training_seconds).c_str(),
                    grouped(record.runs).c_str());
    std::printf("\n\n");
}

/// Returns kDone, whatever the verdict, kInterrupted, or kFailure where a run has failed.
int reproduce_claim(const Claim& claim, const ReproduceOptions& options, ClaimVerdict& worst) {
    if (claim.sweeps.empty() && !options.overrides.empty())
        throw UsageError(std::string(claim.name) + ": has no sweep whose config --set could change");
    ClaimRuns runs;
    runs.directory = fs::path(options.out) / "runs" / claim.name;
    runs.interrupt = &watch_signals();
    if (!options.json && !claim.sweeps.empty())
        std::printf("%s: %s\n", std::string(claim.name).c_str(), std::string(claim.title).c_str());
    for (const ClaimSweep& sweep : claim.sweeps)
        if (const int status = train(sweep, options, runs); status != kDone) return status;
    use_threads(0);
    const auto begin = std::chrono::steady_clock::now();
    ClaimResult result = claim.measure(runs);
    if (*runs.interrupt) return kInterrupted;
    ClaimRecord record = make_record(claim, std::move(result));
    record.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    record.settings = options.overrides;
    for (const auto& [name, of_sweep] : runs.sweeps)
        for (const ClaimRun& run : of_sweep) {
            ++record.runs;
            record.training_seconds += run.result.summary.seconds;
        }
    write_claim_record(options.out, record);
    worst = std::min(worst, record.verdict());
    if (options.json)
        std::printf("%s\n", to_json(record).c_str());
    else
        print_text(claim, record);
    std::fflush(stdout);
    return kDone;
}

int reproduce(const ReproduceOptions& options) {
    if (options.list) return list_claims();
    if (!options.page.empty()) {
        const fs::path records = fs::path(options.page).lexically_normal();
        std::error_code ignored;
        if (!fs::is_directory(records, ignored))
            throw UsageError("--page: " + printable(options.page, 200) +
                             ": no such directory; expected one of records");
        std::printf("%s", claims_page(records, records.filename().string() + "/").c_str());
        return kDone;
    }
    ClaimVerdict worst = ClaimVerdict::pass;
    int status = kDone;
    const std::vector<const Claim*> wanted = chosen(options);
    for (const Claim* claim : wanted) {
        int of_claim = kDone;
        try {
            of_claim = reproduce_claim(*claim, options, worst);
        } catch (const Error&) {
            of_claim = report_current_exception();
        }
        if (of_claim == kInterrupted) {
            print_error("interrupted and saved; the same command goes on with it");
            return kInterrupted;
        }
        if (of_claim == kDone) continue;
        print_error(std::string(claim->name) + ": not reproduced" +
                    (claim != wanted.back() ? "; the others go on" : ""));
        status = of_claim;
    }
    std::error_code ignored;
    if (fs::is_directory(options.out, ignored)) { // it is made for the first record or run
        write_file_atomic(fs::path(options.out) / "claims.md", claims_page(options.out, ""));
        if (!options.json) std::printf("%s\n", (fs::path(options.out) / "claims.md").c_str());
    }
    if (status != kDone) return status;
    return worst == ClaimVerdict::fail ? kRefuted : kDone;
}

} // namespace

void add_reproduce(CLI::App& app, Action& action) {
    auto options = std::make_shared<ReproduceOptions>();
    CLI::App* command =
        app.add_subcommand("reproduce", "Run published claims again: PASS, FAIL or INCONCLUSIVE, with the figures");
    command->add_option("NAME", options->names, "Claims: a1, b5, ...; --list has them")->type_name("");
    command->add_flag("--list", options->list, "List the claims");
    command->add_flag("--fast", options->fast, "Those that take seconds");
    command->add_flag("--all", options->all, "All; what has been trained before is not trained again");
    command->add_option("-o,--out", options->out, "Directory of records, charts and runs")
        ->type_name("DIR")
        ->capture_default_str();
    command->add_option("--configs", options->configs, "Directory of the claims' sweeps")
        ->type_name("DIR")
        ->capture_default_str();
    command->add_option("--page", options->page, "Print the Markdown page of the records in DIR, and run nothing")
        ->type_name("DIR");
    add_set_option(*command, options->overrides);
    constexpr int kMostJobs = 1024;
    command->add_option("--jobs", options->jobs, "Runs at once [as many as fit processors and memory]")
        ->type_name("N")
        ->check(CLI::Range(1, kMostJobs));
    command->add_flag("--json", options->json, "Print one JSON object for each claim");
    command->footer("Example: ballast reproduce --fast\n"
                    "With --set, for a short trial, no claim is decided. Exit status 3: a claim failed.");
    command->callback([options, &action] { action = [options] { return reproduce(*options); }; });
}
