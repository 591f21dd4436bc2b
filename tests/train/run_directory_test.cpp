#include "ballast/train/run_directory.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/config/config.h"
#include "catch.h"
#include "temporary_directory.h"
#include "train/fault_calls.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

constexpr std::string_view kConfig = "{\"name\": \"test\"}\n";

Environment environment() {
    Environment facts;
    facts.version = "0.1.0";
    facts.cpu = "A \"CPU\"";
    facts.threads = 3;
    return facts;
}

RunDirectory create(const fs::path& path, const FileCalls& calls = kQuickCalls) {
    return RunDirectory::create(path, kConfig, environment(), calls);
}

template <class Wanted>
std::string problem_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const Wanted& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

} // namespace

TEST_CASE("a new run directory holds its config and environment") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "runs/deep/run";
    const RunDirectory run = create(path / ""); // with a slash at its end
    CHECK(run.path() == path);
    CHECK(names_in(path) == std::vector<std::string>{"checkpoints", "config.json", "environment.json", "lock"});
    CHECK(names_in(path.parent_path()) == std::vector<std::string>{"run"});
    CHECK(run.config_json() == kConfig);
    CHECK(differences(run.environment(), environment()).empty());
}

TEST_CASE("nothing is ever overwritten by a new run") {
    const TemporaryDirectory directory;
    create(directory / "run");
    CHECK(problem_of<UsageError>([&] { create(directory / "run"); }) ==
          (directory / "run").string() + ": already exists; choose another --out, or go on with it: ballast resume " +
              (directory / "run").string());
    fs::create_directory(directory / "empty");
    std::ofstream(directory / "file") << "x";
    fs::create_symlink("nowhere", directory / "link");
    for (const char* name : {"empty", "file", "link", "."})
        CHECK(problem_of<UsageError>([&] { create(directory / name); }) ==
              (directory / name).string() + ": already exists; choose another --out");
    CHECK_FALSE(problem_of<IoError>([&] { create(directory / "file/run"); }).empty());
    CHECK(names_in(directory.path()) == std::vector<std::string>{"empty", "file", "link", "run"});
}

TEST_CASE("a new run directory is whole or absent, whatever fails") {
    int calls_of_a_create = 0;
    {
        const TemporaryDirectory directory;
        const FaultCalls counter(-1, FaultCalls::Fault::error);
        create(directory / "run", counter);
        calls_of_a_create = counter.count();
    }
    REQUIRE(calls_of_a_create > 10);
    for (int where = 0; where < calls_of_a_create; ++where) {
        for (const auto fault : {FaultCalls::Fault::error, FaultCalls::Fault::death}) {
            CAPTURE(where, static_cast<int>(fault));
            const TemporaryDirectory directory;
            const int status = in_child_process([&] {
                const FaultCalls calls(where, fault);
                create(directory / "run", calls);
            });
            CHECK(status == (fault == FaultCalls::Fault::death ? 9 : 1));
            if (fs::exists(directory / "run")) {
                CHECK(RunDirectory::open_for_training(directory / "run").config_json() == kConfig);
            } else {
                if (fault == FaultCalls::Fault::error) CHECK(names_in(directory.path()).empty());
                create(directory / "run");
            }
        }
    }
}

TEST_CASE("what is not a run directory is said to be none") {
    const TemporaryDirectory directory;
    fs::create_directory(directory / "empty");
    std::ofstream(directory / "file") << "x";
    for (const auto& open : {std::function([](const fs::path& path) { RunDirectory::open(path); }),
                             std::function([](const fs::path& path) { RunDirectory::open_for_training(path); })}) {
        CHECK(contains(problem_of<UsageError>([&] { open(directory / "missing"); }), "missing: no such run directory"));
        CHECK(contains(problem_of<UsageError>([&] { open(directory / "empty"); }), "empty: not a run directory"));
        CHECK(contains(problem_of<UsageError>([&] { open(directory / "file"); }), "file: not a run directory"));
    }
    CHECK(names_in(directory / "empty").empty());
}

