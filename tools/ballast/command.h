#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <vector>

/// What the program returns to the shell.
enum ExitStatus : int {
    kDone = 0,
    kFailure = 1,      ///< a file could not be read or written, or memory ran out
    kUsage = 2,        ///< bad arguments, config or data
    kDiverged = 3,     ///< the run diverged, met a value that is not finite, or was stopped by a policy
    kDiffers = 3,      ///< a run that is made again gives other bits than it recorded
    kRefuted = 3,      ///< a claim failed
    kInterrupted = 130 ///< stopped by a signal, after saving
};

/// What the chosen subcommand does; returns an ExitStatus or throws.
using Action = std::function<int()>;

// Each of these adds a subcommand, with its options, to `app`; parsing the command line sets `action` to the chosen
// one.
void add_train(CLI::App& app, Action& action);
void add_resume(CLI::App& app, Action& action);
void add_eval(CLI::App& app, Action& action);
void add_generate(CLI::App& app, Action& action);
void add_verify(CLI::App& app, Action& action);
void add_graft(CLI::App& app, Action& action);
void add_explain(CLI::App& app, Action& action);
void add_diagnose(CLI::App& app, Action& action);
void add_replay(CLI::App& app, Action& action);
void add_sweep(CLI::App& app, Action& action);
void add_compare(CLI::App& app, Action& action);
void add_report(CLI::App& app, Action& action);
void add_reproduce(CLI::App& app, Action& action);
void add_check(CLI::App& app, Action& action);
void add_schema(CLI::App& app, Action& action);
void add_bench(CLI::App& app, Action& action);

/// Adds `--set KEY=VALUE`, which may be repeated and takes one value each time.
void add_set_option(CLI::App& command, std::vector<std::string>& overrides);

/// Adds `--checkpoint STEP|newest|best`.
void add_checkpoint_option(CLI::App& command, std::string& checkpoint);

/// Adds `--threads N`, checked to be sensible. `threads` 0 stands for all available processors.
void add_threads_option(CLI::App& command, int& threads);

/// Makes the library use as many threads as the option says.
void use_threads(int threads);
