// Comparisons of runs that the test makes.

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

/// Trains `small.json` with settings into `out`.
void train(Workplace& work, const std::string& out, const std::vector<std::string>& settings, int status = 0) {
    Workplace::Arguments arguments = train_small({"--out", out});
    for (const std::string& setting : settings)
        arguments.insert(arguments.end(), {"--set", setting});
    const Outcome outcome = work.run(arguments);
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == status);
}

Json compare(Workplace& work, Workplace::Arguments arguments) {
    arguments.insert(arguments.begin(), "compare");
    arguments.emplace_back("--json");
    const Outcome outcome = work.run(arguments);
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    return Json::parse(outcome.out);
}

double final_loss(const Workplace& work, const std::string& run) {
    return Json::parse(content(work / (run + "/summary.json"))).at("final_val_loss");
}

} // namespace

TEST_CASE("two arms of three seeds") {
    Workplace work;
    work.write_small_run();
    std::vector<double> differences;
    for (const std::string seed : {"1", "2", "3"}) {
        train(work, "pre" + seed, {"seed=" + seed, "name=p" + seed});
        train(work, "post" + seed, {"seed=" + seed, "model.norm.placement=post"});
        differences.push_back(final_loss(work, "post" + seed) - final_loss(work, "pre" + seed));
    }
    const Workplace::Arguments runs{"pre1", "post3", "pre3", "pre2", "post1", "post2"};
    const Json json = compare(work, runs);
    CHECK(json.at("left_out").empty());
    REQUIRE(json.at("arms").size() == 2);
    for (const Json& arm : json["arms"]) {
        CHECK(arm.at("runs").size() == 3);
        CHECK(arm["runs"][0].at("seed") == 1);
        CHECK(arm.at("final_loss").at("n") == 3);
        CHECK(arm.at("steps_to_loss").at("n") == 3);
        CHECK(arm.at("norms") == (arm.at("arm") == "a" ? 5 : 4));
    }
    // The configs differ in the placement, and in the final norm that follows from it.
    CHECK(json.at("keys").size() == 2);
    CHECK(json["keys"][0].at("path") == "model.norm.placement");
    CHECK(json["keys"][0].at("values") == Json({"pre", "post"}));

    REQUIRE(json.at("pairs").size() == 1);
    const Json& pair = json["pairs"][0];
    CHECK(pair.at("refused").get<std::string>().empty());
    CHECK(pair.at("seeds") == Json({1, 2, 3}));
    CHECK(pair.at("caveats").empty());
    CHECK(pair.at("other_start").empty());
    CHECK(pair.at("shared_tensors").get<int>() > 5);
    CHECK(pair.at("only_in_arm").size() == 4);
    CHECK(pair.at("only_in_baseline").size() == 5);
    // The mean and its interval by hand: t(0.975, 2) = 4.302653.
    double mean = 0, squares = 0;
    for (const double difference : differences)
        mean += difference / 3;
    for (const double difference : differences)
        squares += (difference - mean) * (difference - mean);
    const double reach = 4.302653 * std::sqrt(squares / 2 / 3);
    CHECK(std::abs(pair.at("final_loss").at("mean").get<double>() - mean) < 1e-12);
    CHECK(std::abs(pair["final_loss"].at("low").get<double>() - (mean - reach)) < 1e-6);
    CHECK(std::abs(pair["final_loss"].at("high").get<double>() - (mean + reach)) < 1e-6);

    // From the other side, every difference has the other sign.
    const Json back = compare(work, {"pre1", "post3", "pre3", "pre2", "post1", "post2", "--baseline", "b"});
    CHECK(std::abs(back.at("pairs")[0].at("final_loss").at("mean").get<double>() + mean) < 1e-12);

    Workplace::Arguments words = runs;
    words.insert(words.begin(), "compare");
    const Outcome text = work.run(words);
    CHECK(text.status == 0);
    CHECK(contains(text.out, "a: pre1 and 2 more; seeds 1, 2, 3\n"));
    CHECK(contains(text.out, "  b: same data in the same order; "));
    CHECK(contains(text.out, " shared tensors start alike; only in a: "));
    CHECK(contains(text.out, "  model.norm.placement  \"pre\"  \"post\"\n"));
    CHECK(contains(text.out, "  b    final  3 "));
}

TEST_CASE("what the pairs do not share is said") {
    Workplace work;
    work.write_small_run();
    train(work, "a", {});
    train(work, "init", {"model.init.std=0.1"});
    train(work, "batch", {"train.batch=2"});
    const Json json = compare(work, {"a", "init", "batch"});
    REQUIRE(json.at("pairs").size() == 2);
    CHECK(json["pairs"][0].at("other_start").size() > 3);
    CHECK(json["pairs"][0].at("caveats").empty());
    CHECK(json["pairs"][0].at("final_loss").at("n") == 1);
    CHECK(json["pairs"][0]["final_loss"].at("low").is_null());
    CHECK(json["pairs"][0]["final_loss"].at("verdict").get<std::string>().empty());
    CHECK(json["pairs"][1].at("other_start").empty());
    CHECK(json["pairs"][1].at("caveats")[0] == "the batches are not the same: train.batch");
    const Outcome text = work.run({"compare", "a", "init", "batch"});
    CHECK(contains(text.out, "one pair: no interval"));
    CHECK(contains(text.out, "  c: the batches are not the same: train.batch\n"));
}