TEST_CASE("one process at a time trains in a run directory, any number reads") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "run";
    {
        const RunDirectory first = create(path);
        const std::string problem = problem_of<UsageError>([&] { RunDirectory::open_for_training(path); });
        CHECK(problem == path.string() + ": another process (" + std::to_string(::getpid()) +
                             ") works on this run; wait for it or stop it");
        CHECK(RunDirectory::open(path).config_json() == kConfig);
        // Another process is refused, too.
        CHECK(in_child_process([&] { RunDirectory::open_for_training(path); }) == 1);
    }
    RunDirectory second = RunDirectory::open_for_training(path);
    const RunDirectory moved(std::move(second));
    CHECK(contains(problem_of<UsageError>([&] { RunDirectory::open_for_training(path); }), "works on this run"));
}

TEST_CASE("the lock of a killed process is no dead end") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "run";
    CHECK(in_child_process([&] {
              const RunDirectory run = create(path);
              ::raise(SIGKILL);
          }) == -1);
    CHECK(fs::exists(path / "lock"));
    const RunDirectory run = RunDirectory::open_for_training(path);
    CHECK(run.config_json() == kConfig);
}

TEST_CASE("going on with a run removes the temporary files of a killed process") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "run";
    create(path);
    std::ofstream(path / ".summary.json.123-0.tmp") << "{";
    std::ofstream(path / "notes.tmp") << "the user's";
    RunDirectory::open(path);
    CHECK(fs::exists(path / ".summary.json.123-0.tmp"));
    RunDirectory::open_for_training(path);
    CHECK_FALSE(fs::exists(path / ".summary.json.123-0.tmp"));
    CHECK(fs::exists(path / "notes.tmp"));
}

TEST_CASE("a summary reads back and is replaced whole") {
    const TemporaryDirectory directory;
    const RunDirectory run = create(directory / "run");
    CHECK_THROWS_AS(run.summary(), IoError);
    RunSummary summary;
    summary.verdict = "non_finite";
    summary.reason = "loss is \"NaN\"\n";
    summary.step = 12;
    summary.tokens = 1200;
    summary.final_loss = std::numeric_limits<double>::quiet_NaN();
    summary.best_loss = 0.1;
    summary.best_loss_step = 7;
    summary.best_val_loss = 1.0 / 3;
    summary.best_val_step = 10;
    summary.tokens_per_second = 1e5;
    summary.seconds = 3.5;
    summary.started = "2024-05-31T12:00:00Z";
    summary.finished = utc_time();
    summary.resumed = 2;
    run.write_summary(summary);
    const RunSummary read = run.summary();
    CHECK(read.verdict == summary.verdict);
    CHECK(read.reason == summary.reason);
    CHECK(read.step == 12);
    CHECK(read.tokens == 1200);
    CHECK(std::isnan(read.final_loss));
    CHECK(read.best_loss == summary.best_loss);
    CHECK(read.best_loss_step == 7);
    CHECK_FALSE(read.final_val_loss.has_value());
    CHECK(read.best_val_loss == summary.best_val_loss);
    CHECK(read.best_val_step == 10);
    CHECK(read.tokens_per_second == 1e5);
    CHECK(read.seconds == 3.5);
    CHECK(read.started == summary.started);
    CHECK(read.finished == summary.finished);
    CHECK(read.resumed == 2);

    const std::string before = read_file(run.summary_path());
    const FaultCalls calls(1, FaultCalls::Fault::error);
    CHECK_THROWS_AS(run.write_summary(RunSummary{}, calls), IoError);
    CHECK(read_file(run.summary_path()) == before);

    std::ofstream(run.summary_path(), std::ios::trunc) << "{\"step\": \"x\"}";
    CHECK(problem_of<IoError>([&] { run.summary(); }) ==
          run.summary_path().string() + ": key 'step': expected an integer");
}

TEST_CASE("config and environment of a run that goes on are replaced") {
    const TemporaryDirectory directory;
    const RunDirectory run = create(directory / "run");
    Environment other = environment();
    other.threads = 8;
    other.cpu = "B";
    run.go_on_with("{}", other, 30);
    CHECK(run.config_json() == "{}");
    CHECK(differences(environment(), run.environment()) ==
          std::vector<std::string>{"cpu: A \"CPU\", now B", "threads: 3, now 8"});
    CHECK(decisive_differences(environment(), run.environment()) == std::vector<std::string>{"cpu: A \"CPU\", now B"});
}

