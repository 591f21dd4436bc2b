// Sweeps as a user runs them: to the end, and through interruptions.

#include <algorithm>
#include <csignal>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "ballast/base/rng.h"
#include "ballast/lab/sweep.h"
#include "ballast/lab/sweep_table.h"
#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr int kSteps = 40;

/// 2 placements, 2 learning rates, 2 seeds; at the higher rate everything diverges.
void write_sweep(const Workplace& work, const std::string& more = "", int steps = kSteps) {
    write(work / "sweep.json", R"({
  "name": "little",
  "base": {"extends": "small.json", "schedule.kind": "constant",
           "train": {"checkpoint_every": 5, "steps": )" +
                                   std::to_string(steps) + R"(}, "stability.divergence_window": 5},
  "grid": {"model.norm.placement": ["pre", "none"],
           "optimizer.lr": [0.001, 300]},
  "seeds": [1, 2])" + more + "}\n");
}

Workplace::Arguments sweep(const std::string& out, Workplace::Arguments more = {}) {
    more.insert(more.begin(), {"sweep", "sweep.json", "--out", out});
    return more;
}

/// The table without what depends on the clock: its last two columns.
std::string timeless_csv(const fs::path& table) {
    std::string text;
    for (std::string line : lines_of(content(table))) {
        for (int column = 0; column < 2; ++column)
            line.erase(line.rfind(','));
        text += line + "\n";
    }
    return text;
}

Json timeless_json(const fs::path& table) {
    Json json = Json::parse(content(table));
    for (Json& run : json.at("runs"))
        for (const char* key : {"tokens_per_second", "seconds"})
            run.erase(key);
    return json;
}

void require_same_table(const fs::path& a, const fs::path& b) {
    CHECK(timeless_csv(a / "table.csv") == timeless_csv(b / "table.csv"));
    CHECK(timeless_json(a / "table.json") == timeless_json(b / "table.json"));
}

/// Processes whose parent is `parent`.
std::vector<pid_t> children_of(pid_t parent) {
    std::vector<pid_t> found;
    std::ifstream file("/proc/" + std::to_string(parent) + "/task/" + std::to_string(parent) + "/children");
    for (pid_t child = 0; file >> child;)
        found.push_back(child);
    return found;
}

bool has_ended(pid_t child) {
    siginfo_t info{};
    return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == child;
}

std::size_t ended_runs(const fs::path& sweep) {
    std::size_t count = 0;
    std::error_code problem;
    for (fs::directory_iterator entry(sweep / "runs", problem), end; !problem && entry != end; entry.increment(problem))
        if (fs::exists(entry->path() / "summary.json")) ++count;
    return count;
}

} // namespace

