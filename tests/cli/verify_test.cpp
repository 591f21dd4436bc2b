// A stretch of a run, made again: does it give the recorded bits?

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

/// A finished run of 20 steps with checkpoints of steps 5, 10, 15 and 20 in `run`.
void make_run(Workplace& work, const Workplace::Arguments& settings = {}) {
    work.write_small_run(R"("steps": 20, "micro_batch": 2, "checkpoint_every": 5, "keep_checkpoints": 0)");
    Workplace::Arguments arguments = train_small({"--out", "run", "--set", "model.dropout=0.1"});
    arguments.insert(arguments.end(), settings.begin(), settings.end());
    work.run(arguments);
}

Outcome verify(Workplace& work, Workplace::Arguments more = {}) {
    more.insert(more.begin(), {"verify", "run"});
    if (std::find(more.begin(), more.end(), "--threads") == more.end()) more.insert(more.end(), {"--threads", "1"});
    return work.run(more);
}

void replace(const fs::path& path, const std::string& from, const std::string& to) {
    std::string text = content(path);
    const std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    write(path, text.replace(at, from.size(), to));
}

} // namespace

TEST_CASE("a run that gives its recorded bits again is proven, from any of its checkpoints") {
    Workplace work;
    make_run(work);
    const auto [arguments, expected] = GENERATE(table<Workplace::Arguments, std::string>({
        {Workplace::Arguments{},
         "proven: steps 16 to 20 give the recorded bits on this machine (56 values of 5 records, checkpoint 20)"},
        {{"--from", "5"}, "proven: steps 6 to 10 "},
        {{"--from", "0", "--steps", "12"}, "12 records, checkpoint 5, checkpoint 10)"},
        {{"--from", "10", "--steps", "1"}, "proven: steps 11 to 11 give the recorded bits on this machine (11 values"},
        {{"--from", "0", "--steps", "1000"}, "20 records, checkpoint 5, checkpoint 10, checkpoint 15, checkpoint 20)"},
    }));
    CAPTURE(arguments);
    const std::string before = content(work / "run/metrics.jsonl");
    const Outcome outcome = verify(work, arguments);
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 0);
    CHECK(lines_of(outcome.out).size() == 2);
    CHECK(lines_of(outcome.out)[0] == "environment: as recorded");
    CHECK(contains(outcome.out, expected));
    CHECK(content(work / "run/metrics.jsonl") == before);
}

TEST_CASE("a run that went on with other settings is proven up to there, though no checkpoint of the time is left") {
    Workplace work;
    make_run(work);
    work.run({"resume", "run", "--set", "train.steps=30", "--set", "train.keep_checkpoints=1", "--set",
              "optimizer.lr=0.1", "--threads", "1"});
    REQUIRE_FALSE(fs::exists(work / "run/checkpoints/step-00000020"));
    const Outcome outcome = verify(work, {"--from", "0"});
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.out, "proven: steps 1 to 20 "));
    const std::string reason = "up to step 20, behind which the run went on with other settings or other batches\n";
    CHECK(contains(outcome.err, reason));
    CHECK_FALSE(contains(verify(work, {"--from", "0", "--steps", "20"}).err, reason));
}

TEST_CASE("another number of threads is said first and changes no bit") {
    Workplace work;
    make_run(work);
    const Outcome outcome = verify(work, {"--threads", "3", "--from", "0"});
    CAPTURE(outcome.out);
    CHECK(outcome.status == 0);
    CHECK(lines_of(outcome.out)[0] == "environment: threads: 1, now 3");
    CHECK(contains(outcome.out, "proven: steps 1 to 5 "));
}

TEST_CASE("an environment that is lost is said, and is no difference") {
    Workplace work;
    make_run(work);
    std::string reason;
    SECTION("damaged") {
        write(work / "run/environment.json", "{lost");
        reason = "not a JSON object; ";
    }
    SECTION("removed") {
        fs::remove(work / "run/environment.json");
        reason = "cannot read: No such file or directory; ";
    }
    const Outcome outcome = verify(work);
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.out, "environment: run/environment.json: " + reason));
    CHECK(contains(outcome.err, "warning: run/environment.json: " + reason));
    CHECK(work.run({"resume", "run", "--set", "train.steps=25", "--threads", "1"}).status == 0);
    CHECK(contains(verify(work, {"--from", "20"}).out, "environment: as recorded\nproven: steps 21 to 25 "));
}

TEST_CASE("resume compares with the environment of the step that it goes on from") {
    Workplace work;
    make_run(work);
    // The newest environment, of steps behind these, is this machine's.
    const fs::path earlier = work / "run/environments/step-00000015.json";
    fs::create_directory(earlier.parent_path());
    fs::copy_file(work / "run/environment.json", earlier);
    replace(earlier, "\"blas\": \"", "\"blas\": \"Another");
    SECTION("made elsewhere") {
        fs::remove_all(work / "run/checkpoints/step-00000020");
        const Outcome resumed = work.run({"resume", "run", "--threads", "1"});
        CAPTURE(resumed.err);
        CHECK(resumed.status == 0);
        CHECK(contains(resumed.err, "warning: the run may go on with other bits than it would have where it began: "
                                    "blas: Another"));
    }
    SECTION("made here") {
        const Outcome resumed = work.run({"resume", "run", "--threads", "1", "--set", "train.steps=25"});
        CHECK(resumed.status == 0);
        CHECK_FALSE(contains(resumed.err, "other bits"));
    }
}

