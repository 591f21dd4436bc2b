// `ballast graft` and `init_from` as a user has them, and synthetic tasks from their configs.

#include <nlohmann/json.hpp>

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

using Json = nlohmann::json;

namespace {

/// A finished run in runs/small.
void train_source(Workplace& work) {
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
}

} // namespace

TEST_CASE("graft tells what becomes of the weights, and the run that it makes can be trained") {
    Workplace work;
    train_source(work);
    const Workplace::Arguments post = {"graft",     "small.json", "--from", "runs/small",
                                       "--threads", "1",          "--set",  "model.norm.placement=post"};
    const Outcome told = work.run(post);
    CAPTURE(told.out, told.err);
    CHECK(told.status == 0);
    CHECK(contains(told.out, "changed: model.norm.placement from \"pre\" to \"post\"\n"));
    CHECK(contains(told.out, "  new         blocks.0.attention.post_norm.gain  starts at 1\n"));
    CHECK(contains(told.out, "  dropped     final_norm.gain "));
    CHECK(contains(told.out, "stream behind block"));
    CHECK(contains(told.out, "optimizer: moments, steps, schedule and batches begin anew"));
    CHECK_FALSE(fs::exists(work / "runs/post"));

    Workplace::Arguments made = post;
    made.insert(made.end(), {"--calibrate", "-o", "runs/post", "--json"});
    const Json record = Json::parse(work.run(made).out);
    CHECK(record.at("calibrated") == true);
    CHECK(record.at("drift").at("blocks").size() == 2);
    CHECK(record.at("uncalibrated").at("loss_after") > record.at("drift").at("loss_before"));
    CHECK(record == Json::parse(content(work / "runs/post/graft.json")));
    CHECK(work.run({"eval", "runs/post"}).status == 0);
    CHECK(work.run({"resume", "runs/post", "--threads", "1"}).status == 0);
    CHECK(contains(work.run({"verify", "runs/post", "--from", "0", "--threads", "1"}).out, "proven: "));
    CHECK(contains(work.run({"diagnose", "runs/post"}).out, "verdict: "));
}

TEST_CASE("train starts from another run as its config says, relative to the config") {
    Workplace work;
    train_source(work);
    const Outcome same = work.run({"graft", "small.json", "--from", "runs/small"});
    CHECK(contains(same.out, "none: every logit has the bits of the source"));
    write(work / "next.json", R"({"extends": "small.json", "name": "next", "init_from": {"run": "runs/small"}})");
    const Outcome trained = work.run({"train", "next.json", "--threads", "1"});
    CAPTURE(trained.out, trained.err);
    CHECK(trained.status == 0);
    const std::vector<std::string> events = lines_of(content(work / "runs/next/events.jsonl"));
    REQUIRE_FALSE(events.empty());
    CHECK(Json::parse(events.front()).at("kind") == "graft");
    // The weights of the source are where this run begins.
    const Json first = Json::parse(lines_of(content(work / "runs/next/metrics.jsonl")).front());
    const Json last = Json::parse(lines_of(content(work / "runs/small/metrics.jsonl")).back());
    CHECK(first.at("loss").get<double>() < last.at("loss").get<double>() + 0.3);
}

TEST_CASE("a graft from weights that have diverged says so") {
    Workplace work;
    work.write_small_run();
    Workplace::Arguments arguments = train_small({"--out", "runs/burst"});
    arguments.insert(arguments.end(), {"--set", "optimizer.lr=1e30", "--set", "optimizer.clip=0"});
    REQUIRE(work.run(arguments).status == 3);
    const Outcome told = work.run({"graft", "small.json", "--from", "runs/burst"});
    CAPTURE(told.out);
    CHECK(told.status == 0);
    CHECK(contains(told.out, "loss nan nats in the source, nan here"));
    CHECK_FALSE(contains(told.out, "-nan"));
    CHECK_FALSE(contains(told.out, "none: every logit"));
}