TEST_CASE("a sweep trains every cell and tabulates it") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    const Outcome dry = work.run(sweep("s", {"--dry-run"}));
    CHECK(dry.status == 0);
    CHECK(lines_of(dry.out).size() == 1 + 8 + 1);
    CHECK(contains(dry.out, "  placement=pre,lr=0.001,seed=1"));
    CHECK(contains(dry.out, "MiB"));
    CHECK_FALSE(fs::exists(work / "s"));

    const Outcome outcome = work.run(sweep("s"));
    CAPTURE(outcome.err, outcome.out);
    REQUIRE(outcome.status == 0);
    CHECK(contains(outcome.out, "8/8 "));
    CHECK(contains(outcome.out, "learning rate sensitivity"));
    CHECK(contains(outcome.out, "next: look at s/report.html | ballast compare s\n"));
    // A loss of 10^30 would push the table out of every terminal.
    for (const std::string& line : lines_of(outcome.out))
        CHECK(line.size() < 120);
    const std::string page = content(work / "s/report.html");
    CHECK(contains(page, "placement=pre,lr=0.001,seed=1"));
    CHECK(contains(page, "placement=none,lr=300,seed=2"));

    const std::vector<ballast::SweepRun> runs = ballast::runs_of_sweep(work / "s");
    REQUIRE(runs.size() == 8);
    CHECK(runs[1].name == "placement=pre,lr=0.001,seed=2");
    CHECK(runs[1].settings ==
          std::vector<ballast::Setting>{{"model.norm.placement", "pre"}, {"optimizer.lr", "0.001"}});
    CHECK(runs[1].seed == 2);
    const Json table = Json::parse(content(work / "s/table.json"));
    CHECK(table.at("lr_sensitivity").size() == 2);
    std::set<std::string> states;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        // The row is what the run says of itself.
        const Json& row = table.at("runs").at(i);
        const Json summary = Json::parse(content(runs[i].path / "summary.json"));
        CHECK(row.at("run") == runs[i].name);
        CHECK(row.at("verdict") == summary.at("verdict"));
        CHECK(row.at("step") == summary.at("step"));
        if (summary.at("step") == kSteps && summary.contains("final_val_loss"))
            CHECK(row.at("final_loss") == summary.at("final_val_loss"));
        else
            CHECK(row.at("final_loss").is_null());
        states.insert(row.at("state").get<std::string>());
        const Json first = Json::parse(lines_of(content(runs[i].path / "metrics.jsonl")).front());
        CHECK(row.at("initial_loss") == first.at("loss"));
    }
    CHECK(states == std::set<std::string>{"diverged", "done"});
    CHECK(lines_of(content(work / "s/table.csv")).size() == 9);

    // Once more there is nothing to do, and nothing changes.
    const std::string before = content(work / "s/table.csv");
    const Outcome again = work.run(sweep("s"));
    CHECK(again.status == 0);
    CHECK(contains(again.out, "8 of 8 runs have ended before"));
    CHECK(content(work / "s/table.csv") == before);

    // The page of many steps is left to who asks for it.
    fs::remove(work / "s/report.html");
    Json summary = Json::parse(content(runs[2].path / "summary.json"));
    summary["step"] = 100001;
    write(runs[2].path / "summary.json", summary.dump());
    const Outcome large = work.run(sweep("s"));
    CHECK(large.status == 0);
    CHECK(contains(large.out, "next: ballast compare s | ballast report s -o s/report.html\n"));
    CHECK_FALSE(fs::exists(work / "s/report.html"));
}

TEST_CASE("a run of a sweep is the run that train makes") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    REQUIRE(work.run(sweep("s", {"--jobs", "1", "--threads", "2"})).status == 0);
    const fs::path run = work / "s/runs/placement=pre,lr=0.001,seed=2";
    REQUIRE(work.run({"train", "s/configs/placement=pre,lr=0.001,seed=2.json", "--out", "alone", "--threads", "1"})
                .status == 0);
    const std::string parameters = "checkpoints/step-000000" + std::to_string(kSteps) + "/params.safetensors";
    REQUIRE(fs::exists(run / parameters));
    CHECK(content(run / parameters) == content(work / "alone" / parameters));
}

TEST_CASE("a sweep that is killed, or whose runs are, ends with the table of one that nobody disturbed") {
    Workplace work;
    work.write_small_run();
    write_sweep(work, "", 400);
    REQUIRE(work.run(sweep("unbroken")).status == 0);
    const ballast::RandomStream random(5, "kill a sweep");
    int killed = 0, children_killed = 0;
    for (std::uint64_t attempt = 0; attempt < 6; ++attempt) {
        const pid_t process = work.start(sweep("broken"));
        const std::size_t before = ended_runs(work / "broken");
        wait_until([&] { return has_ended(process) || !children_of(process).empty(); });
        std::this_thread::sleep_for(std::chrono::milliseconds(static_cast<int>(200 * random.uniform(attempt))));
        // By turns a run of it dies and is taken up, then the sweep itself dies.
        for (const pid_t child : children_of(process))
            if (attempt % 2 == 0 && children_killed < 3 && ::kill(child, SIGKILL) == 0) ++children_killed;
        wait_until([&] { return has_ended(process) || ended_runs(work / "broken") > before; });
        ::kill(process, SIGKILL);
        if (work.finish(process).status == 128 + SIGKILL) ++killed;
    }
    CHECK(killed >= 3);
    CHECK(children_killed >= 1);
    const Outcome end = work.run(sweep("broken"));
    CAPTURE(end.out, end.err);
    REQUIRE(end.status == 0);
    CHECK(contains(end.out, "runs have ended before"));
    require_same_table(work / "broken", work / "unbroken");
}

