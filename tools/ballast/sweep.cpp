#include "ballast/lab/sweep.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "ballast/base/parallel.h"
#include "ballast/base/text.h"
#include "ballast/lab/sweep_table.h"
#include "command.h"
#include "errors.h"
#include "format.h"
#include "page.h"
#include "runs.h"
#include "sweep_display.h"
#include "sweep_memory.h"
#include "sweep_runner.h"
#include "table.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

struct SweepOptions {
    std::string sweep;
    std::string out;
    std::vector<std::string> overrides;
    int jobs = 0;
    int threads = 0;
    bool dry_run = false;
};

/// Of the report; none: there is nothing to draw, or not yet.
enum class PageState : std::uint8_t { none, written, failed, too_large };

/// Steps of all runs up to which the report is written unasked: a page of some 25 MiB.
constexpr std::int64_t kMostSteps = 100000;

int list_cells(const Grid& grid, const std::vector<double>& memory) {
    std::vector<std::vector<std::string>> rows = {{"run", "steps", "memory"}};
    for (std::size_t i = 0; i < grid.cells.size(); ++i)
        rows.push_back({grid.cells[i].name, grouped(grid.cells[i].config.train.steps), byte_size(memory[i])});
    print_table(rows, {false, true, true});
    const double most = *std::max_element(memory.begin(), memory.end());
    std::printf("%zu runs; %d processors; %s of memory, the largest run needs %s\n", grid.cells.size(),
                available_processors(), byte_size(static_cast<double>(memory_limit())).c_str(),
                byte_size(most).c_str());
    return kDone;
}

std::string loss_text(const Sample& sample) {
    return sample.count == 0 ? "" : with_spread(sample.mean, sample.deviation);
}

/// A line for each group of cells that differ in the seed alone.
void print_arms(const Grid& grid, const std::vector<SweepRow>& rows) {
    struct Arm {
        std::vector<Setting> settings;
        std::int64_t runs = 0, diverged = 0;
        std::vector<double> final_losses, best_losses;
    };
    std::vector<Arm> arms;
    for (const SweepRow& row : rows) {
        if (arms.empty() || arms.back().settings != row.run.settings) arms.push_back({row.run.settings, 0, 0, {}, {}});
        Arm& arm = arms.back();
        arm.runs += row.result.has_ended() ? 1 : 0;
        arm.diverged += row.result.state == RunState::diverged ? 1 : 0;
        if (row.result.final_loss) arm.final_losses.push_back(*row.result.final_loss);
        if (row.result.best_loss) arm.best_losses.push_back(*row.result.best_loss);
    }
    std::vector<std::string> head(grid.axes.begin(), grid.axes.end());
    std::vector<bool> right(head.size(), false);
    head.insert(head.end(), {"runs", "diverged", "final loss", "best loss"});
    right.insert(right.end(), {true, true, true, true});
    std::vector<std::vector<std::string>> lines{std::move(head)};
    for (const Arm& arm : arms) {
        std::vector<std::string> line;
        for (const Setting& setting : arm.settings)
            line.push_back(setting.value);
        line.insert(line.end(), {std::to_string(arm.runs), std::to_string(arm.diverged),
                                 loss_text(sample_of(arm.final_losses)), loss_text(sample_of(arm.best_losses))});
        lines.push_back(std::move(line));
    }
    print_table(lines, right);
}

void print_sensitivities(const std::vector<SweepRow>& rows) {
    const std::vector<LrSensitivity> found = lr_sensitivities(rows);
    if (found.empty()) return;
    std::printf("\nlearning rate sensitivity (Wortsman et al., 2309.14322)\n");
    std::vector<std::vector<std::string>> lines = {{"cells", "S", "seeds", "rates", "best rate", "loss there"}};
    for (const LrSensitivity& arm : found) {
        std::string name;
        for (const Setting& setting : arm.settings)
            name += (name.empty() ? "" : ", ") + setting.value;
        const bool has_value = arm.sample.count > 0;
        lines.push_back({name.empty() ? "all" : name,
                         has_value ? with_spread(arm.sample.mean, arm.sample.standard_error()) : "",
                         std::to_string(arm.sample.count) +
                             (arm.left_out > 0 ? " of " + std::to_string(arm.sample.count + arm.left_out) : ""),
                         std::to_string(arm.rates.size()), has_value ? number_text(arm.best_rate) : "",
                         has_value ? four_digits(*std::min_element(arm.losses.begin(), arm.losses.end())) : ""});
    }
    print_table(lines, {false, true, true, true, true, true});
}

