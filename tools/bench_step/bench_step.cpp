// Times whole training steps - forward, backward, clipping, update - of the model of a config on random tokens, and
// sets them against what this machine can do. tools/bench_peers drives it, in turns with other programs.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/base/rng.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/peak.h"
#include "ballast/kernels/simd.h"
#include "ballast/train/learner.h"

namespace {

using namespace ballast;
namespace fs = std::filesystem;

/// A directory of token files that lives as long as this object.
class RandomTokens {
public:
    explicit RandomTokens(std::int64_t vocabulary) {
        std::string name = (fs::temp_directory_path() / "ballast-bench-XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) throw IoError(name + ": cannot be made");
        directory_ = name;
        constexpr std::int64_t kTokens = 1 << 18;
        const RandomStream stream(1, "bench/tokens");
        std::vector<std::uint16_t> ids(static_cast<std::size_t>(kTokens));
        for (std::int64_t i = 0; i < kTokens; ++i)
            ids[static_cast<std::size_t>(i)] = static_cast<std::uint16_t>(
                stream.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(vocabulary)));
        for (const char* file : {"train.bin", "val.bin"})
            std::ofstream(directory_ / file, std::ios::binary)
                .write(reinterpret_cast<const char*>(ids.data()),
                       static_cast<std::streamsize>(ids.size() * sizeof(std::uint16_t)));
    }
    ~RandomTokens() {
        std::error_code ignored;
        fs::remove_all(directory_, ignored);
    }
    RandomTokens(const RandomTokens&) = delete;
    RandomTokens& operator=(const RandomTokens&) = delete;

    const fs::path& directory() const { return directory_; }

private:
    fs::path directory_;
};

/// The most memory this process has had, from the kernel's account of this program alone.
double peak_bytes() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == "VmHWM:") {
            double kibibytes = 0;
            status >> kibibytes;
            return 1024 * kibibytes;
        }
    return 0;
}

/// (6 parameters without the position table + 12 layers width context) a token: multiply-adds of the matrix products
/// and of attention, forward and backward, each counted as two; attention as if it were not causal, as is usual.
double flops_per_step(const Config& config, const Learner& learner) {
    auto parameters = static_cast<double>(learner.table().count());
    if (const Param* positions = learner.table().find("embedding.positions"))
        parameters -= static_cast<double>(positions->shape.elements());
    const ModelConfig& model = config.model;
    const auto attention = static_cast<double>(12 * model.layers * model.width * model.context);
    return (6 * parameters + attention) * static_cast<double>(learner.tokens_per_step());
}

/// Runs steps and returns how long each took. With a probe, its records are made ready to be written, too.
std::vector<double> time_steps(Learner& learner, std::int64_t& step, std::int64_t count, LayerProbe* probe = nullptr) {
    std::vector<double> seconds;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto start = std::chrono::steady_clock::now();
        ++step;
        Learner::Step result = learner.gradients(step, step, probe);
        if (result.non_finite.empty()) learner.update(result, probe);
        std::size_t bytes = 0;
        for (const LayerRecord& record : probe != nullptr ? probe->records() : std::span<const LayerRecord>())
            bytes += to_json(record).size();
        if (probe != nullptr && bytes == 0) throw Error("a probe without records");
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
        if (!result.non_finite.empty()) throw Error("step " + std::to_string(step) + ": " + result.non_finite);
    }
    return seconds;
}

void print_array(const std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); ++i)
        std::printf("%s%.9g", i == 0 ? "[" : ", ", values[i]);
    std::printf("]");
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

/// Share of the time of a step that probing costs when every `every`-th step is probed. Steps with and without take
/// turns, so that what else the machine does meets both.
double probe_share(Learner& learner, std::int64_t& step, std::int64_t steps, std::int64_t every) {
    LayerProbe probe(learner.table(), learner.config().optimizer);
    std::vector<double> plain, probed;
    for (std::int64_t i = 0; i < steps; ++i) {
        plain.push_back(time_steps(learner, step, 1).front());
        probed.push_back(time_steps(learner, step, 1, &probe).front());
    }
    return (median(probed) - median(plain)) / median(plain) / static_cast<double>(every);
}

/// Answers each line of the standard input, a number of steps, with a line: their times, and the memory so far.
void serve(Learner& learner, std::int64_t& step) {
    for (std::int64_t count = 0; std::cin >> count;) {
        const std::vector<double> seconds = time_steps(learner, step, count);
        std::printf(R"({"seconds": )");
        print_array(seconds);
        std::printf(R"(, "peak_bytes": %.0f})"
                    "\n",
                    peak_bytes());
        std::fflush(stdout);
    }
}

