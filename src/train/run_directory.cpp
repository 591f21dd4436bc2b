#include "ballast/train/run_directory.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <sys/utsname.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <variant>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/simd.h"
#include "ballast/train/checkpoint.h"
#include "json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kLockFile = "lock";

/// A file of the run, and the folder of those that held for earlier steps: each named by the last of them.
struct Dated {
    const char* file;
    const char* earlier;
};
constexpr Dated kConfig{"config.json", "configs"};
constexpr Dated kEnvironment{"environment.json", "environments"};

struct EnvironmentField {
    std::string_view name;
    std::variant<std::string Environment::*, std::int64_t Environment::*> member;
};

constexpr auto kEnvironmentFields = std::to_array<EnvironmentField>({
    {"version", &Environment::version},
    {"precision", &Environment::precision},
    {"cpu", &Environment::cpu},
    {"processors", &Environment::processors},
    {"threads", &Environment::threads},
    {"simd", &Environment::simd},
    {"blas", &Environment::blas},
    {"blas_core", &Environment::blas_core},
    {"blas_threading", &Environment::blas_threading},
    {"compiler", &Environment::compiler},
    {"build", &Environment::build},
    {"os", &Environment::os},
});

struct SummaryField {
    std::string_view name;
    std::variant<std::string RunSummary::*, std::int64_t RunSummary::*, double RunSummary::*,
                 std::optional<double> RunSummary::*, std::optional<std::int64_t> RunSummary::*>
        member;
};

constexpr auto kSummaryFields = std::to_array<SummaryField>({
    {"verdict", &RunSummary::verdict},
    {"reason", &RunSummary::reason},
    {"event_step", &RunSummary::event_step},
    {"onset", &RunSummary::onset},
    {"onset_step", &RunSummary::onset_step},
    {"onset_layer", &RunSummary::onset_layer},
    {"onset_site", &RunSummary::onset_site},
    {"onset_statistic", &RunSummary::onset_statistic},
    {"step", &RunSummary::step},
    {"tokens", &RunSummary::tokens},
    {"final_loss", &RunSummary::final_loss},
    {"best_loss", &RunSummary::best_loss},
    {"best_loss_step", &RunSummary::best_loss_step},
    {"final_val_loss", &RunSummary::final_val_loss},
    {"best_val_loss", &RunSummary::best_val_loss},
    {"best_val_step", &RunSummary::best_val_step},
    {"loss_spikes", &RunSummary::loss_spikes},
    {"gradient_spikes", &RunSummary::gradient_spikes},
    {"loss_spike_score", &RunSummary::loss_spike_score},
    {"gradient_spike_score", &RunSummary::gradient_spike_score},
    {"rewinds", &RunSummary::rewinds},
    {"tokens_per_second", &RunSummary::tokens_per_second},
    {"seconds", &RunSummary::seconds},
    {"started", &RunSummary::started},
    {"finished", &RunSummary::finished},
    {"resumed", &RunSummary::resumed},
});

template <class Record, class Fields>
std::string text_of(const Record& record, const Fields& fields) {
    Json json;
    write_fields(json, record, fields);
    return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

template <class Record, class Fields>
void write_record(const fs::path& path, const Record& record, const Fields& fields, const FileCalls& calls) {
    write_file_atomic(path, text_of(record, fields), calls);
}

template <class Record, class Fields>
Record read_record(const fs::path& path, const Fields& fields) {
    const std::string text = read_file(path);
    Record record;
    try {
        read_fields(parse_object<Json>(text), record, fields, Missing::allowed);
    } catch (const IoError& error) {
        throw IoError(path.string() + ": " + error.what());
    }
    return record;
}

[[noreturn]] void fail(const fs::path& path, std::string_view action, const std::error_code& reason) {
    throw IoError(path.string() + ": cannot " + std::string(action) + ": " + reason.message());
}
std::error_code last_error() { return {errno, std::generic_category()}; }

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(fs::symlink_status(path, ignored));
}

} // namespace

bool is_run_directory(const fs::path& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored) && is_there(path / "config.json") &&
           (is_there(path / "environment.json") || is_there(path / "checkpoints"));
}

namespace {

[[noreturn]] void refuse_existing(const fs::path& path) {
    throw UsageError(path.string() + ": already exists; choose another --out" +
                     (is_run_directory(path) ? ", or go on with it: ballast resume " + path.string() : ""));
}

/// Returns the descriptor that holds the lock.
int take_lock(const fs::path& directory) {
    const fs::path path = directory / kLockFile;
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) fail(path, "lock", last_error());
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        const std::error_code reason = last_error();
        ::close(descriptor);
        if (reason != std::errc::operation_would_block) fail(path, "lock", reason);
        std::string holder = read_file(path);
        while (!holder.empty() && holder.back() == '\n')
            holder.pop_back();
        throw UsageError(directory.string() + ": another process" + (holder.empty() ? "" : " (" + holder + ")") +
                         " works on this run; wait for it or stop it");
    }
    // For the message above alone, so a full disk does not matter.
    const std::string holder = std::to_string(::getpid()) + "\n";
    if (::ftruncate(descriptor, 0) == 0) (void)!::write(descriptor, holder.data(), holder.size());
    return descriptor;
}