TEST_CASE("the environments that a run had before are kept, of the steps that stand") {
    const TemporaryDirectory directory;
    const RunDirectory run = create(directory / "run");
    const auto go_on = [&](std::int64_t step, const std::string& cpu) {
        Environment now = environment();
        now.cpu = cpu;
        run.go_on_with(kConfig, now, step, kQuickCalls);
    };
    const auto cpus = [&](std::int64_t first, std::int64_t last) {
        std::string all;
        std::vector<std::string> lost;
        for (const Environment& environment : run.environments_of(first, last, lost))
            all += environment.cpu == "A \"CPU\"" ? "A" : environment.cpu;
        return all + std::string(lost.size(), '?');
    };
    CHECK(cpus(1, 99) == "A");
    go_on(30, "B");
    go_on(50, "C");
    CHECK(cpus(1, 99) == "ABC");
    CHECK(cpus(1, 30) == "A");
    CHECK(cpus(30, 31) == "AB");
    CHECK(cpus(31, 50) == "B");
    CHECK(cpus(51, 51) == "C");
    go_on(40, "D");
    CHECK(cpus(1, 99) == "ABD");
    fs::remove(run.path() / "environments/step-00000030.json");
    fs::create_directory(run.path() / "environments/step-00000030.json"); // lost
    go_on(20, "E");
    CHECK(cpus(21, 99) == "E");
    CHECK(cpus(1, 99) == "E?");
    CHECK_FALSE(fs::exists(run.path() / "configs")); // which has not changed
}

TEST_CASE("the configs that a run had before are kept, of the steps that stand") {
    const TemporaryDirectory directory;
    const RunDirectory run = create(directory / "run");
    const auto go_on = [&](std::int64_t step, const std::string& config) {
        run.go_on_with(config, environment(), step, kQuickCalls);
    };
    const auto configs = [&] {
        std::string all;
        for (const std::int64_t step : {1, 30, 31, 40, 41, 50, 51, 99})
            all += run.config_json_of(step) == kConfig ? "A" : run.config_json_of(step);
        return all;
    };
    CHECK(configs() == "AAAAAAAA");
    go_on(30, "B");
    go_on(50, "C");
    CHECK(configs() == "AABBBBCC");
    go_on(50, "D"); // C has made no step
    CHECK(configs() == "AABBBBDD");
    go_on(40, "E"); // from an earlier step again: what came behind it does not stand
    CHECK(configs() == "AABBEEEE");
    CHECK(run.config_changes() == std::vector<std::int64_t>{30, 40});
    CHECK(names_in(run.path() / "configs") == std::vector<std::string>{"step-00000030.json", "step-00000040.json"});
    go_on(35, "B"); // as it was then: E does not stand, either
    CHECK(configs() == "AABBBBBB");
    CHECK(run.config_changes() == std::vector<std::int64_t>{30});
    go_on(60, "B"); // nothing changes
    CHECK(run.config_changes() == std::vector<std::int64_t>{30});

    fs::remove(run.path() / "configs/step-00000030.json");
    fs::create_directory(run.path() / "configs/step-00000030.json"); // lost: the run goes on all the same
    go_on(25, "F");
    CHECK(configs() == "FFFFFFF"); // and F is not that of the first steps
    CHECK_THROWS_AS(run.config_of(25), ConfigError);
    fs::remove(run.path() / "configs/step-00000025.json");
    fs::create_directory(run.path() / "configs/step-00000025.json");
    go_on(25, "G");
    CHECK(run.config_json_of(26) == "G");
    CHECK_THROWS_AS(run.config_json_of(25), IoError);
}

TEST_CASE("the environment of this process is known") {
    set_threads(2);
    const Environment facts = current_environment();
    CHECK(facts.threads == 2);
    CHECK(facts.processors >= 1);
    CHECK(facts.precision == "float32");
    for (const std::string& text : {facts.version, facts.cpu, facts.simd, facts.blas, facts.blas_core, facts.compiler,
                                    facts.build, facts.os, facts.blas_threading})
        CHECK_FALSE(text.empty());
    CHECK(contains(facts.os, "Linux"));
    set_threads(available_processors());
}

TEST_CASE("times are in UTC and in order") {
    const std::string time = utc_time();
    REQUIRE(time.size() == 20);
    CHECK(time[10] == 'T');
    CHECK(time.back() == 'Z');
    CHECK(time > "2024");
    CHECK(utc_time() >= time);
}