int run(int argc, char** argv) {
    CLI::App app("Times whole training steps of a config's model on random tokens.\n"
                 "Example: bench_step configs/bench/p2.json --vocabulary 65 --threads 2");
    std::string file;
    std::vector<std::string> overrides;
    std::int64_t vocabulary = 65, steps = 20, warmup = 3;
    int thread_count = available_processors();
    bool json = false, worker = false, probes = false;
    app.add_option("CONFIG", file, "Config file")->required();
    app.add_option("--set", overrides, "Override a key of the config; may be repeated")->allow_extra_args(false);
    app.add_option("--vocabulary", vocabulary, "Number of token ids")
        ->check(CLI::Range(2, 65536))
        ->capture_default_str();
    app.add_option("--steps", steps, "Steps to time")->check(CLI::Range(1, 1000000))->capture_default_str();
    app.add_option("--warmup", warmup, "Steps before them")->check(CLI::Range(0, 1000000))->capture_default_str();
    app.add_option("--threads", thread_count, "Worker threads")->check(CLI::Range(1, 1024))->capture_default_str();
    app.add_flag("--probe", probes, "Time steps with a probe, too");
    app.add_flag("--json", json, "Print one JSON object");
    app.add_flag("--worker", worker, "Print what is known as JSON, then run as many steps as each line of input says");
    CLI11_PARSE(app, argc, argv);

    set_threads(thread_count);
    const BlasFacts blas = pin_blas();
    const RandomTokens tokens(vocabulary);
    overrides.push_back("data.path=" + tokens.directory().string());
    overrides.emplace_back("data.format=bin");
    overrides.push_back("data.vocab_size=" + std::to_string(vocabulary));
    const Config config = load_config(file, overrides);
    const Dataset data(data_options(config));
    Learner learner(config, data);
    const double flops = flops_per_step(config, learner);
    const double peak = measure_peak_flops();

    std::int64_t step = 0;
    time_steps(learner, step, warmup);
    if (worker) {
        std::string settings = to_json(config);
        std::replace(settings.begin(), settings.end(), '\n', ' '); // between tokens: in strings it is escaped
        std::printf(R"({"parameters": %lld, "flops_per_step": %.0f, "peak_flops": %.0f, "simd": "%s", "blas": "%s", )"
                    R"("config": %s})"
                    "\n",
                    static_cast<long long>(learner.table().count()), flops, peak, simd_name().c_str(),
                    (blas.name + ", " + blas.core + ", " + blas.threading).c_str(), settings.c_str());
        std::fflush(stdout);
        serve(learner, step);
        return 0;
    }
    const std::vector<double> seconds = time_steps(learner, step, steps);
    const double typical = median(seconds);
    if (json) {
        std::printf(R"({"config": "%s", "parameters": %lld, "threads": %d, "seconds": )", config.name.c_str(),
                    static_cast<long long>(learner.table().count()), threads());
        print_array(seconds);
        std::printf(R"(, "median_seconds": %.9g, "tokens_per_second": %.6g, "flops_per_second": %.6g, )"
                    R"("peak_flops": %.6g, "share_of_peak": %.4f, "peak_bytes": %.0f})"
                    "\n",
                    typical, static_cast<double>(learner.tokens_per_step()) / typical, flops / typical, peak,
                    flops / typical / peak, peak_bytes());
        return 0;
    }
    const auto [fastest, slowest] = std::minmax_element(seconds.begin(), seconds.end());
    std::printf("%s: %lld parameters, %lld tokens a step, %d threads, %s, %s\n", config.name.c_str(),
                static_cast<long long>(learner.table().count()), static_cast<long long>(learner.tokens_per_step()),
                threads(), simd_name().c_str(), blas.name.c_str());
    std::printf("step    %.1f ms median of %lld (%.1f to %.1f)\n", 1e3 * typical, static_cast<long long>(steps),
                1e3 * *fastest, 1e3 * *slowest);
    std::printf("speed   %.1f GFLOP/s, %.0f %% of the %.0f that multiply-adds on registers reach here\n",
                1e-9 * flops / typical, 100 * flops / typical / peak, 1e-9 * peak);
    const std::int64_t every = config.stability.probe_every;
    if (probes && every > 0)
        std::printf("probes  %.2f %% of the time of a step, at one in %lld steps\n",
                    100 * probe_share(learner, step, steps, every), static_cast<long long>(every));
    std::printf("memory  %.1f MiB at most\n", peak_bytes() / (1 << 20));
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    try {
        return run(argc, argv);
    } catch (const std::exception& e) {
        std::cerr << "bench_step: " << e.what() << '\n';
        return 1;
    }
}
