// Published claims as a user runs them: those that take seconds, and a trained one on a small scale.

#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "ballast/lab/claim.h"
#include "ballast/lab/claim_record.h"
#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

const std::string kConfigs = std::string(BALLAST_SOURCE_DIR) + "/configs/claims";

/// What makes every run of a claim a few steps long.
Workplace::Arguments shortened(Workplace::Arguments arguments) {
    for (const char* setting : {"train.steps=4", "train.batch=2", "train.eval_batches=1"})
        arguments.insert(arguments.end(), {"--set", setting});
    arguments.insert(arguments.end(), {"--configs", kConfigs});
    return arguments;
}

} // namespace

TEST_CASE("every claim of seconds passes, and its record is kept") {
    Workplace work;
    const Outcome outcome = work.run({"reproduce", "--fast", "--json"});
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 0);
    std::set<std::string> seen;
    for (const std::string& line : lines_of(outcome.out)) {
        const Json record = Json::parse(line);
        const std::string name = record.at("name");
        seen.insert(name);
        INFO(name);
        CHECK(record.at("verdict") == "PASS");
        CHECK(fs::exists(work / "claims" / (name + ".svg")));
        const auto kept = ballast::read_claim_record(work / "claims", name);
        REQUIRE(kept);
        CHECK(ballast::to_json(*kept) == line);
    }
    CHECK(seen == std::set<std::string>{"a1", "a2", "a3", "a4", "a5"});
    CHECK(contains(content(work / "claims" / "claims.md"), "| a1 |"));
}

TEST_CASE("a trained claim runs its sweeps once, and a trial decides nothing") {
    Workplace work;
    const Outcome outcome = work.run(shortened({"reproduce", "b15", "--json"}));
    CAPTURE(outcome.out, outcome.err);
    REQUIRE(outcome.status == 0);
    const Json record = Json::parse(outcome.out);
    CHECK(record.at("verdict") == "INCONCLUSIVE");
    CHECK(record.at("runs") == 3 + 27);
    const Json& control = record.at("figures").back();
    CHECK(control.at("name") == "control: largest change of a logit before any step");
    CHECK(control.at("value") == 0.0);
    CHECK(control.at("verdict") == "PASS");

    const Outcome again = work.run(shortened({"reproduce", "B15"}));
    CAPTURE(again.out, again.err);
    CHECK(again.status == 0);
    CHECK(contains(again.out, "27 of 27 runs have ended before"));
    CHECK(contains(again.out, "INCONCLUSIVE  b15"));
}

TEST_CASE("every claim that trains can be tried") {
    Workplace work;
    for (const ballast::Claim* claim : ballast::claims()) {
        if (claim->sweeps.empty()) continue;
        INFO(claim->name);
        Workplace::Arguments arguments{"reproduce", std::string(claim->name), "--json", "--configs", kConfigs};
        for (const std::string& setting :
             {"data.path=" + std::string(BALLAST_SOURCE_DIR) + "/data/tiny_tales.txt", std::string("train.batch=2"),
              std::string("train.eval_batches=1"), std::string("model.width=24")})
            arguments.insert(arguments.end(), {"--set", setting});
        // Its faults need their steps.
        if (claim->name != "b4") arguments.insert(arguments.end(), {"--set", "train.steps=4"});
        const Outcome outcome = work.run(arguments);
        CAPTURE(outcome.out, outcome.err);
        REQUIRE(outcome.status == 0);
        const Json record = Json::parse(outcome.out);
        CHECK(record.at("verdict") == "INCONCLUSIVE");
        CHECK_FALSE(record.at("figures").empty());
        CHECK(contains(content(work / "claims" / "claims.md"), "| " + std::string(claim->name) + " |"));
    }
}

TEST_CASE("what cannot be reproduced is named") {
    Workplace work;
    CHECK(contains(work.run({"reproduce"}).err, "nothing to reproduce"));
    CHECK(work.run({"reproduce"}).status == 2);
    const Outcome unknown = work.run({"reproduce", "b99"});
    CHECK(unknown.status == 2);
    CHECK(contains(unknown.err, "b99: no such claim"));
    // Where nothing was reproduced, there is no page to write.
    const Outcome nothing =
        work.run({"reproduce", "b14", "--configs", kConfigs, "--set", "data.path=missing.txt", "-o", "new"});
    CHECK(nothing.status == 2);
    CHECK_FALSE(contains(nothing.err, "claims.md"));
    CHECK_FALSE(fs::exists(work / "new"));
    const Outcome no_records = work.run({"reproduce", "--page", "absent"});
    CHECK(no_records.status == 2);
    CHECK(no_records.out.empty());
    CHECK(contains(no_records.err, "--page: absent: no such directory"));
    const Outcome no_sweep = work.run({"reproduce", "b14", "a4", "--configs", "absent", "--json"});
    CAPTURE(no_sweep.err);
    CHECK(no_sweep.status == 2);
    CHECK(contains(no_sweep.err, "absent"));
    CHECK(contains(no_sweep.err, "b14: not reproduced; the others go on"));
    CHECK(Json::parse(no_sweep.out).at("name") == "a4");
    // A trial of what trains nothing would be the claim itself, recorded as undecided.
    const std::string record = content(work / "claims/a4.json");
    const Outcome trial = work.run({"reproduce", "a4", "--set", "train.steps=4"});
    CHECK(trial.status == 2);
    CHECK(contains(trial.err, "a4: has no sweep whose config --set could change"));
    CHECK(content(work / "claims/a4.json") == record);
    const Outcome list = work.run({"reproduce", "--list"});
    CHECK(list.status == 0);
    CHECK(lines_of(list.out).size() == 1 + ballast::claims().size());
}
