// Training as a user does it: what a run leaves behind, how it ends, what it shows.

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "program.h"
#include "sanitizer.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

/// metrics.jsonl without what depends on the clock.
std::vector<std::string> metrics_of(const fs::path& run) {
    std::vector<std::string> records;
    for (const std::string& line : lines_of(content(run / "metrics.jsonl"))) {
        Json record = Json::parse(line);
        record.erase("seconds");
        record.erase("tokens_per_second");
        records.push_back(record.dump());
    }
    return records;
}

std::size_t occurrences(const std::string& text, const std::string& part) {
    std::size_t count = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
        ++count;
    return count;
}

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(directory))
        names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

} // namespace

TEST_CASE("a finished run is whole, and its last two lines say how it went and what comes next") {
    Workplace work;
    work.write_small_run();
    const Outcome outcome = work.run(train_small());
    CAPTURE(outcome.out, outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(names_in(work / "runs/small") == std::vector<std::string>{"checkpoints", "config.json", "environment.json",
                                                                    "events.jsonl", "layers.jsonl", "lock",
                                                                    "metrics.jsonl", "summary.json"});
    CHECK(names_in(work / "runs/small/checkpoints") == std::vector<std::string>{"step-00000010", "step-00000020"});
    CHECK(metrics_of(work / "runs/small").size() == 20);
    CHECK(Json::parse(content(work / "runs/small/summary.json")).at("verdict") == "stable");

    const std::vector<std::string> lines = lines_of(outcome.out);
    REQUIRE(lines.size() >= 2);
    CHECK(contains(lines[lines.size() - 2], "stable: step 20, loss "));
    CHECK(contains(lines[lines.size() - 2], "val loss "));
    CHECK(contains(lines[lines.size() - 2], "unigram entropy "));
    CHECK(contains(lines.back(), "next: ballast generate runs/small --prompt "));
    CHECK(contains(outcome.err, "threads 1 of "));
    CHECK(contains(outcome.err, "parameters"));
    CHECK(contains(outcome.err, "unigram entropy"));
    CHECK_FALSE(contains(outcome.out + outcome.err, "\x1b"));
    CHECK_FALSE(contains(outcome.out + outcome.err, "\r"));

    // The suggested prompt is one that the vocabulary has.
    const std::string& next = lines.back();
    const std::size_t begin = next.find('\'') + 1;
    const std::string prompt = next.substr(begin, next.find('\'', begin) - begin);
    CHECK(work.run({"generate", "runs/small", "--prompt", prompt}).status == 0);
}

TEST_CASE("plain lines come every log_every steps and at evaluations") {
    Workplace work;
    work.write_small_run();
    const Outcome outcome = work.run(train_small({"--set", "train.log_every=4", "--set", "train.eval_every=10"}));
    REQUIRE(outcome.status == 0);
    std::vector<int> steps;
    for (const std::string& line : lines_of(outcome.out)) {
        if (!line.starts_with("step ")) continue;
        steps.push_back(std::stoi(line.substr(5)));
        CHECK(contains(line, "  val ") == (steps.back() % 10 == 0));
    }
    CHECK(steps == std::vector<int>{1, 4, 8, 10, 12, 16, 20});
}

TEST_CASE("--out and --set decide where and what") {
    Workplace work;
    work.write_small_run();
    REQUIRE(
        work.run(train_small({"--out", "deep/er/run", "--set", "train.steps=3", "--set", "model.norm.placement=post"}))
            .status == 0);
    const Json config = Json::parse(content(work / "deep/er/run/config.json"));
    CHECK(config.at("train").at("steps") == 3);
    CHECK(config.at("model").at("norm").at("placement") == "post");
    CHECK(metrics_of(work / "deep/er/run").size() == 3);
    CHECK_FALSE(fs::exists(work / "runs"));
}

TEST_CASE("the number of threads changes no bit") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small({"--out", "one"})).status == 0);
    REQUIRE(work.run({"train", "small.json", "--threads", "3", "--out", "three"}).status == 0);
    CHECK(metrics_of(work / "one") == metrics_of(work / "three"));
    CHECK(content(work / "one/checkpoints/step-00000020/params.safetensors") ==
          content(work / "three/checkpoints/step-00000020/params.safetensors"));
}

TEST_CASE("--dry-run measures and writes nothing") {
    Workplace work;
    work.write_small_run();
    fs::remove(work / ".stdout");
    const std::vector<std::string> before = names_in(work.path());
    const Outcome outcome = work.run(train_small({"--dry-run"}));
    REQUIRE(outcome.status == 0);
    fs::remove(work / ".stdout");
    fs::remove(work / ".stderr");
    CHECK(names_in(work.path()) == before);
    for (const char* what :
         {"parameters", "gradients", "moments", "activations", "in all", "FLOP", "tokens/s", "training", "20 steps"}) {
        CAPTURE(what, outcome.out);
        CHECK(contains(outcome.out, what));
    }
}