TEST_CASE("one wrong digit of one record is found") {
    Workplace work;
    make_run(work);
    const std::vector<std::string> lines = lines_of(content(work / "run/metrics.jsonl"));
    const std::string& line = lines[17];
    REQUIRE(contains(line, "\"step\":18,"));
    const std::string key = GENERATE("\"loss\":", "\"gradient_norm\":", "\"update_norm\":");
    const std::size_t digit = line.find(key) + key.size() + 4; // of "2.94722997"
    std::string changed = line;
    changed[digit] = changed[digit] == '7' ? '6' : '7';
    replace(work / "run/metrics.jsonl", line, changed);
    const Outcome outcome = verify(work);
    CAPTURE(outcome.out);
    CHECK(outcome.status == 3);
    CHECK(contains(outcome.out, "differs: step 18: " + key.substr(1, key.size() - 3) + " is "));
    CHECK(contains(outcome.out, "differs: 1 record and 0 checkpoints, of steps 16 to 20 "));
    CHECK(verify(work, {"--from", "5"}).status == 0); // elsewhere all is well
}

TEST_CASE("parameters that the steps do not lead to are found") {
    Workplace work;
    make_run(work);
    // A whole checkpoint, but of a run with another seed.
    REQUIRE(work.run(train_small({"--out", "other", "--set", "seed=2", "--set", "train.micro_batch=2"})).status == 0);
    fs::remove_all(work / "run/checkpoints/step-00000020");
    fs::rename(work / "other/checkpoints/step-00000020", work / "run/checkpoints/step-00000020");
    const Outcome outcome = verify(work);
    CAPTURE(outcome.out);
    CHECK(outcome.status == 3);
    CHECK(contains(outcome.out, "values differ from the checkpoint"));
    CHECK(contains(outcome.out, "differs: 5 records and 1 checkpoint, of steps 16 to 20 "));
}

TEST_CASE("a batchnorm's statistics that the steps do not lead to are found") {
    Workplace work;
    const Workplace::Arguments batchnorm{"--set", "model.norm.kind=batchnorm"};
    make_run(work, batchnorm);
    CHECK(verify(work).status == 0);
    // A whole checkpoint with the same parameters and moments: training does not look at the running statistics.
    Workplace::Arguments other{"--out", "other", "--set", "model.dropout=0.1", "--set", "model.norm.momentum=0.3"};
    other.insert(other.end(), batchnorm.begin(), batchnorm.end());
    REQUIRE(work.run(train_small(other)).status == 0);
    fs::remove_all(work / "run/checkpoints/step-00000020");
    fs::rename(work / "other/checkpoints/step-00000020", work / "run/checkpoints/step-00000020");
    const Outcome outcome = verify(work);
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 3);
    CHECK(contains(outcome.out, ".running_mean: "));
    CHECK_FALSE(contains(outcome.out, ".weight: "));
}

TEST_CASE("a run that was taken up again, or ended with a value that is not finite, is proven like any other") {
    Workplace work;
    SECTION("taken up again") {
        make_run(work);
        REQUIRE(work.run({"resume", "run", "--threads", "1", "--set", "train.steps=25"}).status == 0);
        CHECK(verify(work).status == 0);
        CHECK(verify(work, {"--from", "15"}).status == 0); // trained to another schedule's end than steps 21 to 25
    }
    SECTION("not finite") {
        make_run(work, {"--set", "optimizer.lr=1e30", "--set", "schedule.kind=constant", "--set", "schedule.warmup=0"});
        const Outcome outcome = verify(work, {"--from", "0"});
        CAPTURE(outcome.out, outcome.err);
        CHECK(outcome.status == 0);
    }
}

TEST_CASE("what cannot be proven is said with the reason") {
    Workplace work;
    make_run(work);
    const Outcome unknown = verify(work, {"--from", "7"});
    CHECK(unknown.status == 2);
    CHECK(contains(unknown.err, "run: has no checkpoint of step 7; expected one of 0, the beginning, 5, 10, 15, 20"));
    const Outcome end = verify(work, {"--from", "20"});
    CHECK(end.status == 2);
    CHECK(contains(end.err, "has no record behind step 20"));
    CHECK(work.run({"verify", "small.json"}).status == 2);
    const Outcome before = verify(work, {"--from", "-1"});
    CHECK(before.status == 2);
    CHECK(contains(before.err, "run: has no checkpoint of step -1; expected one of 0, the beginning, 5, 10, 15, 20"));
    const Outcome nothing = verify(work, {"--steps", "0"});
    CHECK(nothing.status == 2);
    CHECK(contains(nothing.err, "steps to verify: 0; expected 1 or more"));

    const std::string params = content(work / "run/checkpoints/step-00000015/params.safetensors");
    write(work / "run/checkpoints/step-00000015/params.safetensors", params.substr(1));
    const Outcome damaged = verify(work);
    CHECK(damaged.status == 1);
    CHECK(contains(damaged.err, "params.safetensors: damaged"));

    write(work / "text.txt", content(work / "text.txt") + ".");
    const Outcome changed = verify(work, {"--from", "0"});
    CHECK(changed.status == 1);
    CHECK(contains(changed.err, "text.txt: not the data that the run was trained on"));
}
