// What a user is told of a run that went wrong, and the commands that follow from it.

#include <nlohmann/json.hpp>

#include "catch.h"
#include "program.h"

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

    const Outcome json = work.run({"replay", "runs/small", "--step", step, "--threads", "1", "--json"});
    const Json result = Json::parse(json.out);
    CHECK(result.at("exact") == true);
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

TEST_CASE("a stable run has no cause, and any of its steps can be replayed") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const Outcome diagnosed = work.run({"diagnose", "runs/small"});
    CHECK(diagnosed.status == 0);
    CHECK(contains(diagnosed.out, "verdict: stable"));
    CHECK(contains(diagnosed.out, "no cause found"));
    CHECK(work.run({"replay", "runs/small", "--step", "15", "--from", "0", "--threads", "1"}).status == 0);

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
