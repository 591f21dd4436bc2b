// What a user is told of a run that went wrong, and the commands that follow from it.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;
using Json = nlohmann::json;

namespace {

/// A run that overflows.
Outcome train_to_overflow(Workplace& work) {
    work.write_small_run(R"("steps": 50, "checkpoint_every": 20)");
    return work.run(train_small({"--set", "optimizer.lr=1e20", "--set", "schedule.kind=constant", "--set",
                                 "schedule.warmup=0", "--set", "optimizer.weight_decay=0"}));
}

} // namespace

TEST_CASE("a run that goes wrong says what happened, where it began and what to do, and that works") {
    Workplace work;
    const Outcome trained = train_to_overflow(work);
    CAPTURE(trained.out, trained.err);
    REQUIRE(trained.status == 3);
    const std::vector<std::string> lines = lines_of(trained.out);
    REQUIRE(lines.size() >= 2);
    CHECK(contains(trained.out, " is not finite\n")); // the event, as it happened
    CHECK(contains(lines[lines.size() - 2], "non_finite (step "));
    CHECK(contains(lines[lines.size() - 2], "began at step "));
    const std::string& next = lines.back();
    CHECK(contains(next, "next: ballast diagnose runs/small | ballast replay runs/small --step "));
    const std::string step = next.substr(next.rfind(' ') + 1);

    const Outcome replayed = work.run({"replay", "runs/small", "--step", step, "--threads", "1"});
    CAPTURE(replayed.out, replayed.err);
    CHECK(replayed.status == 0);
    CHECK(contains(replayed.out, "first that is not finite: "));
    CHECK(contains(replayed.out, "its inputs:"));
    CHECK(contains(replayed.out, "loss nan"));
    CHECK_FALSE(contains(replayed.out, "-nan"));

    const Outcome json = work.run({"replay", "runs/small", "--step", step, "--threads", "1", "--json"});
    const Json result = Json::parse(json.out);
    CHECK(result.at("exact") == true);
    std::vector<int> starts = result.at("starts");
    CHECK(std::adjacent_find(starts.begin(), starts.end()) == starts.end());
    CHECK(result.at("trace").back().at("range").at("min") == "NaN"); // nothing in it is finite
    CHECK(result.at("trace").at(result.at("first_out").get<std::size_t>()).at("range").at("not_finite") > 0);

    const Outcome diagnosed = work.run({"diagnose", "runs/small"});
    CHECK(diagnosed.status == 0);
    CHECK(contains(diagnosed.out, "verdict: non_finite"));
    CHECK(contains(diagnosed.out, "1. "));
    CHECK(contains(diagnosed.out, "   try: "));
    const Json causes = Json::parse(work.run({"diagnose", "runs/small", "--json"}).out).at("causes");
    CHECK(causes.at(0).at("cause") == "lr_too_high");
    CHECK_FALSE(causes.at(0).at("evidence").empty());
}

TEST_CASE("files that are cut short, or of two runs, are told of") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    REQUIRE(work.run(train_small({"--set", "seed=2", "--out", "runs/other"})).status == 0);
    CHECK(work.run({"diagnose", "runs/small"}).err.empty());
    const auto diagnosed_with = [&](const std::string& file, const std::string& text) {
        const std::string whole = content(work / "runs/small" / file);
        write(work / "runs/small" / file, text);
        const Outcome outcome = work.run({"diagnose", "runs/small"});
        write(work / "runs/small" / file, whole);
        CHECK(outcome.status == 0);
        return outcome.err;
    };
    const std::string warning = "warning: the record may not be that of one run: runs/small/";
    const std::string metrics = content(work / "runs/small/metrics.jsonl");
    CHECK(contains(diagnosed_with("metrics.jsonl", metrics.substr(0, metrics.size() / 2)),
                   warning + "metrics.jsonl: ends with step "));
    for (const char* file : {"metrics.jsonl", "layers.jsonl", "summary.json", "config.json"}) {
        CAPTURE(file);
        CHECK(contains(diagnosed_with(file, content(work / "runs/other" / file)), warning));
    }
    CHECK(contains(diagnosed_with("events.jsonl", R"({"step":30,"kind":"resume","message":""})"
                                                  "\n"),
                   warning + "events.jsonl: ends with step 30"));
    CHECK(contains(diagnosed_with("checkpoints/step-00000020/state.json", "{"), "step-00000020/state.json: "));
    fs::remove(work / "runs/small/events.jsonl");
    CHECK(contains(work.run({"diagnose", "runs/small"}).err, warning + "events.jsonl: missing"));
    CHECK(Json::parse(work.run({"diagnose", "runs/small", "--json"}).out).at("doubts").size() == 1);
}

TEST_CASE("a run does not go on from checkpoints of another run or of a newer version, which would be lost") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string metrics = content(work / "runs/small/metrics.jsonl");
    std::string expected;
    SECTION("another run") {
        REQUIRE(work.run(train_small({"--set", "seed=2", "--out", "runs/other"})).status == 0);
        fs::remove_all(work / "runs/small/checkpoints");
        fs::copy(work / "runs/other/checkpoints", work / "runs/small/checkpoints", fs::copy_options::recursive);
        expected = "step-00000020: of another run than runs/small/metrics.jsonl";
    }
    SECTION("a newer version") {
        for (const char* checkpoint : {"step-00000010", "step-00000020"})
            write(work / "runs/small/checkpoints" / checkpoint / "state.json", R"({"format": 2, "ballast": "9.1.0"})");
        expected = "runs/small: to go on from less would replace checkpoints of another version of ballast";
    }
    const std::string state = content(work / "runs/small/checkpoints/step-00000020/state.json");
    const Outcome outcome = work.run({"resume", "runs/small", "--set", "train.steps=40", "--threads", "1"});
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, expected));
    CHECK(content(work / "runs/small/metrics.jsonl") == metrics);
    CHECK(content(work / "runs/small/checkpoints/step-00000020/state.json") == state);
}

TEST_CASE("a stable run has no cause, and any of its steps can be replayed") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const Outcome diagnosed = work.run({"diagnose", "runs/small"});
    CHECK(diagnosed.status == 0);
    CHECK(contains(diagnosed.out, "verdict: stable"));
    CHECK(contains(diagnosed.out, "no cause found"));
    const Outcome replayed = work.run({"replay", "runs/small", "--step", "15", "--from", "0", "--threads", "1"});
    CHECK(replayed.status == 0);
    CHECK(
        contains(replayed.out, "everything is finite, and has an RMS within a factor of 4 of that of steps 4 to 11\n"));

    const Outcome outside = work.run({"replay", "runs/small", "--step", "21"});
    CHECK(outside.status == 2);
    CHECK(contains(outside.err, "outside the run, which has recorded steps 1 to 20"));
    CHECK(work.run({"replay", "runs/small"}).status == 2);
    CHECK(work.run({"replay", "runs", "--step", "1"}).status == 2);
    CHECK(work.run({"diagnose", "runs/smal"}).status == 2);

    // Another library may round in another way: that is said first.
    std::string facts = content(work / "runs/small/environment.json");
    facts.replace(facts.find("\"blas\": \""), 9, "\"blas\": \"Another");
    write(work / "runs/small/environment.json", facts);
    const Outcome doubtful = work.run({"replay", "runs/small", "--step", "15", "--threads", "1"});
    CHECK(contains(doubtful.err, "warning: the replay may not be exact: blas: Another"));
}