/// The page of the runs of which there is something to draw; a cell may have failed before its first step. Where it
/// cannot be written, this is said: the sweep's results stand without it.
PageState write_report(const std::vector<SweepRow>& rows, const fs::path& out) {
    std::vector<fs::path> runs;
    std::int64_t steps = 0;
    for (const SweepRow& row : rows) {
        if (!is_run_directory(row.run.path)) continue;
        runs.push_back(row.run.path);
        steps += row.result.summary.step;
    }
    if (runs.empty()) return PageState::none;
    if (steps > kMostSteps) return PageState::too_large;
    try {
        write_page(runs, out);
        return PageState::written;
    } catch (const std::exception& error) {
        print_error(error.what());
        return PageState::failed;
    }
}

int sweep(const SweepOptions& options) {
    if (is_sweep_directory(options.sweep))
        throw UsageError(options.sweep + ": a sweep's directory; expected its sweep file. To go on with it, give the "
                                         "command again that began it");
    const Grid grid = load_grid(options.sweep, options.overrides);
    fs::path out = options.out.empty() ? fs::path("sweeps") / grid.name : fs::path(options.out);
    if (out.native().starts_with('-')) out = "." / out; // which the runs' processes would take for an option
    const std::vector<double> memory = memory_of_cells(grid, options.sweep, out);
    if (options.dry_run) return list_cells(grid, memory);

    const SweepDirectory directory(out, grid);
    SweepDisplay display(Terminal::of_output());
    const SweepLimits limits{available_processors(), options.jobs, options.threads,
                             static_cast<double>(memory_limit() - resident_memory())};
    SweepRunner runner(grid, directory, memory, limits, display);
    const int status = runner.run();

    print_arms(grid, runner.rows());
    print_sensitivities(runner.rows());
    const bool is_done = status != kInterrupted;
    const PageState page = is_done ? write_report(runner.rows(), directory.report_path()) : PageState::none;
    std::printf("\n%s, %s%s\n± is the standard deviation over seeds of a loss, the standard error of S\n",
                directory.csv_path().c_str(), directory.json_path().filename().c_str(),
                page == PageState::written ? (", " + directory.report_path().filename().string()).c_str() : "");
    const std::string path = shell_word(directory.path()), page_path = shell_word(directory.report_path());
    if (!is_done)
        std::printf("interrupted and saved; the same command goes on with it\n");
    else if (page == PageState::written)
        std::printf("next: look at %s | ballast compare %s\n", page_path.c_str(), path.c_str());
    else if (page == PageState::too_large)
        std::printf("next: ballast compare %s | ballast report %s -o %s\n", path.c_str(), path.c_str(),
                    page_path.c_str());
    else if (page == PageState::failed)
        std::printf("next: ballast compare %s\n", path.c_str());
    return page == PageState::failed ? static_cast<int>(kFailure) : status;
}

} // namespace

void add_sweep(CLI::App& app, Action& action) {
    auto options = std::make_shared<SweepOptions>();
    CLI::App* command = app.add_subcommand("sweep", "Train a grid of configs, several at once, and tabulate them");
    command->add_option("SWEEP", options->sweep, "Sweep file: a base config, a grid, variants, seeds")
        ->required()
        ->type_name("");
    command
        ->add_option("-o,--out", options->out,
                     "Directory of the sweep [sweeps/NAME]; if it is there, the sweep goes on")
        ->type_name("DIR");
    add_set_option(*command, options->overrides);
    constexpr int kMostJobs = 1024;
    command->add_option("--jobs", options->jobs, "Runs at once [as many as fit processors and memory]")
        ->type_name("N")
        ->check(CLI::Range(1, kMostJobs));
    command
        ->add_option("--threads", options->threads,
                     "Threads of each run [1; more when there are fewer runs than processors]")
        ->type_name("N")
        ->check(CLI::Range(1, kMostJobs));
    command->add_flag("--dry-run", options->dry_run, "List the runs with the memory they need, and write nothing");
    command->footer("Example: ballast sweep configs/sweep/placement_lr.json -o sweeps/placement");
    command->callback([options, &action] { action = [options] { return sweep(*options); }; });
}