TEST_CASE("the memory that --dry-run computes is within a tenth of what is used") {
    Workplace work;
    std::string text;
    for (int i = 0; i < 20000; ++i)
        text += "the cat sat on mat " + std::to_string(i * i % 9973) + ".\n";
    write(work / "text.txt", text);
    write(work / "sized.json", R"({"data": {"path": "text.txt"}})");
    // Activations, moments, the vocabulary, many small tensors: each outweighs the others once.
    const Workplace::Arguments settings = GENERATE(values<Workplace::Arguments>({
        {"model.context=256", "model.width=128", "train.batch=16", "model.layers=3"},
        {"model.width=512", "model.context=16", "model.layers=4", "train.batch=2"},
        {"model.width=256", "model.context=64", "train.batch=32", "train.micro_batch=8", "optimizer.kind=sgd",
         "model.ffn.kind=swiglu", "model.position=rope", "model.norm.placement=post"},
        {"model.width=32", "model.layers=60", "model.heads=2", "train.batch=8"},
    }));
    Workplace::Arguments arguments{"train", "sized.json", "--threads", "1", "--dry-run"};
    for (const std::string& setting : settings)
        arguments.insert(arguments.end(), {"--set", setting});
    const Outcome outcome = work.run(arguments);
    CAPTURE(settings, outcome.out, outcome.err);
    REQUIRE(outcome.status == 0);
    for (const std::string& line : lines_of(outcome.out)) {
        double computed = 0;
        double measured = 0;
        std::array<char, 4> unit{};
        // "         in all            91.2 MiB  computed before a byte of it was taken; 93.0 MiB measured, ..."
        if (std::sscanf(line.c_str(), " in all %lf MiB computed before a byte of it was taken; %lf %3s", &computed,
                        &measured, unit.data()) != 3)
            continue;
        INFO(line);
        if (!kPagesTellMemory) return;
        CHECK(std::string(unit.data()) == "MiB");
        CHECK(computed == Approx(measured).epsilon(0.1));
        return;
    }
    FAIL("no line says what was computed and measured");
}

TEST_CASE("a run that diverges ends with status 3, a verdict and a whole run directory") {
    Workplace work;
    work.write_small_run(R"("steps": 50, "checkpoint_every": 1, "keep_checkpoints": 0)");
    const Outcome outcome = work.run(train_small({"--set", "optimizer.lr=1e30", "--set", "schedule.kind=constant",
                                                  "--set", "schedule.warmup=0", "--set", "optimizer.weight_decay=0"}));
    CAPTURE(outcome.out, outcome.err);
    CHECK(outcome.status == 3);
    const std::vector<std::string> lines = lines_of(outcome.out);
    REQUIRE(lines.size() >= 2);
    CHECK(contains(lines[lines.size() - 2], "non_finite (step "));
    CHECK(contains(lines[lines.size() - 2], "not finite"));
    CHECK(contains(lines.back(), "next: "));

    const Json summary = Json::parse(content(work / "runs/small/summary.json"));
    CHECK(summary.at("verdict") == "non_finite");
    CHECK(contains(summary.at("reason").get<std::string>(), "is not finite"));
    const std::vector<std::string> events = lines_of(content(work / "runs/small/events.jsonl"));
    REQUIRE_FALSE(events.empty());
    CHECK(Json::parse(events.back()).at("kind") == "non_finite");
    for (const std::string& line : lines_of(content(work / "runs/small/metrics.jsonl")))
        CHECK_NOTHROW(Json::parse(line));

    // It diverges again where it did, and nothing is lost by trying.
    const Outcome again = work.run({"resume", "runs/small", "--threads", "1"});
    CHECK(again.status == 3);
    CHECK(Json::parse(content(work / "runs/small/summary.json")).at("reason") == summary.at("reason"));
}

