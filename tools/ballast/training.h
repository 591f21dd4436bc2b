#pragma once

#include <filesystem>
#include <span>
#include <string>

#include "ballast/base/error.h"
#include "ballast/config/config.h"
#include "ballast/config/load.h"
#include "ballast/data/dataset.h"
#include "ballast/train/trainer.h"
#include "display.h"

// What `train` and `resume` share.

/// Reads a config for a command that is about to use it. Throws UsageError for a run directory, ConfigError otherwise.
ballast::Config load_config_to_use(const std::filesystem::path& file, std::span<const std::string> overrides);

/// Calls `use`, which reads the data that a config names. What is wrong with the data is thrown on as what it is, at
/// the line of the config that names the data or its task.
template <class Use>
auto with_data_of(const ballast::Config& config, const std::filesystem::path& file,
                  std::span<const std::string> overrides, Use&& use) {
    const auto place = [&](const ballast::Error& error) {
        std::string what = error.what();
        const bool is_task = config.data.task.kind != ballast::TaskKind::none;
        if (!what.starts_with(is_task ? "task " : config.data.path)) return what;
        return ballast::problem_at(file, overrides, is_task ? "data.task.kind" : "data.path", what).text();
    };
    try {
        return use();
    } catch (const ballast::DataError& error) {
        throw ballast::DataError(place(error));
    } catch (const ballast::IoError& error) {
        throw ballast::IoError(place(error));
    }
}

/// What the reading of data depends on: equal texts, equal data.
std::string data_key(const ballast::Config& config);

/// What a process computes with: threads, BLAS, instruction set.
std::string machine_text(const ballast::Environment& facts);
/// Logs that.
void log_machine(const ballast::Log& log);
/// Logs what is known of the data and the model.
void log_run(const ballast::Log& log, const ballast::Config& config, const ballast::Dataset& data,
             std::int64_t parameters);

/// Trains to the end or to a signal, shows it, says how it went and what to do next; returns an ExitStatus.
int train_and_report(ballast::Trainer& trainer, Display& display);

/// "ballast resume RUN --set train.steps=N", with twice the steps.
std::string extend_command(const std::filesystem::path& run, std::int64_t steps);