/// Throws UsageError unless there is a run directory.
fs::path checked_run(const fs::path& path) {
    if (!is_there(path)) throw UsageError(path.string() + ": no such run directory");
    if (!is_run_directory(path))
        throw UsageError(path.string() + ": not a run directory; expected one that ballast train has made");
    return path;
}

/// Temporary files of atomic writes that a killed process did not finish.
void remove_leftovers(const fs::path& directory, const FileCalls& calls) {
    std::error_code problem;
    for (fs::directory_iterator entry(directory, problem), end; !problem && entry != end; entry.increment(problem)) {
        const std::string name = entry->path().filename().string();
        if (name.starts_with('.') && name.ends_with(".tmp")) calls.unlink(entry->path().c_str());
    }
    if (problem) fail(directory, "read", problem);
}

/// Steps behind which the file became another, in their order.
std::vector<std::int64_t> changes(const fs::path& run, const Dated& dated) {
    std::vector<std::int64_t> steps;
    std::error_code problem;
    for (fs::directory_iterator entry(run / dated.earlier, problem), end; !problem && entry != end;
         entry.increment(problem))
        if (const auto step = step_of_name(entry->path().stem().string()); step && entry->path().extension() == ".json")
            steps.push_back(*step);
    std::sort(steps.begin(), steps.end());
    return steps;
}

fs::path earlier_path(const fs::path& run, const Dated& dated, std::int64_t step) {
    return run / dated.earlier / (step_name(step) + ".json");
}

/// Of the file that held for a step.
fs::path path_of(const fs::path& run, const Dated& dated, std::int64_t step) {
    const std::vector<std::int64_t> steps = changes(run, dated);
    const auto next = std::lower_bound(steps.begin(), steps.end(), step);
    return next == steps.end() ? run / dated.file : earlier_path(run, dated, *next);
}

/// The file is another one behind a step: see RunDirectory::go_on_with().
void change(const fs::path& run, const Dated& dated, std::string_view text, std::int64_t step, const FileCalls& calls) {
    const fs::path held = path_of(run, dated, step), kept = earlier_path(run, dated, step);
    std::string before;
    try {
        before = read_file(held);
    } catch (const IoError&) {
        // What is lost stays lost: nothing, which nobody takes for what comes now.
    }
    std::error_code problem;
    if (before != text && held != kept) {
        fs::create_directories(run / dated.earlier, problem);
        if (problem) fail(run / dated.earlier, "write", problem);
        write_file_atomic(kept, before, calls);
    }
    for (const std::int64_t later : changes(run, dated)) {
        if (later <= step) continue;
        fs::remove_all(earlier_path(run, dated, later), problem);
        if (problem) fail(earlier_path(run, dated, later), "remove", problem);
    }
    write_file_atomic(run / dated.file, text, calls);
}

std::string cpu_model(const std::string& fallback) {
    std::string facts;
    try {
        facts = read_file("/proc/cpuinfo");
    } catch (const IoError&) {
        return fallback;
    }
    const std::size_t key = facts.find("model name");
    if (key == std::string::npos) return fallback;
    const std::size_t begin = facts.find_first_not_of(": \t", key + std::string_view("model name").size());
    return facts.substr(begin, facts.find('\n', begin) - begin);
}

std::string compiler_name() {
#if defined(__clang__)
    return "clang " __clang_version__;
#else
    return "gcc " __VERSION__;
#endif
}

} // namespace

Environment current_environment() {
    const BlasFacts blas = pin_blas();
    utsname system{};
    ::uname(&system);
    Environment facts;
    facts.version = BALLAST_VERSION;
    facts.precision = "float" + std::to_string(8 * sizeof(real));
    facts.cpu = cpu_model(system.machine);
    facts.processors = available_processors();
    facts.threads = threads();
    facts.simd = simd_name();
    facts.blas = blas.name;
    facts.blas_core = blas.core;
    facts.blas_threading = blas.threading;
    facts.compiler = compiler_name();
#ifdef NDEBUG
    facts.build = "release";
#else
    facts.build = "debug";
#endif
    facts.os = std::string(system.sysname) + " " + system.release + " " + system.machine;
    return facts;
}

