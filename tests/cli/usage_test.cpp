// What every command says about itself, and to a user who mistypes it.

#include "catch.h"
#include "program.h"

namespace {
const std::vector<std::string> kCommands = {"train",     "resume",   "eval",   "generate", "verify",  "graft",
                                            "explain",   "diagnose", "replay", "sweep",    "compare", "report",
                                            "reproduce", "check",    "schema", "bench"};
}

TEST_CASE("every command explains itself with an example") {
    Workplace work;
    const Outcome all = work.run({"--help"});
    CHECK(all.status == 0);
    CHECK(all.err.empty());
    for (const std::string& command : kCommands) {
        CAPTURE(command);
        CHECK(contains(all.out, "\n  " + command + " "));
        const Outcome help = work.run({command, "--help"});
        CHECK(help.status == 0);
        CHECK(help.err.empty());
        CHECK(contains(help.out, "Example: ballast " + command));
    }
    CHECK(contains(work.run({"--version"}).out, "ballast "));
}

TEST_CASE("a mistyped command line is one line on standard error and exit status 2") {
    Workplace work;
    work.write_small_run();
    const auto [arguments, expected] = GENERATE(table<Workplace::Arguments, std::string>({
        {{"trian", "x.json"}, "trian: no such command; did you mean train?"},
        {{"frobnicate"},
         "frobnicate: no such command; expected train, resume, eval, generate, verify, graft, explain, diagnose, "
         "replay, sweep, compare, report, reproduce, check, schema or bench"},
        {{"train"}, "CONFIG is required"},
        {{"train", "small.json", "--step=3"}, "--step: no such option"},
        {{"train", "small.json", "--thread", "2"}, "--thread: no such option; did you mean --threads?"},
        {{"train", "--tread=2"}, "--tread: no such option"},
        {{"train", "small.json", "other.json"}, "other.json: one argument too many"},
        {{"train", "small.json", "--threads", "0"}, "--threads: "},
        {{"train", "small.json", "--threads", "-3"}, "--threads: "},
        {{"train", "small.json", "--threads", "100000"}, "--threads: "},
        {{"train", "small.json", "--threads", "two"}, "--threads"},
        {{"train", "small.json", "--set"}, "--set"},
        {{"eval", "small.json", "--split", "test"}, "--split: "},
        {{"generate", "small.json"}, "--prompt is required"},
        {{"sweep"}, "SWEEP is required"},
        {{"sweep", "s.json", "--jobs", "0"}, "--jobs: "},
        {{"compare"}, "RUN is required"},
        {{"compare", "a", "b", "--to-loss", "low"}, "--to-loss"},
    }));
    CAPTURE(arguments);
    const Outcome outcome = work.run(arguments);
    CHECK(outcome.status == 2);
    CHECK(outcome.out.empty());
    CAPTURE(outcome.err);
    CHECK(lines_of(outcome.err).size() == 1);
    CHECK(contains(outcome.err, expected));
    CHECK(contains(outcome.err, "--help"));
}

TEST_CASE("a program without a command shows its commands and fails") {
    Workplace work;
    const Outcome outcome = work.run({});
    CHECK(outcome.status == 2);
    CHECK(outcome.out.empty());
    CHECK(contains(outcome.err, "Example: "));
}

TEST_CASE("a config where a run is expected, and the other way round") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);

    const Outcome train = work.run({"train", "runs/small"});
    CHECK(train.status == 2);
    CHECK(contains(train.err, "runs/small: a run directory; expected a config file"));
    CHECK(contains(train.err, "ballast resume runs/small"));

    for (const Workplace::Arguments& arguments :
         {Workplace::Arguments{"resume"}, {"eval"}, {"generate", "--prompt", "the"}}) {
        const auto with = [&](const std::string& run) {
            Workplace::Arguments words = arguments;
            words.push_back(run);
            return work.run(words);
        };
        CAPTURE(arguments.front());
        const Outcome config = with("small.json");
        CHECK(config.status == 2);
        CHECK(contains(config.err, "small.json: a file; expected a run directory"));
        const Outcome short_name = with("small");
        CHECK(short_name.status == 2);
        CHECK(contains(short_name.err, "small: no such run directory; did you mean runs/small?"));
        const Outcome typo = with("runs/smal");
        CHECK(typo.status == 2);
        CHECK(contains(typo.err, "runs/smal: no such run directory; did you mean runs/small?"));
        const Outcome checkpoint = with("runs/small/checkpoints/step-00000020");
        CHECK(checkpoint.status == 2);
        CHECK(contains(checkpoint.err, "a checkpoint; expected its run directory"));
        CHECK(with("runs").status == 2);
    }
}

TEST_CASE("output that cannot be written fails, and a reader that leaves does not matter") {
    Workplace work;
    const Outcome full = work.run({"schema"}, [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); });
    CHECK(full.status == 1);
    CHECK(contains(full.err, "standard output: "));

    const auto closed_pipe = [] {
        int ends[2];
        if (::pipe(ends) != 0) ::_exit(125);
        ::dup2(ends[1], STDOUT_FILENO);
        ::close(ends[0]);
        ::close(ends[1]);
    };
    const Outcome schema = work.run({"schema"}, closed_pipe);
    CHECK((schema.status == 0 || schema.status == 128 + SIGPIPE));
    CHECK(schema.err.empty());

    // Training goes on: what was trained is not lost because nobody looks any more.
    work.write_small_run();
    const Outcome train = work.run(train_small(), closed_pipe);
    CHECK(train.status == 0);
    CHECK_FALSE(contains(train.err, "standard output"));
    CHECK(std::filesystem::exists(work / "runs/small/checkpoints/step-00000020"));
}