TEST_CASE("a run that took weights over starts with those, whatever its config would draw") {
    Workplace work;
    work.write_small_run();
    train(work, "a", {});
    train(work, "b", {"init_from.run=a"});
    train(work, "c", {"init_from.run=a", "optimizer.lr=0.002"});
    const Json json = compare(work, {"a", "b", "c"});
    const Json& pair = json.at("pairs")[0];
    CHECK(pair.at("other_start").size() == pair.at("shared_tensors"));
    CHECK(contains(work.run({"compare", "a", "b"}).out, " shared tensors starts alike\n"));
    CHECK(compare(work, {"b", "c"}).at("pairs")[0].at("other_start").empty());

    fs::remove_all(work / "b/checkpoints/step-00000000");
    const Outcome damaged = work.run({"compare", "a", "b", "c"});
    CHECK(damaged.status == 0);
    CHECK(contains(damaged.err, "b: left out: "));
    CHECK(contains(damaged.err, "step-00000000"));
}

TEST_CASE("the data is named, also where it is a task") {
    Workplace work;
    work.write_small_run();
    const std::vector<std::string> task{"data.path=", "data.task.kind=copy", "data.task.symbols=4"};
    for (const std::string name : {"a", "b"}) {
        std::vector<std::string> settings = task;
        settings.push_back("optimizer.lr=0.00" + std::to_string(name == "a" ? 1 : 2));
        train(work, name, settings);
    }
    CHECK(contains(work.run({"compare", "a", "b"}).out, "\ndata: task copy, tokenizer ids, vocabulary 5, "));
    train(work, "text", {});
    CHECK(contains(work.run({"compare", "text", "a"}).out, "\ndata: " + (work / "text.txt").string() + ", "));
}

TEST_CASE("runs on other data, or with another tokenizer, have no paired figures") {
    Workplace work;
    work.write_small_run();
    write(work / "other.txt", content(work / "text.txt") + "the cat sat on mat.\n");
    train(work, "a", {});
    train(work, "bytes", {"data.tokenizer.kind=byte"});
    train(work, "other", {"data.path=other.txt"});
    train(work, "seed", {"seed=5", "model.layers=1"});
    const Json json = compare(work, {"a", "bytes", "other", "seed"});
    REQUIRE(json.at("pairs").size() == 3);
    CHECK(json["pairs"][0].at("refused") == "another tokenizer: byte instead of char");
    CHECK(contains(json["pairs"][1].at("refused"), "other data: fingerprint "));
    CHECK(json["pairs"][2].at("refused") == "no seed in common");
    for (const Json& pair : json["pairs"])
        CHECK(pair.at("final_loss").at("n") == 0);
    const Outcome text = work.run({"compare", "a", "bytes"});
    CHECK(text.status == 0);
    CHECK(contains(text.out, "  b: no paired figures: another tokenizer: byte instead of char\n"));
    CHECK_FALSE(contains(text.out, "paired differences"));

    // The same text at another place is the same data.
    fs::copy_file(work / "text.txt", work / "copy.txt");
    train(work, "copy", {"data.path=copy.txt"});
    CHECK(compare(work, {"a", "copy"}).at("pairs")[0].at("refused").get<std::string>().empty());
}

TEST_CASE("runs that cannot be compared are named, and the rest goes on") {
    Workplace work;
    work.write_small_run();
    train(work, "a", {});
    train(work, "b", {"model.layers=1"});
    train(work, "again", {"name=again"});
    train(work, "interrupted", {"seed=9"});
    train(work, "damaged", {"seed=8"});
    fs::remove(work / "interrupted/summary.json");
    write(work / "damaged/metrics.jsonl", "{\"step\": 1}\nnonsense\n" + content(work / "damaged/metrics.jsonl"));
    const Outcome outcome = work.run({"compare", "a", "interrupted", "damaged", "missing", "text.txt", "b", "again"});
    CHECK(outcome.status == 0);
    const std::vector<std::string> lines = lines_of(outcome.err);
    CAPTURE(outcome.err);
    REQUIRE(lines.size() == 5);
    CHECK(lines[0] == "interrupted: left out: has not ended; go on with it: ballast resume interrupted");
    CHECK(contains(lines[1], "damaged: left out: "));
    CHECK(contains(lines[1], "metrics.jsonl:2: "));
    CHECK(contains(lines[2], "missing: left out: no such run directory"));
    CHECK(contains(lines[3], "text.txt: left out: a file; expected a run directory"));
    CHECK(lines[4] == "again: left out: has the config and seed of a");
    CHECK(contains(outcome.out, "paired differences"));
    CHECK(compare(work, {"a", "missing", "b"}).at("left_out")[0].at("path") == "missing");

    const auto refused = [&](const Workplace::Arguments& arguments, const std::string& expected) {
        const Outcome bad = work.run(arguments);
        CAPTURE(bad.err);
        CHECK(bad.status == 2);
        CHECK(bad.out.empty());
        CHECK(contains(bad.err, expected));
    };
    // A run that claims to have ended is checked against its records.
    write(work / "interrupted/summary.json", "{}");
    fs::copy_file(work / "a/metrics.jsonl", work / "damaged/metrics.jsonl", fs::copy_options::overwrite_existing);
    fs::resize_file(work / "damaged/metrics.jsonl", 1 + content(work / "a/metrics.jsonl").find('\n'));
    const Outcome half = work.run({"compare", "a", "interrupted", "damaged", "b"});
    CHECK(half.status == 0);
    CHECK(contains(half.err, "interrupted: left out: interrupted/summary.json: has no verdict"));
    CHECK(contains(half.err, "damaged: left out: damaged/metrics.jsonl: ends at step 1, but the run made "));

    refused({"compare", "a"}, "a: one run; expected at least two, or a sweep's directory");
    refused({"compare", "a", "missing"}, "1 run is left to compare");
    refused({"compare", "a", "again"}, "again: left out: has the config and seed of a\n1 run is left to compare");
    refused({"compare", "a", "b", "--baseline", "c"}, "--baseline: c is no arm; expected a letter from a to b");
}

