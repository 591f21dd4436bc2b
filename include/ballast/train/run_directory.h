#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/base/file.h"

namespace ballast {

struct Config;

/// What the bits of a run depend on beyond its config, and what its speed depends on.
struct Environment {
    std::string version;         ///< of Ballast
    std::string precision;       ///< "float32"
    std::string cpu;             ///< model name
    std::int64_t processors = 0; ///< available to this process
    std::int64_t threads = 0;    ///< used by it
    std::string simd;            ///< instruction set that the vector kernels use
    std::string blas;            ///< library and build
    std::string blas_core;       ///< processor family that BLAS chose its kernels for
    std::string blas_threading;
    std::string compiler;
    std::string build; ///< "release" (without assertions) or "debug"
    std::string os;    ///< system, release and machine
};

/// The facts of this process, with the thread count of this moment. Calls pin_blas().
Environment current_environment();

/// One JSON object on one line.
std::string to_json(const Environment& environment);

/// A line for each fact that differs: "cpu: A, now B".
std::vector<std::string> differences(const Environment& recorded, const Environment& now);
/// The same without facts that change no bit: the number of threads and processors, and the system.
std::vector<std::string> decisive_differences(Environment recorded, const Environment& now);

/// Whether `path` is a directory that looks like a run's. One that has lost its environment still does.
bool is_run_directory(const std::filesystem::path& path);

/// How a run ended, or where it stands: summary.json.
struct RunSummary {
    std::string verdict;                    ///< "stable", "spiky", "stalled", "diverged", "non_finite" or "interrupted"
    std::string reason;                     ///< a sentence; may be empty
    std::optional<std::int64_t> event_step; ///< of the event that the verdict comes from
    std::string onset; ///< a sentence about where it began (train/onset.h), and its parts; may be empty
    std::optional<std::int64_t> onset_step;
    std::optional<std::int64_t> onset_layer;
    std::string onset_site;
    std::string onset_statistic; ///< of layers.jsonl; or the op that first made something that is not finite
    std::int64_t step = 0;
    std::int64_t tokens = 0;
    double final_loss = 0; ///< training loss of the last step
    double best_loss = 0;
    std::int64_t best_loss_step = 0;
    std::optional<double> final_val_loss;
    std::optional<double> best_val_loss;
    std::int64_t best_val_step = 0;
    std::int64_t loss_spikes = 0; ///< steps
    std::int64_t gradient_spikes = 0;
    double loss_spike_score = 0; ///< spike_score() of all steps
    double gradient_spike_score = 0;
    std::int64_t rewinds = 0;
    double tokens_per_second = 0; ///< over all of the training time
    double seconds = 0;           ///< training time, of all processes that worked on the run
    std::string started;          ///< utc_time()
    std::string finished;
    std::int64_t resumed = 0; ///< how often the run was taken up again
};

/// This moment as "2024-05-31T12:00:00Z".
std::string utc_time();

/// A run's directory:
///   config.json  environment.json  metrics.jsonl  layers.jsonl  events.jsonl  summary.json  checkpoints/  lock
///   configs/step-NNNNNNNN.json   environments/step-NNNNNNNN.json
/// The last two are there where a run went on behind that step with other settings or in another environment: those
/// that it had until then.
/// Opened to train in it, it is locked; the operating system lets go of the lock when the process ends, in whatever
/// way, so that a crash never blocks a run.
class RunDirectory {
public:
    /// Makes a new one, parent directories included, whole or not at all, and locks it; `fill` adds what else it is to
    /// begin with, in the directory that it is given. Throws UsageError when there is something at `path`, IoError when
    /// the system refuses.
    static RunDirectory create(const std::filesystem::path& path, std::string_view config_json,
                               const Environment& environment, const FileCalls& calls = kSystemCalls,
                               const std::function<void(const std::filesystem::path&)>& fill = {});

    /// Opens one to go on with it: locks it and removes temporary files that a killed process left. Throws UsageError
    /// when it is not a run directory or another process works on it.
    static RunDirectory open_for_training(const std::filesystem::path& path, const FileCalls& calls = kSystemCalls);

    /// Opens one to read from, locked or not. Throws UsageError when it is not a run directory.
    static RunDirectory open(const std::filesystem::path& path);

    /// Whether a process works on it at this moment.
    bool is_in_use() const;

    RunDirectory(RunDirectory&& other) noexcept;
    RunDirectory& operator=(RunDirectory&&) = delete;
    ~RunDirectory();

    const std::filesystem::path& path() const { return path_; }
    std::filesystem::path config_path() const { return path_ / "config.json"; }
    std::filesystem::path environment_path() const { return path_ / "environment.json"; }
    std::filesystem::path metrics_path() const { return path_ / "metrics.jsonl"; }
    std::filesystem::path csv_path() const { return path_ / "metrics.csv"; }
    std::filesystem::path layers_path() const { return path_ / "layers.jsonl"; }
    std::filesystem::path events_path() const { return path_ / "events.jsonl"; }
    std::filesystem::path summary_path() const { return path_ / "summary.json"; }

    /// The following throw IoError.
    std::string config_json() const;
    Environment environment() const;
    RunSummary summary() const;

    /// The config that step `step` was made with; as a text, and read, which throws ConfigError, too.
    std::string config_json_of(std::int64_t step) const;
    Config config_of(std::int64_t step) const;
    /// Steps behind which the run went on with other settings.
    std::vector<std::int64_t> config_changes() const;
    /// What steps `first` to `last` were made in, in their order; what is lost of it, a line each, goes to `lost`.
    std::vector<Environment> environments_of(std::int64_t first, std::int64_t last,
                                             std::vector<std::string>& lost) const;
    /// The run goes on behind `step` with this config in this environment: keeps those of the steps so far where they
    /// are others, and forgets those of steps behind them. What cannot be read any more is kept as an empty file.
    void go_on_with(std::string_view config_json, const Environment& environment, std::int64_t step,
                    const FileCalls& calls = kSystemCalls) const;

    /// Replaces the file atomically.
    void write_summary(const RunSummary& summary, const FileCalls& calls = kSystemCalls) const;

private:
    RunDirectory(std::filesystem::path path, int lock) : path_(std::move(path)), lock_(lock) {}

    std::filesystem::path path_;
    int lock_ = -1; ///< descriptor that holds the lock; -1: opened to read
};

} // namespace ballast