TEST_CASE("a graft that cannot be is one line and status 2") {
    Workplace work;
    train_source(work);
    const auto refused = [&](const Workplace::Arguments& arguments, const std::string& reason) {
        const Outcome outcome = work.run(arguments);
        CAPTURE(outcome.err);
        CHECK(outcome.status == 2);
        REQUIRE_FALSE(outcome.err.empty());
        CHECK(contains(lines_of(outcome.err).back(), reason)); // behind what train says of itself
    };
    refused({"graft", "small.json"}, "--from: not given");
    refused({"graft", "small.json", "--from", "runs/smal"}, "did you mean runs/small?");
    refused({"graft", "small.json", "--from", "runs/small", "--checkpoint", "7"}, "has no checkpoint 7");
    refused({"graft", "small.json", "--from", "runs/small", "--set", "model.width=32"}, "model.width is 16");
    refused({"graft", "small.json", "--from", "runs/small", "--set", "data.tokenizer.kind=byte"}, "256 bytes");
    refused({"graft", "small.json", "--calibrate"}, "init_from.calibrate changes nothing without init_from.run");
    refused({"train", "small.json", "-o", "runs/b", "--set", "init_from.run=runs/none"}, "no such run directory");
    refused({"graft", "small.json", "--from", "runs/small", "-o", "runs/small"}, "already exists");
    CHECK_FALSE(fs::exists(work / "runs/b"));
    // A damaged checkpoint is no mistake of the user's: status 1.
    for (const fs::directory_entry& checkpoint : fs::directory_iterator(work / "runs/small/checkpoints"))
        fs::resize_file(checkpoint.path() / "params.safetensors", 10);
    const Outcome damaged = work.run({"graft", "small.json", "--from", "runs/small"});
    CHECK(damaged.status == 1);
    CHECK(contains(damaged.err, "damaged"));
    fs::remove_all(work / "runs/small/checkpoints");
    refused({"graft", "small.json", "--from", "runs/small"}, "has no checkpoint yet");
}

TEST_CASE("each task's config learns its task", "[long]") {
    Workplace work;
    for (const std::string& name : std::vector<std::string>{"majority", "copy", "induction", "modular_addition"}) {
        const std::string config = std::string(BALLAST_SOURCE_DIR) + "/configs/tasks/" + name + ".json";
        const Outcome trained = work.run({"train", config, "-o", "runs/" + name, "--threads", "1"});
        CAPTURE(name, trained.out, trained.err);
        CHECK(trained.status == 0);
        const Json found = Json::parse(work.run({"eval", "runs/" + name, "--json"}).out);
        CHECK(found.at("accuracy").get<double>() > 0.9);
        CHECK(found.at("loss").get<double>() < found.at("chance_loss").get<double>() / 4);
    }
}

TEST_CASE("a task needs no data and reports what is answered rightly") {
    Workplace work;
    write(work / "task.json", R"({"name": "task", "data": {"task": {"kind": "copy", "symbols": 4}},
        "model": {"layers": 1, "heads": 1, "width": 16, "context": 8},
        "train": {"steps": 10, "batch": 8, "eval_every": 5, "eval_batches": 2}})");
    const Outcome trained = work.run({"train", "task.json", "--threads", "1"});
    CAPTURE(trained.out, trained.err);
    CHECK(trained.status == 0);
    CHECK(contains(trained.err, "task copy: 4 of 8 tokens of a sequence are asked for; vocabulary 5; chance 1.3863"));
    CHECK(contains(trained.out, " %\n"));
    CHECK(Json::parse(lines_of(content(work / "runs/task/metrics.jsonl")).back()).contains("val_accuracy"));
    CHECK(contains(work.run({"eval", "runs/task"}).out, "% right"));
    CHECK(contains(work.run({"verify", "runs/task", "--from", "0", "--threads", "1"}).out, "proven: "));
    const Outcome good = work.run({"check", "task.json"});
    CHECK(good.status == 0);
    CHECK(good.out == "task.json: ok\n");
    // What only the task itself can know is told at its key.
    const Outcome no_sum = work.run({"check", "task.json", "--set", "data.task.kind=modular_addition", "--set",
                                     "model.context=3", "--set", "data.val_fraction=0.01"});
    CHECK(no_sum.status == 2);
    CHECK(contains(no_sum.err, "--set: data.task.kind: task modular_addition: of 16 sums, 0 would be kept"));
    const Outcome both = work.run({"check", "task.json", "--set", "data.path=text.txt"});
    CHECK(both.status == 2);
    CHECK(contains(both.err, "data.path and data.task.kind copy are both given; expected one of them"));
    CHECK(contains(work.run({"check", "task.json", "--set", "model.context=7"}).err,
                   "model.context 7 does not fit data.task.kind copy; expected an even number of tokens"));
}
