// The flight recorder, rewinding, and going back to a step.

#include "ballast/lab/replay.h"

#include <algorithm>
#include <set>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/config/load.h"
#include "ballast/lab/diagnose.h"
#include "ballast/lab/verify.h"
#include "ballast/train/trainer.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

/// A small run whose batches 60 to 62 are spoilt.
class Lab {
public:
    Lab() {
        set_threads(1); // tiny models, and a test machine is busy
        const std::string corpus = read_file(std::string(BALLAST_SOURCE_DIR) + "/data/tiny_tales.txt");
        write_file_atomic(directory_ / "text.txt", corpus.substr(0, 20000));
    }

    fs::path path(const std::string& name) const { return directory_ / name; }

    RunSummary train(const std::string& name, std::vector<std::string> overrides = {}) const {
        const Config config = config_from_json(
            R"({"data": {"path": "text.txt",
                "poison": {"first": 60, "batches": 3}},
                "model": {"layers": 2, "heads": 2, "width": 16, "context": 16, "dropout": 0.1},
                "optimizer": {"lr": 1e-2}, "schedule": {"kind": "constant", "warmup": 5},
                "train": {"steps": 90, "batch": 8, "micro_batch": 4, "eval_every": 30, "eval_batches": 1,
                          "checkpoint_every": 25},
                "stability": {"snapshot_every": 20, "rewind_steps": 10, "divergence_window": 1000}})",
            directory_ / "config.json", overrides);
        std::atomic<bool> interrupt{false};
        return Trainer::start(config, path(name)).run({}, interrupt);
    }

    void replace(const fs::path& file, const std::string& from, const std::string& to) const {
        std::string text = read_file(file);
        const std::size_t at = text.find(from);
        REQUIRE(at != std::string::npos);
        write_file_atomic(file, text.replace(at, from.size(), to));
    }

private:
    TemporaryDirectory directory_;
};