TEST_CASE("an interrupted run is saved, and after resume equals one that never stopped") {
    const int signal = GENERATE(SIGINT, SIGTERM);
    Workplace work;
    work.write_small_run(R"("steps": 4000, "checkpoint_every": 1500)");
    REQUIRE(work.run(train_small({"--out", "unbroken"})).status == 0);

    const pid_t child = work.start(train_small());
    REQUIRE(wait_until([&] { return content(work / "runs/small/metrics.jsonl").size() > 20000; }));
    ::kill(child, signal);
    const Outcome interrupted = work.finish(child);
    CAPTURE(interrupted.out, interrupted.err);
    REQUIRE(interrupted.status == 130);
    CHECK(contains(interrupted.err, "stopping after this step"));
    CHECK(contains(interrupted.out, "interrupted and saved: step "));
    CHECK(contains(interrupted.out, "next: ballast resume runs/small"));
    const Json summary = Json::parse(content(work / "runs/small/summary.json"));
    CHECK(summary.at("verdict") == "interrupted");
    CHECK(summary.at("step") < 4000);

    const Outcome resumed = work.run({"resume", "runs/small", "--threads", "1"});
    CAPTURE(resumed.out, resumed.err);
    REQUIRE(resumed.status == 0);
    CHECK(contains(resumed.err, "going on from step " + std::to_string(summary.at("step").get<int>())));
    for (const char* file : {"params.safetensors", "optim.safetensors"})
        CHECK(content(work / "runs/small/checkpoints/step-00004000" / file) ==
              content(work / "unbroken/checkpoints/step-00004000" / file));
    CHECK(metrics_of(work / "runs/small") == metrics_of(work / "unbroken"));
}

TEST_CASE("a run that is killed goes on from its last checkpoint to the same end") {
    Workplace work;
    work.write_small_run(R"("steps": 3000, "checkpoint_every": 100)");
    REQUIRE(work.run(train_small({"--out", "unbroken"})).status == 0);
    const pid_t child = work.start(train_small());
    REQUIRE(wait_until([&] { return content(work / "runs/small/metrics.jsonl").size() > 100000; }));
    ::kill(child, SIGKILL);
    REQUIRE(work.finish(child).status == 128 + SIGKILL);
    REQUIRE(work.run({"resume", "runs/small", "--threads", "1"}).status == 0);
    CHECK(content(work / "runs/small/checkpoints/step-00003000/params.safetensors") ==
          content(work / "unbroken/checkpoints/step-00003000/params.safetensors"));
    CHECK(metrics_of(work / "runs/small") == metrics_of(work / "unbroken"));
}

TEST_CASE("a second interrupt ends the process at once") {
    Workplace work;
    // One step takes many seconds, so that the first interrupt is still being obeyed.
    work.write_small_run(R"("steps": 10, "batch": 200000)");
    std::string config = content(work / "small.json");
    config.replace(config.find("\"batch\": 4, "), std::string("\"batch\": 4, ").size(), "\"micro_batch\": 4, ");
    write(work / "small.json", config);
    const pid_t child = work.start(train_small());
    const auto standard_error = [&] { return content(work / ".stderr"); };
    REQUIRE(wait_until([&] { return contains(standard_error(), "10 steps of "); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    ::kill(child, SIGINT);
    REQUIRE(wait_until([&] { return contains(standard_error(), "once more stops at once"); }));
    ::kill(child, SIGINT);
    CHECK(work.finish(child).status == 128 + SIGINT);
}

TEST_CASE("a finished run says so, and goes on when it gets more steps") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string summary = content(work / "runs/small/summary.json");
    const Outcome finished = work.run({"resume", "runs/small", "--threads", "1"});
    CHECK(finished.status == 0);
    CHECK(contains(finished.out, "runs/small: has made all of its 20 steps"));
    CHECK(contains(finished.out, "next: ballast resume runs/small --set train.steps=40"));
    CHECK(content(work / "runs/small/summary.json") == summary);

    const Outcome extended = work.run({"resume", "runs/small", "--threads", "1", "--set", "train.steps=40"});
    CHECK(extended.status == 0);
    CHECK(metrics_of(work / "runs/small").size() == 40);

    const Outcome other_model =
        work.run({"resume", "runs/small", "--threads", "1", "--set", "model.width=32", "--set", "train.steps=60"});
    CHECK(other_model.status == 1);
    CHECK(contains(other_model.err, "embedding.tokens"));

    // Killed before its summary, and then asked for fewer steps than it has made.
    fs::remove(work / "runs/small/summary.json");
    const Outcome shortened = work.run({"resume", "runs/small", "--threads", "1", "--set", "train.steps=30"});
    CHECK(shortened.status == 0);
    CHECK(contains(shortened.out, "stable: step 40, loss "));
    CHECK(contains(shortened.out, "next: ballast generate runs/small "));
}

TEST_CASE("a disk that is full keeps the checkpoint before") {
    Workplace work;
    work.write_small_run(R"("steps": 10, "checkpoint_every": 10)");
    REQUIRE(work.run(train_small()).status == 0);
    const auto params = fs::file_size(work / "runs/small/checkpoints/step-00000010/params.safetensors");
    const Outcome full = work.run({"resume", "runs/small", "--threads", "1", "--set", "train.steps=20"}, [params] {
        const rlimit limit{params - 1, params - 1};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    });
    CAPTURE(full.out, full.err);
    CHECK(full.status == 1);
    CHECK(contains(full.err, "params.safetensors"));
    CHECK(names_in(work / "runs/small/checkpoints") == std::vector<std::string>{"step-00000010"});
    CHECK(contains(work.run({"eval", "runs/small", "--threads", "1"}).out, "checkpoint of step 10"));
    REQUIRE(work.run({"resume", "runs/small", "--threads", "1", "--set", "train.steps=20"}).status == 0);
    CHECK(names_in(work / "runs/small/checkpoints") == std::vector<std::string>{"step-00000010", "step-00000020"});
}

TEST_CASE("output that cannot be written is told of in the end, and the run is trained all the same") {
    Workplace work;
    work.write_small_run(R"("steps": 10, "checkpoint_every": 10)");
    const Outcome outcome = work.run(train_small(), [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); });
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "standard output: "));
    CHECK(names_in(work / "runs/small/checkpoints") == std::vector<std::string>{"step-00000010"});
}