TEST_CASE("a signal stops the runs of a sweep, which save") {
    Workplace work;
    work.write_small_run();
    write_sweep(work, "", 100000);
    const pid_t process = work.start(sweep("s"));
    REQUIRE(wait_until([&] {
        std::error_code ignored;
        return fs::exists(work / "s/runs", ignored) &&
               std::any_of(fs::directory_iterator(work / "s/runs"), fs::directory_iterator(),
                           [](const auto& run) { return lines_of(content(run.path() / "metrics.jsonl")).size() > 3; });
    }));
    const std::vector<pid_t> children = children_of(process);
    CHECK_FALSE(children.empty());
    ::kill(process, SIGINT);
    const Outcome outcome = work.finish(process);
    CHECK(outcome.status == 130);
    CHECK(contains(outcome.out, "interrupted and saved; the same command goes on with it"));
    for (const pid_t child : children)
        CHECK(::kill(child, 0) != 0);
    for (const auto& run : fs::directory_iterator(work / "s/runs")) {
        if (content(run.path() / "metrics.jsonl").empty()) continue; // had only just been started
        CHECK_FALSE(Json::parse(content(run.path() / "summary.json")).at("verdict").get<std::string>().empty());
    }
}

TEST_CASE("a grid may grow, and nothing else about a sweep may change") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    REQUIRE(work.run(sweep("s")).status == 0);
    std::string text = content(work / "sweep.json");
    text.replace(text.find("[1, 2]"), 6, "[1, 2, 3]");
    write(work / "sweep.json", text);
    const Outcome more = work.run(sweep("s"));
    CHECK(more.status == 0);
    CHECK(contains(more.out, "8 of 12 runs have ended before"));
    CHECK(lines_of(content(work / "s/table.csv")).size() == 13);

    const Outcome other = work.run(sweep("s", {"--set", "model.layers=1"}));
    CHECK(other.status == 2);
    CHECK(lines_of(other.err)[0] == "s: the directory of another sweep; choose another --out, or undo what differs");
    CHECK(lines_of(other.err)[1] ==
          "s: run placement=pre,lr=0.001,seed=1: model.layers is 2 in the directory, 1 in the sweep");
    text.replace(text.find("[1, 2, 3]"), 9, "[3]");
    write(work / "sweep.json", text);
    const Outcome less = work.run(sweep("s"));
    CHECK(less.status == 2);
    CHECK(contains(less.err, "s: run placement=pre,lr=0.001,seed=1 is not in the sweep any more"));
}

TEST_CASE("a sweep that cannot be is refused before anything runs") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    const auto refused = [&](const Workplace::Arguments& arguments, const std::string& expected) {
        const Outcome outcome = work.run(arguments);
        CAPTURE(outcome.err, expected);
        CHECK(outcome.status == 2);
        CHECK(contains(outcome.err, expected));
        CHECK_FALSE(fs::exists(work / "new"));
    };
    refused({"sweep", "missing.json", "-o", "new"}, "missing.json");
    refused(sweep("new", {"--set", "model.layrs=3"}), "--set: model.layrs: is not a key; did you mean `layers`?");
    refused(sweep("new", {"--set", "seed=3"}), "--set: seed: is set by `seeds`, too; expected one place that sets it");
    refused(sweep("new", {"--set", "name=mine"}), "--set: name: cannot be set; each cell is named by its settings");
    refused(sweep("new", {"--set", "data.path=nothing.txt"}),
            "sweep.json: cell placement=pre,lr=0.001,seed=1: " + (work / "nothing.txt").string());
    refused(sweep("new", {"--set", "model.width=1000000"}), "out of memory: the run needs about ");
    refused(sweep("new", {"--set", "init_from.run=absent"}), "sweep.json: cell placement=pre,lr=0.001,seed=1: ");
    REQUIRE(work.run(train_small({"--out", "source"})).status == 0);
    refused(sweep("new", {"--set", "init_from.run=source", "--set", "model.width=32"}), "its model.width is 16");
    refused(sweep("new", {"--set", "init_from.run=source", "--set", "data.tokenizer.kind=byte"}), "256 bytes");
    fs::create_directory(work / "full");
    write(work / "full/notes.txt", "mine");
    refused(sweep("full"), "full: already exists and is no sweep's directory");
    REQUIRE(work.run(train_small()).status == 0);
    refused(sweep("runs/small"), "runs/small: already exists and is no sweep's directory");
    REQUIRE(work.run(sweep("s")).status == 0);
    refused({"sweep", "s", "-o", "new"}, "s: a sweep's directory; expected its sweep file");
}

