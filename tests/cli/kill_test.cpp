// kill -9 at random points of a run, and what a resume makes of it.

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "ballast/base/rng.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"
#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

constexpr std::int64_t kSteps = 300;
constexpr std::int64_t kInterval = 7; ///< steps between checkpoints

/// A JSON object without what depends on the clock, or says that the run was taken up again.
std::string timeless(const std::string& text) {
    Json record = Json::parse(text);
    for (const char* key : {"seconds", "tokens_per_second", "started", "finished", "resumed", "checksum", "ballast"})
        record.erase(key);
    if (record.contains("state"))
        for (const char* key : {"seconds", "started", "resumed"})
            record["state"].erase(key);
    return record.dump();
}

/// The records of a file but those of resumes, each without what timeless() leaves out.
std::string timeless_lines(const fs::path& path) {
    std::string text;
    for (const std::string& line : lines_of(content(path)))
        if (!line.empty() && Json::parse(line).value("kind", "") != "resume") text += timeless(line) + "\n";
    return text;
}

/// All that must not depend on how a run came to its end: parameters, moments, where training and its detectors are,
/// every record, the verdict.
void require_same_run(const fs::path& a, const fs::path& b) {
    const fs::path left = ballast::checkpoint_path(a, kSteps);
    const fs::path right = ballast::checkpoint_path(b, kSteps);
    for (const char* file : {"params.safetensors", "optim.safetensors", "config.json"})
        CHECK(content(left / file) == content(right / file));
    CHECK(timeless(content(left / "state.json")) == timeless(content(right / "state.json")));
    CHECK(timeless(content(a / "summary.json")) == timeless(content(b / "summary.json")));
    for (const char* file : {"metrics.jsonl", "events.jsonl"})
        CHECK(timeless_lines(a / file) == timeless_lines(b / file));
    CHECK(ballast::list_checkpoints(a) == ballast::list_checkpoints(b));
    CHECK(ballast::read_metrics(a / "metrics.jsonl").size() == static_cast<std::size_t>(kSteps));
}

/// What a killed process may leave: records that read, and every checkpoint but that of the step under way.
void require_usable(const fs::path& run) {
    if (!fs::exists(run / "metrics.jsonl")) return;
    const std::vector<ballast::StepRecord> records = ballast::read_metrics(run / "metrics.jsonl");
    const std::int64_t last = records.empty() ? 0 : records.back().step;
    const ballast::NewestCheckpoint newest = ballast::newest_checkpoint(run);
    CHECK(newest.passed_over.empty());
    const std::int64_t saved = newest.path ? ballast::read_checkpoint_info(*newest.path).state.step : 0;
    // Records of steps behind a checkpoint are there only once it is.
    CHECK(saved >= std::max<std::int64_t>(last - 1, 0) / kInterval * kInterval);
    CHECK(saved <= last);
}

bool is_saving(const fs::path& run) {
    std::error_code problem;
    for (fs::directory_iterator entry(run / "checkpoints", problem), end; !problem && entry != end;
         entry.increment(problem))
        if (entry->path().filename().string().starts_with(".tmp-")) return true;
    return false;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool has_ended(pid_t child) {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

/// Kills `count` runs or resumes of runs at random points, every second one while it saves a checkpoint, up to
/// `kKillsOfARun` times each, and compares each run, finished, with one that nobody disturbed.
void kill_at_random_points(int count) {
    constexpr int kKillsOfARun = 5;
    Workplace work;
    work.write_small_run(R"("micro_batch": 2, "steps": )" + std::to_string(kSteps) + R"(, "checkpoint_every": )" +
                         std::to_string(kInterval));
    const Workplace::Arguments settings{"--set", "model.dropout=0.1", "--set", "log.csv=true"};
    const auto train = [&](const std::string& out) {
        Workplace::Arguments arguments = train_small(settings);
        arguments.insert(arguments.end(), {"--out", out});
        return arguments;
    };
    const Clock::time_point start = Clock::now();
    REQUIRE(work.run(train("unbroken")).status == 0);
    // As long as a run lasts, which another load of the machine changes: whoever is faster corrects it.
    double whole = seconds_since(start);

    const ballast::RandomStream random(1, "kill");
    int killed = 0;
    std::uint64_t tries = 0;
    for (int number = 0; killed < count; ++number) {
        const std::string name = "run" + std::to_string(number);
        const fs::path run = work / name;
        const auto go_on = [&] {
            return fs::exists(run) ? Workplace::Arguments{"resume", name, "--threads", "1"} : train(name);
        };
        for (int kills = 0; kills < kKillsOfARun && killed < count; ++tries) {
            // A resume has less before it than a whole run: short waits are the more useful ones.
            const double share = random.uniform(tries) / (1 + kills);
            const Clock::time_point begin = Clock::now();
            const pid_t child = work.start(go_on());
            while (seconds_since(begin) < share * whole && !has_ended(child))
                std::this_thread::sleep_for(std::chrono::microseconds(100));
            if (has_ended(child)) whole = std::min(whole, seconds_since(begin));
            if (tries % 2 == 1)
                while (!is_saving(run) && !has_ended(child))
                    std::this_thread::yield();
            ::kill(child, SIGKILL);
            CAPTURE(number, kills, share);
            const Outcome outcome = work.finish(child);
            if (outcome.status != 128 + SIGKILL) {
                CAPTURE(outcome.err);
                REQUIRE(outcome.status == 0);
                break; // it was faster
            }
            ++kills;
            ++killed;
            require_usable(run);
        }
        CAPTURE(number);
        const Outcome end = work.run(go_on());
        CAPTURE(end.err);
        REQUIRE(end.status == 0);
        require_same_run(run, work / "unbroken");
        fs::remove_all(run);
    }
    // What processes that died before their run directory was whole left is out of the way of everything.
    for (const auto& entry : fs::directory_iterator(work.path())) {
        const std::string left = entry.path().filename().string();
        CHECK((!left.starts_with("run") || !entry.is_directory()));
    }
}

} // namespace

TEST_CASE("a run that is killed at random points ends as if nothing had happened") { kill_at_random_points(15); }

TEST_CASE("a run that is killed at any of many random points ends as if nothing had happened", "[long]") {
    kill_at_random_points(200);
}