TEST_CASE("what is meant for a closed stream ends in no file of the run") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small({"--out", "open"})).status == 0);
    const Outcome no_output = work.run(train_small({"--out", "closed"}), [] { ::close(STDOUT_FILENO); });
    CHECK(no_output.status == 1);
    CHECK(contains(no_output.err, "standard output: "));
    CHECK(work.run(train_small({"--out", "all closed"}),
                   [] {
                       for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
                           ::close(stream);
                   })
              .status == 1);
    for (const char* run : {"closed", "all closed"}) {
        CAPTURE(run);
        CHECK(names_in(work / run) == names_in(work / "open"));
        CHECK(metrics_of(work / run) == metrics_of(work / "open"));
        for (const char* file : {"config.json", "environment.json", "layers.jsonl", "events.jsonl",
                                 "checkpoints/step-00000020/params.safetensors"})
            CHECK(content(work / run / file) == content(work / "open" / file));
        const std::string holder = content(work / run / "lock");
        CHECK(holder.find_first_not_of("0123456789\n") == std::string::npos);
    }
}

TEST_CASE("on a terminal there is one live line that fits it") {
    Workplace work;
    work.write_small_run(R"("steps": 1000, "checkpoint_every": 500)");
    const unsigned short columns = GENERATE(as<unsigned short>(), 40, 100);
    const Outcome outcome = work.run_on_terminal(train_small(), columns);
    REQUIRE(outcome.status == 0);
    CHECK(contains(outcome.out, "\r\x1b[J"));
    CHECK(contains(outcome.out, "\x1b[36m"));
    CHECK(contains(outcome.out, "stable: step 1000"));
    CHECK(contains(outcome.out, "saved runs/small/checkpoints/step-00000500"));

    // A live line stands between the last whole line, or the last erasing, and the erasing that ends it.
    const std::string erase = "\r\x1b[J";
    std::size_t live_lines = 0, begin = 0;
    for (std::size_t end = outcome.out.find(erase); end != std::string::npos; end = outcome.out.find(erase, begin)) {
        const std::size_t line = outcome.out.rfind('\n', end);
        std::size_t width = 0;
        for (std::size_t i = line == std::string::npos ? begin : std::max(begin, line + 1); i < end; ++i) {
            if (outcome.out[i] == '\x1b')
                i = outcome.out.find('m', i);
            else if ((outcome.out[i] & 0xC0) != 0x80)
                ++width;
        }
        if (width > 0) ++live_lines;
        CHECK(width < columns);
        begin = end + erase.size();
    }
    CHECK(live_lines > 0);
}

TEST_CASE("NO_COLOR takes the colours away, and a dumb terminal gets plain lines") {
    Workplace work;
    work.write_small_run();
    const Outcome plain = work.run_on_terminal(train_small({"--out", "a"}), 80, [] { ::setenv("NO_COLOR", "1", 1); });
    REQUIRE(plain.status == 0);
    CHECK(occurrences(plain.out, "\x1b[") == occurrences(plain.out, "\x1b[J"));
    CHECK(contains(plain.out, "\x1b[J"));
    const Outcome dumb = work.run_on_terminal(train_small({"--out", "b"}), 80, [] { ::setenv("TERM", "dumb", 1); });
    REQUIRE(dumb.status == 0);
    CHECK_FALSE(contains(dumb.out, "\x1b"));
    CHECK(contains(dumb.out, "step 10/20"));
}