TEST_CASE("a run that fails is named, and the others go on") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    REQUIRE(work.run(sweep("s")).status == 0);
    const fs::path run = work / "s/runs/placement=pre,lr=0.001,seed=1";
    fs::remove(run / "summary.json");
    fs::remove_all(work / "s/runs/placement=pre,lr=0.001,seed=2");
    write(run / "metrics.jsonl", "{}\n" + content(run / "metrics.jsonl"));
    write(work / "s/runs/placement=pre,lr=300,seed=1/summary.json", "{}");
    fs::remove(work / "s/runs/placement=pre,lr=300,seed=2/config.json");
    // Damage is found before anything runs, and keeps no other run from it.
    const Outcome outcome = work.run(sweep("s"));
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.out, "placement=pre,lr=0.001,seed=1: failed: "));
    CHECK(contains(outcome.out, "metrics.jsonl:1: "));
    CHECK(contains(outcome.out, "placement=pre,lr=300,seed=1: failed: "));
    CHECK(contains(outcome.out, "summary.json: has no verdict"));
    CHECK(contains(outcome.out, "placement=pre,lr=300,seed=2: failed: "));
    CHECK(fs::exists(work / "s/runs/placement=pre,lr=0.001,seed=2/summary.json"));
    const Json row = Json::parse(content(work / "s/table.json")).at("runs").at(0);
    CHECK(row.at("state") == "unfinished");
    CHECK(row.at("final_loss").is_null());
    fs::remove(run / "metrics.jsonl");
    fs::remove_all(run / "checkpoints");
    write(run / "config.json", "{}");
    const Outcome failed = work.run(sweep("s"));
    CHECK(failed.status == 1);
    CHECK(contains(failed.out, "placement=pre,lr=0.001,seed=1: failed: "));
}

TEST_CASE("a page that cannot be written is said, and costs nothing else") {
    Workplace work;
    work.write_small_run();
    write_sweep(work);
    REQUIRE(work.run(sweep("a sweep")).status == 0);
    const std::string table = content(work / "a sweep/table.csv");
    fs::remove(work / "a sweep/report.html");
    fs::create_directories(work / "a sweep/report.html/in the way");
    const Outcome again = work.run(sweep("a sweep"));
    CHECK(again.status == 1);
    CHECK(contains(again.err, "a sweep/report.html: "));
    CHECK(contains(again.out, "a sweep/table.csv, table.json\n"));
    CHECK(contains(again.out, "next: ballast compare 'a sweep'\n"));
    CHECK(content(work / "a sweep/table.csv") == table);
    // Where no run has trained, there is nothing to look at.
    fs::remove_all(work / "a sweep/runs");
    fs::create_directory(work / "a sweep/runs");
    for (const ballast::SweepRun& run : ballast::runs_of_sweep(work / "a sweep"))
        write(run.path, "in the way");
    const Outcome failed = work.run(sweep("a sweep"));
    CAPTURE(failed.out, failed.err);
    CHECK(failed.status == 1);
    CHECK(contains(failed.out, ": failed: "));
    CHECK_FALSE(contains(failed.out, "next: "));
}

TEST_CASE("a sweep's directory may begin with a dash") {
    Workplace work;
    work.write_small_run();
    write_sweep(work, "", 2);
    const Outcome outcome = work.run({"sweep", "sweep.json", "--out=-s"});
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.out, "next: look at ./-s/report.html | ballast compare ./-s\n"));
}

TEST_CASE("on a terminal a sweep shows a live table that it takes away again") {
    Workplace work;
    work.write_small_run();
    write_sweep(work, "", 4000); // long enough to be looked at more than once
    const Outcome outcome = work.run_on_terminal(
        sweep("s", {"--set", "stability.probe_every=0", "--set", "train.checkpoint_every=2000"}), 100);
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.out, " running, "));
    CHECK(contains(outcome.out, " diverged"));
    CHECK(contains(outcome.out, "ETA "));
    CHECK(contains(outcome.out, "/4000"));
    CHECK(contains(outcome.out, "\x1b[J"));
    CHECK(outcome.out.rfind(" running, ") < outcome.out.rfind("\x1b[J"));
}

TEST_CASE("the sweeps that are shipped are sweeps") {
    Workplace work;
    std::size_t count = 0;
    for (const auto& entry : fs::directory_iterator(fs::path(BALLAST_SOURCE_DIR) / "configs/sweep")) {
        const Outcome outcome = work.run({"sweep", entry.path().string(), "--dry-run"});
        CAPTURE(entry.path(), outcome.err);
        CHECK(outcome.status == 0);
        ++count;
    }
    CHECK(count >= 2);
}
