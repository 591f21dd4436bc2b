#include "bench_model.h"

#include <algorithm>
#include <chrono>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/memory.h"
#include "ballast/base/parallel.h"
#include "ballast/base/rng.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/lab/bench.h"
#include "ballast/train/memory.h"
#include "training.h"
#include "vocabulary.h"

using namespace ballast;

namespace fs = std::filesystem;

TemporaryFolder::TemporaryFolder() {
    std::string name = (fs::temp_directory_path() / "ballast-bench-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw IoError(name + ": cannot be made");
    path_ = name;
}

TemporaryFolder::~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
}

Config load_bench_config(const std::string& word, std::span<const std::string> overrides) {
    const TemporaryFolder folder;
    fs::path file = word;
    for (const BenchConfig& known : kBenchConfigs) { // all of them, as one extends another
        const fs::path copy = folder.path() / (std::string(known.name) + ".json");
        write_file_atomic(copy, known.json);
        if (word == known.name) file = copy;
    }
    return load_config_to_use(file, overrides);
}

BenchModel::BenchModel(Config config, std::int64_t vocabulary) {
    if (vocabulary == 0) vocabulary = vocabulary_of(config).size;
    constexpr std::int64_t kMostIds = 65536;
    if (vocabulary > kMostIds)
        throw UsageError(config.name + ": a vocabulary of " + std::to_string(vocabulary) + "; expected at most " +
                         std::to_string(kMostIds));
    config.data = DataConfig{};
    config.data.path = folder_.path() / "tokens";
    config.data.format = DataFormat::bin;
    config.data.vocab_size = vocabulary;
    write_tokens(vocabulary, config.model.context);
    data_ = std::make_unique<Dataset>(data_options(config));
    require_memory(estimate_memory(config, vocabulary, resident_memory()), memory_limit());
    reset_peak_resident_memory();
    learner_ = std::make_unique<Learner>(config, *data_);
}

void BenchModel::write_tokens(std::int64_t vocabulary, std::int64_t context) const {
    const std::int64_t count = std::max<std::int64_t>(1 << 18, 2 * context);
    const RandomStream stream(1, "bench/tokens");
    std::vector<std::uint16_t> ids(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < ids.size(); ++i)
        ids[i] = static_cast<std::uint16_t>(stream.below(i, static_cast<std::uint64_t>(vocabulary)));
    const fs::path directory = folder_.path() / "tokens";
    fs::create_directory(directory);
    for (const char* name : {"train.bin", "val.bin"})
        write_file_atomic(directory / name, std::as_bytes(std::span(ids)));
}

void BenchModel::warm_up() {
    constexpr int kSteps = 3;
    for (int i = 0; i < kSteps; ++i)
        learner_->step(++step);
}

namespace {

/// Seconds until the run that `ballast ARGUMENTS` makes in `run` has a record.
double seconds_to_record(std::vector<std::string> arguments, const fs::path& run) {
    using Clock = std::chrono::steady_clock;
    std::vector<char*> words;
    for (std::string& argument : arguments)
        words.push_back(argument.data());
    words.push_back(nullptr);
    posix_spawn_file_actions_t quiet;
    ::posix_spawn_file_actions_init(&quiet);
    for (const int stream : {STDOUT_FILENO, STDERR_FILENO})
        ::posix_spawn_file_actions_addopen(&quiet, stream, "/dev/null", O_WRONLY, 0);

    const auto start = Clock::now();
    pid_t child = 0;
    const int problem = ::posix_spawn(&child, "/proc/self/exe", &quiet, nullptr, words.data(), environ);
    ::posix_spawn_file_actions_destroy(&quiet);
    if (problem != 0)
        throw IoError("ballast train cannot be started: " +
                      std::error_code(problem, std::generic_category()).message());
    const auto is_recorded = [&] {
        std::error_code absent;
        const std::uintmax_t size = fs::file_size(run / "metrics.jsonl", absent);
        return !absent && size > 0;
    };
    int status = 0;
    bool ended = false;
    while (!is_recorded() && !ended) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
        ended = ::waitpid(child, &status, WNOHANG) != 0;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (!ended) ::waitpid(child, &status, 0);
    if (!is_recorded()) throw IoError("ballast train ended without a first step");
    return seconds;
}

} // namespace

double BenchModel::start_seconds() const {
    constexpr int kTimes = 5;
    Config config = learner_->config();
    config.train.steps = 1;
    const fs::path file = folder_.path() / "start.json";
    write_file_atomic(file, to_json(config));
    std::vector<double> seconds;
    for (int i = 0; i < kTimes; ++i) {
        const fs::path run = folder_.path() / ("run" + std::to_string(i));
        seconds.push_back(
            seconds_to_record({"ballast", "train", file, "--out", run, "--threads", std::to_string(threads())}, run));
    }
    return median(seconds);
}