std::string problem_of(const fs::path& run, std::int64_t step, std::optional<std::int64_t> from = {}) {
    try {
        const Replay replay(run, step, from);
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("an event is recorded, and each of its steps can be replayed from every state", "[replay]") {
    const Lab lab;
    const RunSummary summary = lab.train("run");
    const fs::path run = lab.path("run"), recording = run / "recorder/step-00000060-loss_spike";
    CHECK(summary.verdict == "spiky");
    CHECK(summary.loss_spikes >= 1);
    CHECK(read_metrics(recording / "metrics.jsonl").back().step == 60);
    CHECK(read_events(recording / "events.jsonl").size() == 1);
    CHECK(read_layers(recording / "layers.jsonl").back().step == 60);
    CHECK(contains(read_file(recording / "batches.jsonl"), "\"step\":60,\"batch\":60,\"checksum\":\""));
    CHECK(list_checkpoints(run / "recorder") == std::vector<std::int64_t>{20, 40});

    for (const std::int64_t step : {1, 2, 41, 60, 61, 90}) {
        const Replay any(run, step);
        for (const ReplayStart& start : any.starts()) {
            const Replay replay(run, step, start.step);
            CAPTURE(step, start.step);
            CHECK(replay.doubts().empty());
            const ReplayResult result = replay.run();
            CHECK_FALSE(result.first_different.has_value());
            CHECK(result.compared == step - start.step);
            CHECK(result.recorded_loss == result.replayed_loss);
        }
    }
}

TEST_CASE("a trace has every value and gradient in the order they were made", "[replay]") {
    const Lab lab;
    lab.train("run", {"train.steps=3"});
    const ReplayResult result = Replay(lab.path("run"), 3).run();
    CHECK(result.reference.size() == result.trace.size());
    CHECK(result.trace.front().site == "embedding");
    std::size_t backward = 0;
    for (const TraceEntry& entry : result.trace) {
        CHECK(entry.range.not_finite == 0);
        CHECK(entry.range.rms <= std::max(entry.range.largest(), 1e-30) * 1.0001);
        if (backward > 0) CHECK(entry.backward);
        backward += entry.backward ? 1 : 0;
        CHECK_FALSE(entry.inputs.empty());
    }
    CHECK(backward * 2 > result.trace.size());
    const auto output = std::find_if(result.trace.begin(), result.trace.end(), [](const TraceEntry& entry) {
        return entry.backward && entry.made == "blocks.1.attention.output.weight";
    });
    REQUIRE(output != result.trace.end());
    CHECK(output->site == "blocks.1.attention.output");
    CHECK(output->shape == "[16, 16]");
}

TEST_CASE("the op that first makes something that is not finite is named", "[replay]") {
    const Lab lab;
    const RunSummary summary = lab.train("run", {"optimizer.lr=1e20", "schedule.warmup=0"});
    CHECK(summary.verdict == "non_finite");
    REQUIRE(summary.onset_step.has_value());
    CHECK_FALSE(summary.onset_site.empty());
    const ReplayResult result = Replay(lab.path("run"), *summary.onset_step).run();
    CHECK_FALSE(result.first_different.has_value());
    REQUIRE(result.first_out.has_value());
    const TraceEntry& first = result.trace[*result.first_out];
    CHECK(first.range.not_finite > 0);
    CHECK(first.site.ends_with(summary.onset_site));
    for (std::size_t i = 0; i < *result.first_out; ++i)
        CHECK(result.trace[i].range.not_finite == 0);
}

TEST_CASE("what left its range does not depend on the state that a replay begins from", "[replay]") {
    const Lab lab;
    lab.train("run");
    const Replay any(lab.path("run"), 60);
    REQUIRE(any.starts().size() >= 3);
    std::set<std::size_t> found;
    for (const ReplayStart& start : any.starts()) {
        const ReplayResult result = Replay(lab.path("run"), 60, start.step).run();
        CAPTURE(start.step);
        REQUIRE(result.first_out.has_value());
        found.insert(*result.first_out);
        CHECK(result.how == OutOfRange::above);
        CHECK(result.reference_last < 60);
        CHECK(result.reference_first == result.reference_last - kReferenceSteps + 1);
        const TraceEntry& entry = result.trace[*result.first_out];
        const RmsRange usual = result.reference[*result.first_out].value();
        CHECK(usual.least <= usual.largest);
        CHECK(entry.range.rms > kRangeFactor * usual.largest);
    }
    CHECK(found.size() == 1);
    CHECK_FALSE(Replay(lab.path("run"), 59).run().first_out.has_value()); // a step before, all is well
    CHECK(Replay(lab.path("run"), 1).run().reference_last == 0);          // there is no step to compare with
}

TEST_CASE("a replay goes on with the settings that the run was resumed with", "[replay]") {
    const Lab lab;
    lab.train("run", {"train.steps=30"});
    const fs::path run = lab.path("run");
    const auto resume = [&](std::vector<std::string> overrides) {
        std::atomic<bool> interrupt{false};
        return Trainer::resume(run, overrides).run({}, interrupt);
    };
    resume({"train.steps=40"}); // changes no step: the schedule is constant
    resume({"train.steps=50", "optimizer.lr=1e-3"});
    resume({"train.steps=60", "model.norm.eps=1"});
    for (const std::int64_t step : {30, 35, 41, 50, 51, 60}) {
        const Replay any(run, step);
        std::set<std::int64_t> starts;
        for (const ReplayStart& start : any.starts())
            starts.insert(start.step);
        CAPTURE(step, starts);
        CHECK(starts.contains(0));
        for (const std::int64_t from : starts) {
            const ReplayResult result = Replay(run, step, from).run();
            CHECK_FALSE(result.first_different.has_value());
            CHECK(result.compared == step - from);
        }
    }
    CHECK(Replay(run, 45).config().model.norm.eps == 1e-5);
    CHECK(Replay(run, 51).config().model.norm.eps == 1);
    // The eps shrinks what the first norm gives, at once.
    const ReplayResult result = Replay(run, 51).run();
    REQUIRE(result.first_out.has_value());
    CHECK(result.how == OutOfRange::below);
    CHECK(result.trace[*result.first_out].op == "layernorm");

    // Where the settings in between are not known, states from before lead nowhere.
    const fs::path kept = run / "configs/step-00000050.json";
    SECTION("lost") { fs::remove(kept); }
    SECTION("unreadable") {
        write_file_atomic(kept, "{lost");
        CHECK(contains(problem_of(run, 50), "configs/step-00000050.json:1: "));
    }
    CHECK(Replay(run, 60).starts().front().step == 50);

    // Of another model: its parameters must not be taken for those of the steps behind.
    lab.train("wide", {"model.width=64", "train.steps=1"});
    fs::remove(kept);
    fs::copy_file(lab.path("wide") / "config.json", kept);
    CHECK_THROWS_AS(Replay(run, 60, 0).run(), IoError);
}

TEST_CASE("steps that are made again with other settings are replayed with these", "[replay]") {
    const Lab lab;
    const fs::path run = lab.path("run");
    const auto resume_from = [&](std::int64_t step, std::vector<std::string> overrides) {
        remove_checkpoints_from(run, step + 1);
        std::atomic<bool> interrupt{false};
        return Trainer::resume(run, overrides).run({}, interrupt);
    };
    const auto require_exact = [&](std::int64_t step) {
        const Replay any(run, step);
        for (const ReplayStart& start : any.starts()) {
            CAPTURE(step, start.checkpoint);
            CHECK_FALSE(Replay(run, step, start.step).run().first_different.has_value());
        }
    };
    SECTION("those of the steps before") {
        lab.train("run");
        resume_from(50, {"optimizer.lr=1e-3"});
        resume_from(75, {"optimizer.lr=1e-2"});
        resume_from(50, {}); // with 1e-2, as steps 1 to 50
        require_exact(70);
        require_exact(90);
    }
    SECTION("behind snapshots on the disk, which lead to other steps") {
        lab.train("run", {"stability.snapshot_memory=0", "data.poison.first=0", "train.keep_checkpoints=0"});
        const std::vector<std::int64_t> before = list_checkpoints(run / "recorder");
        REQUIRE(before == std::vector<std::int64_t>{60, 80});
        resume_from(25, {"optimizer.lr=2e-2", "data.poison.first=50", "stability.on_spike=rewind"});
        const std::vector<Event> events = read_events(run / "events.jsonl");
        REQUIRE(std::any_of(events.begin(), events.end(), [](const Event& event) { return event.kind == "rewind"; }));
        for (const Event& event : events)
            if (event.kind == "rewind") CHECK(event.step < 50); // and not 60, which was of another past
        require_exact(70);
    }
    SECTION("behind snapshots of a spike") {
        lab.train("run", {"stability.snapshot_every=15", "train.keep_checkpoints=0"});
        REQUIRE(list_checkpoints(run / "recorder") == std::vector<std::int64_t>{30, 45});
        resume_from(25, {"optimizer.lr=2e-2", "data.poison.first=0", "train.checkpoint_every=90"});
        CHECK(list_checkpoints(run / "recorder").empty());
        require_exact(50);
    }
    SECTION("by a rewind to before the resume") {
        lab.train("run", {"stability.snapshot_memory=0", "train.steps=55"});
        resume_from(55, {"optimizer.lr=2e-2", "train.steps=90", "stability.on_spike=rewind"});
        const std::vector<Event> events = read_events(run / "events.jsonl");
        REQUIRE(std::any_of(events.begin(), events.end(), [](const Event& event) { return event.kind == "rewind"; }));
        require_exact(38);
        require_exact(52);
        require_exact(90);
    }
}

TEST_CASE("a replay says which steps it makes, those of the reference beside its own among them", "[replay]") {
    const Lab lab;
    lab.train("run", {"train.steps=30", "stability.snapshot_every=0"});
    std::vector<std::string> said;
    const Log log = Log::to([&](LogLevel, std::string_view message) { said.emplace_back(message); });
    Replay(lab.path("run"), 27, 25).run(log);
    CHECK(said == std::vector<std::string>{"making steps 1 to 23 again, for the range of values before",
                                           "making steps 26 to 27 again"});
    said.clear();
    Replay(lab.path("run"), 27, 0).run(log);
    CHECK(said == std::vector<std::string>{"making steps 1 to 27 again"});
}

TEST_CASE("a damaged checkpoint before the reference costs the reference alone", "[replay]") {
    const Lab lab;
    lab.train("run", {"train.steps=55", "data.poison.first=0"});
    const fs::path run = lab.path("run");
    lab.replace(checkpoint_path(run, 25) / "state.json", "\"step\"", "\"stop\"");
    const ReplayResult result = Replay(run, 52, 50).run();
    CHECK_FALSE(result.first_different.has_value());
    CHECK(result.reference_last == 48); // from the start
    CHECK(result.compared == 2);
}

TEST_CASE("a rewind leaves out the batches that led to a spike", "[replay]") {
    const Lab lab;
    const std::string memory = GENERATE("1024", "0"); // snapshots in memory, and on the disk
    const RunSummary summary = lab.train("run", {"data.poison.batches=1", "stability.on_spike=rewind",
                                                 "stability.snapshot_memory=" + memory, "train.keep_checkpoints=0"});
    CAPTURE(memory);
    CHECK(summary.verdict == "spiky");
    CHECK(summary.step == 90);
    CHECK(summary.rewinds == 1);
    CHECK(summary.loss_spikes == 0); // of the steps that stand
    const std::vector<StepRecord> records = read_metrics(lab.path("run") / "metrics.jsonl");
    CHECK(records.size() == 90);
    const std::vector<Event> events = read_events(lab.path("run") / "events.jsonl");
    const auto rewind = std::find_if(events.begin(), events.end(), [](const Event& e) { return e.kind == "rewind"; });
    REQUIRE(rewind != events.end());
    CHECK(rewind->step == 40);
    CHECK(contains(rewind->message, "from step 60"));
    CHECK(read_checkpoint_info(checkpoint_path(lab.path("run"), 90)).state.skipped_batches == 20);
    // The steps since can be replayed; states from before the rewind lead elsewhere.
    const Replay replay(lab.path("run"), 70);
    CHECK(replay.starts().front().step >= 40);
    CHECK_FALSE(replay.run().first_different.has_value());
    // So do the batches until then: a stretch that is verified ends there.
    for (const std::int64_t from : {0, 40}) {
        const Verification proof = verify(lab.path("run"), {.from = from, .steps = 90});
        CAPTURE(from, proof.differences);
        CHECK(proof.to == (from == 0 ? 40 : 90));
        CHECK(proof.differences.empty());
    }
}

TEST_CASE("a run that went back to its start is verified from what it had there, not from its weights alone",
          "[replay]") {
    const Lab lab;
    lab.train("run", {"data.poison.batches=1", "stability.on_spike=rewind", "stability.rewind_steps=60",
                      "train.keep_checkpoints=0"});
    const fs::path run = lab.path("run");
    REQUIRE(fs::exists(checkpoint_path(run, 0)));
    const Verification proof = verify(run, {.from = 0, .steps = 30});
    CHECK(proof.to == 30);
    CHECK(proof.differences.empty());
    fs::remove_all(checkpoint_path(run, 0));
    CHECK_THROWS_AS(verify(run, {.from = 0, .steps = {}}), UsageError);
}

TEST_CASE("skipping a spike changes nothing but the step's update", "[replay]") {
    const Lab lab;
    const RunSummary summary = lab.train("run", {"stability.on_spike=skip"});
    CHECK(summary.verdict == "spiky");
    const std::vector<StepRecord> records = read_metrics(lab.path("run") / "metrics.jsonl");
    REQUIRE(records.size() == 90);
    CHECK(records[59].events.value_or("").starts_with("loss_spike"));
    CHECK(records[59].events.value_or("").ends_with(" skipped"));
    CHECK(records[59].update_norm == 0);
    CHECK_FALSE(Replay(lab.path("run"), 75, 50).run().first_different.has_value()); // skips, too
}

TEST_CASE("a replay that cannot be exact, or cannot be, says so", "[replay]") {
    const Lab lab;
    lab.train("run", {"train.steps=30"});
    const fs::path run = lab.path("run");
    CHECK(contains(problem_of(run, 31), "outside the run, which has recorded steps 1 to 30"));
    CHECK(contains(problem_of(run, 0), "outside the run"));
    CHECK(contains(problem_of(run, 30, 7), "expected one of 0, 25"));
    CHECK(contains(problem_of(lab.path("nowhere"), 1), "no such run directory"));

    SECTION("another BLAS") {
        lab.replace(run / "environment.json", "\"blas\": \"", "\"blas\": \"Another");
        const std::vector<std::string> doubts = Replay(run, 30).doubts();
        REQUIRE(doubts.size() == 1);
        CHECK(contains(doubts[0], "blas: Another"));
    }
    SECTION("steps before a resume, of another processor") {
        lab.replace(run / "environment.json", "\"cpu\": \"", "\"cpu\": \"Another ");
        std::atomic<bool> interrupt{false};
        Trainer::resume(run, std::vector<std::string>{"train.steps=40"}).run({}, interrupt);
        CHECK(Replay(run, 40, 30).doubts().empty());
        for (const std::int64_t step : {28, 40}) {
            const std::vector<std::string> doubts = Replay(run, step, 25).doubts();
            REQUIRE(doubts.size() == 1);
            CHECK(contains(doubts[0], "cpu: Another "));
        }
        CHECK(verify(run, {.from = 30, .steps = {}}).environment.empty());
        CHECK(verify(run, {.from = 25, .steps = {}}).environment.size() == 1);
    }
    SECTION("steps before a resume, of what is lost") {
        write_file_atomic(run / "environment.json", "{lost");
        std::atomic<bool> interrupt{false};
        Trainer::resume(run, std::vector<std::string>{"train.steps=40"}).run({}, interrupt);
        CHECK(Replay(run, 40, 30).doubts().empty());
        const std::vector<std::string> doubts = Replay(run, 40, 25).doubts();
        REQUIRE(doubts.size() == 1);
        CHECK(contains(doubts[0], "environments/step-00000030.json: "));
        CHECK(verify(run, {.from = 25, .steps = {}}).environment == doubts);
    }
    SECTION("records of another run") {
        lab.train("other", {"train.steps=30", "seed=2"});
        fs::copy_file(lab.path("other") / "metrics.jsonl", run / "metrics.jsonl", fs::copy_options::overwrite_existing);
        const ReplayResult result = Replay(run, 30, 25).run();
        CHECK(result.first_different == 26);
    }
    SECTION("a record that is cut within a line, as that of a run that is still written") {
        std::string text = read_file(run / "metrics.jsonl");
        text.resize(text.size() - 20);
        write_file_atomic(run / "metrics.jsonl", text);
        CHECK(contains(problem_of(run, 30), "recorded steps 1 to 29"));
        CHECK_FALSE(Replay(run, 29).run().first_different.has_value());
        CHECK_NOTHROW(diagnose(read_run(run)));
    }
    SECTION("damage in the middle") {
        lab.replace(run / "metrics.jsonl", "{\"step\":7,", "{\"step\":seven,");
        CHECK(contains(problem_of(run, 30), "metrics.jsonl:7: not a JSON object"));
        // Nor can the run go on, and it keeps its settings.
        const std::string config = read_file(run / "config.json");
        const std::vector<std::string> overrides{"train.steps=60"};
        CHECK_THROWS_AS(Trainer::resume(run, overrides), IoError);
        CHECK(read_file(run / "config.json") == config);
    }
    SECTION("a checkpoint of a newer version") {
        lab.replace(checkpoint_path(run, 25) / "state.json", "\"format\": 1", "\"format\": 9");
        CHECK_THROWS_AS(Replay(run, 30, 25).run(), CheckpointError);
    }
    SECTION("a run without records") {
        fs::remove(run / "metrics.jsonl");
        CHECK_FALSE(problem_of(run, 30).empty());
        CHECK(diagnose(read_run(run)).empty());
    }
}

TEST_CASE("an interrupt is no fault, which would have an onset") {
    const Lab lab;
    lab.train("run", {"train.steps=30"});
    std::atomic<bool> interrupt{true};
    const std::vector<std::string> overrides{"train.steps=60", "optimizer.lr=2e-2"};
    const RunSummary summary = Trainer::resume(lab.path("run"), overrides).run({}, interrupt);
    CHECK(summary.verdict == "interrupted");
    CHECK(summary.onset.empty());
}

TEST_CASE("a repeated pattern is told from text", "[replay]") {
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < 64; ++i)
        tokens.push_back(i % 4);
    CHECK(repetition(tokens, 16) == 1);
    for (std::int32_t i = 0; i < 64; ++i)
        tokens[static_cast<std::size_t>(i)] = i;
    CHECK(repetition(tokens, 16) == 0);
    CHECK(repetition(tokens, 1) == 0); // nothing to compare with
}