TEST_CASE("a run that diverged is an arm's verdict, and no part of a mean") {
    Workplace work;
    work.write_small_run();
    for (const std::string seed : {"1", "2"}) {
        train(work, "a" + seed, {"seed=" + seed});
        train(work, "b" + seed, {"seed=" + seed, "optimizer.lr=1e30", "optimizer.clip=0"}, 3);
    }
    const Json json = compare(work, {"a1", "a2", "b1", "b2"});
    CHECK(json.at("arms")[1].at("final_loss").at("n") == 0);
    CHECK(json.at("arms")[1].at("steps_to_loss").at("n") == 0);
    CHECK(json.at("pairs")[0].at("final_loss").at("n") == 0);
    const Outcome text = work.run({"compare", "a1", "a2", "b1", "b2"});
    CHECK(contains(text.out, "2 non_finite"));
    CHECK(contains(text.out, "no pair with this loss"));
    CHECK(contains(text.out, "never"));
}

TEST_CASE("steps to a loss are those of the first evaluation at or below it") {
    Workplace work;
    work.write_small_run(R"("steps": 40, "checkpoint_every": 0)");
    train(work, "a", {"optimizer.lr=0.01"});
    train(work, "b", {"optimizer.lr=0.003"});
    std::vector<std::pair<int, double>> evaluations;
    for (const std::string& line : lines_of(content(work / "a/metrics.jsonl")))
        if (const Json record = Json::parse(line); record.contains("val_loss"))
            evaluations.emplace_back(record.at("step"), record.at("val_loss"));
    REQUIRE(evaluations.size() == 4);
    for (const auto& [step, loss] : evaluations) {
        const Json json = compare(work, {"a", "b", "--to-loss", std::to_string(loss + 1e-5)});
        CHECK(json.at("arms")[0].at("steps_to_loss").at("mean") == step);
    }
    CHECK(compare(work, {"a", "b", "--to-loss", "0"}).at("arms")[0].at("steps_to_loss").at("n") == 0);
    CHECK(contains(work.run({"compare", "a", "b", "--to-loss", "0"}).out, "never"));
}

TEST_CASE("a sweep's directory stands for its runs") {
    Workplace work;
    work.write_small_run();
    write(work / "sweep.json", R"({"base": "small.json", "grid": {"model.layers": [1, 2]}, "seeds": [1, 2]})");
    REQUIRE(work.run({"sweep", "sweep.json", "-o", "s"}).status == 0);
    fs::remove_all(work / "s/runs/layers=2,seed=2");
    const Json json = compare(work, {"s"});
    CHECK(json.at("arms").size() == 2);
    CHECK(json.at("pairs")[0].at("seeds") == Json({1}));
    CHECK(json.at("left_out")[0].at("reason") == "has not begun");
}

TEST_CASE("runs without validation are compared by their last training losses") {
    Workplace work;
    work.write_small_run(R"("steps": 40, "checkpoint_every": 0)");
    train(work, "a", {"data.val_fraction=0"});
    train(work, "b", {"data.val_fraction=0", "model.layers=1"});
    const Json json = compare(work, {"a", "b"});
    CHECK(json.at("by_validation") == false);
    const std::vector<std::string> lines = lines_of(content(work / "a/metrics.jsonl"));
    double mean = 0;
    for (std::size_t i = 38; i < 40; ++i) // 5 % of 40
        mean += Json::parse(lines[i]).at("loss").get<double>() / 2;
    CHECK(std::abs(json.at("arms")[0].at("final_loss").at("mean").get<double>() - mean) < 1e-12);
    CHECK(contains(work.run({"compare", "a", "b"}).out, "  final loss"));
}