std::string to_json(const Environment& environment) {
    Json json;
    write_fields(json, environment, kEnvironmentFields);
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::vector<std::string> differences(const Environment& recorded, const Environment& now) {
    Json before;
    Json after;
    write_fields(before, recorded, kEnvironmentFields);
    write_fields(after, now, kEnvironmentFields);
    std::vector<std::string> lines;
    const auto text = [](const Json& value) {
        return value.is_string() ? printable(value.get<std::string>()) : value.dump();
    };
    for (const auto& [name, value] : before.items())
        if (value != after[name]) lines.push_back(name + ": " + text(value) + ", now " + text(after[name]));
    return lines;
}

std::vector<std::string> decisive_differences(Environment recorded, const Environment& now) {
    recorded.threads = now.threads;
    recorded.processors = now.processors;
    recorded.os = now.os;
    return differences(recorded, now);
}

std::string utc_time() {
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    std::array<char, 32> text{};
    const std::size_t size = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return {text.data(), size};
}

RunDirectory RunDirectory::create(const fs::path& path, std::string_view config_json, const Environment& environment,
                                  const FileCalls& calls, const std::function<void(const fs::path&)>& fill) {
    fs::path run = path.lexically_normal();
    if (!run.has_filename()) run = run.parent_path(); // "runs/a/"
    if (is_there(run)) refuse_existing(path);

    const fs::path parent = run.has_parent_path() ? run.parent_path() : fs::path(".");
    std::error_code problem;
    fs::create_directories(parent, problem);
    if (problem) fail(parent, "write", problem);
    const fs::path temporary = parent / ("." + run.filename().string() + ".new-" + std::to_string(::getpid()));
    fs::remove_all(temporary, problem); // of a process that had this number and died
    if (!fs::create_directory(temporary, problem)) fail(path, "write", problem);

    RunDirectory directory(run, -1);
    try {
        directory.lock_ = take_lock(temporary);
        write_file_atomic(temporary / "config.json", config_json, calls);
        write_record(temporary / "environment.json", environment, kEnvironmentFields, calls);
        fs::create_directory(temporary / "checkpoints", problem);
        if (problem) fail(path, "write", problem);
        if (fill) fill(temporary);
        rename_durably(temporary, run, calls);
    } catch (const Error&) {
        const bool overtaken = is_there(temporary) && is_there(run); // by another process that made the same run
        fs::remove_all(temporary, problem);
        if (overtaken) refuse_existing(path);
        throw;
    }
    return directory;
}

RunDirectory RunDirectory::open_for_training(const fs::path& path, const FileCalls& calls) {
    const fs::path run = checked_run(path);
    RunDirectory directory(run, take_lock(run));
    remove_leftovers(run, calls);
    return directory;
}

RunDirectory RunDirectory::open(const fs::path& path) { return {checked_run(path), -1}; }

bool RunDirectory::is_in_use() const {
    const int descriptor = ::open((path_ / kLockFile).c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    const bool locked = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    ::close(descriptor);
    return locked;
}

RunDirectory::RunDirectory(RunDirectory&& other) noexcept
    : path_(std::move(other.path_)), lock_(std::exchange(other.lock_, -1)) {}

RunDirectory::~RunDirectory() {
    if (lock_ >= 0) ::close(lock_);
}

std::string RunDirectory::config_json() const { return read_file(config_path()); }
Environment RunDirectory::environment() const {
    return read_record<Environment>(environment_path(), kEnvironmentFields);
}
RunSummary RunDirectory::summary() const { return read_record<RunSummary>(summary_path(), kSummaryFields); }

std::vector<std::int64_t> RunDirectory::config_changes() const { return changes(path_, kConfig); }

std::string RunDirectory::config_json_of(std::int64_t step) const { return read_file(path_of(path_, kConfig, step)); }

Config RunDirectory::config_of(std::int64_t step) const {
    const fs::path path = path_of(path_, kConfig, step);
    try {
        return config_from_json(read_file(path), config_path()); // what its paths are relative to, if anything
    } catch (const ConfigError& error) {
        std::vector<ConfigProblem> problems = error.problems();
        for (ConfigProblem& problem : problems)
            if (problem.file == config_path().string()) problem.file = path.string();
        throw ConfigError(std::move(problems));
    }
}

std::vector<Environment> RunDirectory::environments_of(std::int64_t first, std::int64_t last,
                                                       std::vector<std::string>& lost) const {
    std::vector<std::int64_t> ends = changes(path_, kEnvironment); // last steps of each
    std::erase_if(ends, [=](std::int64_t end) { return end < first || end >= last; });
    ends.push_back(last);
    std::vector<Environment> environments;
    for (const std::int64_t end : ends) {
        try {
            environments.push_back(read_record<Environment>(path_of(path_, kEnvironment, end), kEnvironmentFields));
        } catch (const IoError& error) {
            lost.push_back(std::string(error.what()) + "; what the run was trained in then is lost");
        }
    }
    return environments;
}

void RunDirectory::go_on_with(std::string_view config_json, const Environment& environment, std::int64_t step,
                              const FileCalls& calls) const {
    change(path_, kConfig, config_json, step, calls);
    change(path_, kEnvironment, text_of(environment, kEnvironmentFields), step, calls);
}

void RunDirectory::write_summary(const RunSummary& summary, const FileCalls& calls) const {
    write_record(summary_path(), summary, kSummaryFields, calls);
}

} // namespace ballast
