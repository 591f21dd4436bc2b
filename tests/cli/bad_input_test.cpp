// Each mistake that a user can make in a config or in data: exit status, file, line, key and what was expected.

#include <sstream>

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

TEST_CASE("mistakes in a config are one line each, with file, line, key and expectation") {
    struct Mistake {
        std::string config;
        std::string line; ///< the line on standard error contains this
    };
    const auto mistake = GENERATE(values<Mistake>({
        {"{\n \"data\": {\"path\": \"text.txt\"},\n \"modle\": {}\n}",
         "bad.json:3: modle: is not a key; did you mean `model`?"},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"model\": {\"layers\": \"four\"}}",
         "bad.json:2: model.layers: is \"four\"; expected an integer"},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"model\": {\"layers\": 0}}",
         "bad.json:2: model.layers: is 0; expected "},
        {"{\"data\": {\"path\": \"text.txt\"},\n\n \"model\": {\"norm\": {\"kind\": \"rmsnrom\"}}}",
         "bad.json:3: model.norm.kind: is \"rmsnrom\"; expected "},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"model\": {\"width\": 128,\n \"heads\": 5}}",
         "bad.json:3: model.heads: model.heads 5 does not divide model.width 128; expected a divisor, such as 4 or 8"},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"model\": {\"heads\": 4,\n \"kv_heads\": 3}}",
         "bad.json:3: model.kv_heads: model.kv_heads 3 does not divide model.heads 4; expected "},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"train\": {\"batch\": 12,\n \"micro_batch\": 5}}",
         "bad.json:3: train.micro_batch: train.micro_batch 5 does not divide train.batch 12; expected "},
        {"{\"data\": {\"path\": \"text.txt\"},\n \"seed\": 1,\n \"seed\": 2}", "bad.json:3: seed: is given twice"},
        {"{\"data\": {\"path\":\n", "bad.json:2: "},
        {"", "bad.json: is empty; expected a JSON object"},
        {"\n[1]", "bad.json:2: "},
        {"{\n\"extends\": \"bad.json\"}", "bad.json:2: extends: goes in a circle"},
        {"{\n\"extends\": \"none.json\"}", "bad.json:2: extends: none.json does not exist"},
        {"{\"data\": {\"path\":\n \"text.txt\"}, \"model\": {\"context\": 100000}}",
         "bad.json:1: data.path: "}, // the data are too short; what else is said of them stands below
        {"{\"seed\": 3}", "bad.json: data.path: is not given"},
    }));
    Workplace work;
    work.write_small_run();
    write(work / "bad.json", mistake.config);
    CAPTURE(mistake.config);
    for (const Workplace::Arguments& arguments : {Workplace::Arguments{"train", "bad.json", "--threads", "1"},
                                                  {"train", "bad.json", "--dry-run"},
                                                  {"check", "bad.json"}}) {
        const Outcome outcome = work.run(arguments);
        CAPTURE(arguments, outcome.err);
        CHECK(outcome.status == 2);
        CHECK(outcome.out.empty());
        CHECK(contains(outcome.err, mistake.line));
        CHECK_FALSE(fs::exists(work / "runs"));
    }
}

TEST_CASE("all mistakes of all files are reported, in order, each once") {
    Workplace work;
    work.write_small_run();
    write(work / "base.json", "{\"data\": {\"path\": \"text.txt\"},\n \"model\": {\"layers\": -1}}");
    write(work / "a.json", "{\"extends\": \"base.json\",\n \"seeed\": 1,\n \"optimizer\": {\"lr\": -1}}");
    write(work / "b.json", "{\"extends\": \"base.json\"}");
    const Outcome outcome = work.run({"check", "a.json", "small.json", "b.json", "missing.json", "."});
    CHECK(outcome.status == 2);
    CHECK(outcome.out == "small.json: ok\n");
    const std::vector<std::string> lines = lines_of(outcome.err);
    CAPTURE(outcome.err);
    REQUIRE(lines.size() == 5);
    CHECK(contains(lines[0], "a.json:2: seeed: is not a key; did you mean `seed`?"));
    CHECK(contains(lines[1], "a.json:3: optimizer.lr: is -1"));
    CHECK(contains(lines[2], "base.json:2: model.layers: is -1"));
    CHECK(contains(lines[3], "missing.json: does not exist; expected a config file"));
    CHECK(contains(lines[4], ".: is a directory; expected a config file"));

    CHECK(work.run({"check", "small.json"}).status == 0);
}

TEST_CASE("check reads sweep files, and train says what they are") {
    Workplace work;
    work.write_small_run();
    write(work / "sweep.json", R"({"base": "small.json", "grid": {"optimizer.lr": [1e-3, 1e-2]}, "seeds": [1, 2]})");
    CHECK(work.run({"check", "sweep.json"}).out == "sweep.json: ok, a sweep of 4 runs\n");

    write(work / "later.json", R"({"base": "small.json", "grid": {"data.path": ["text.txt", "later.txt"]}})");
    const Outcome later = work.run({"check", "later.json"});
    CHECK(later.status == 0);
    CHECK(contains(later.out, "later.json: ok, a sweep of 2 runs, but "));
    CHECK(contains(later.out, "later.txt does not exist yet\n"));

    write(work / "bad.json", "{\"base\": \"small.json\",\n \"grid\": {\"optimizer.lr\": [1e-3, -1]}}");
    const Outcome bad = work.run({"check", "bad.json"});
    CHECK(bad.status == 2);
    CHECK(contains(bad.err, "bad.json:2: "));
    CHECK(lines_of(bad.err).size() == 1);

    write(work / "context.json", R"({"base": "small.json", "grid": {"model.context": [8, 1000000]}})");
    const Outcome long_context = work.run({"check", "context.json"});
    CHECK(long_context.status == 2);
    CHECK(contains(long_context.err, "context.json: cell context=1000000: "));

    const Outcome trained = work.run({"train", "sweep.json"});
    CHECK(trained.status == 2);
    CHECK(contains(trained.err, "sweep.json:1: base: is a key of sweep files, which are for `ballast sweep`"));
}

TEST_CASE("overrides are checked like a file") {
    Workplace work;
    work.write_small_run();
    const auto [override, expected] = GENERATE(table<std::string, std::string>({
        {"model.norm.placment=post", "--set: model.norm.placment: is not a key; did you mean `placement`?"},
        {"train.steps=many", "--set: train.steps: is \"many\"; expected "},
        {"train.steps", "--set: \"train.steps\" is no override; expected KEY=VALUE"},
        {"=3", "--set: \"=3\" is no override; expected KEY=VALUE"},
        {"model.heads=3", "model.heads"},
        {"data.path=text.bin", "--set: data.path: "},
    }));
    CAPTURE(override);
    const Outcome outcome = work.run(train_small({"--set", override}));
    CAPTURE(outcome.err);
    CHECK(outcome.status == (override == "data.path=text.bin" ? 1 : 2));
    CHECK(contains(outcome.err, expected));
    CHECK_FALSE(fs::exists(work / "runs"));
}

TEST_CASE("data that cannot be trained on") {
    Workplace work;
    work.write_small_run();
    const auto uint16 = [](std::initializer_list<int> ids, int times) {
        std::string bytes;
        for (int i = 0; i < times; ++i)
            for (const int id : ids)
                bytes += {static_cast<char>(id & 0xFF), static_cast<char>(id >> 8)};
        return bytes;
    };
    std::string expected;
    int status = 2;
    Workplace::Arguments more;
    SECTION("empty") {
        write(work / "text.txt", "");
        expected = "small.json:3: data.path: " + (work / "text.txt").string() + ": empty; expected text";
    }
    SECTION("one token") {
        write(work / "text.txt", "a");
        expected = "a context of 8 needs at least 9";
    }
    SECTION("shorter than the context") {
        more = {"--set", "model.context=5000"};
        expected = "a context of 5000 needs at least 5001";
    }
    SECTION("not UTF-8") {
        write(work / "text.txt", "caf\xE9 au lait\n");
        expected = ": not UTF-8 at byte offset 3 (0xe9); expected UTF-8 text, or the tokenizer kind \"byte\"";
    }
    SECTION("token ids beyond the vocabulary") {
        fs::create_directory(work / "tokens");
        write(work / "tokens/train.bin", uint16({1, 2, 3, 70}, 20));
        write(work / "tokens/val.bin", uint16({1, 2, 3}, 20));
        more = {"--set", "data.path=tokens", "--set", "data.vocab_size=65"};
        expected = "train.bin: token 3 has id 70; expected ids from 0 to 64";
    }
    SECTION("half a token") {
        fs::create_directory(work / "tokens");
        write(work / "tokens/train.bin", "abc");
        more = {"--set", "data.path=tokens"};
        expected = "3 bytes, an odd number; expected uint16 token ids";
    }
    SECTION("a directory without tokens") {
        fs::create_directory(work / "tokens");
        more = {"--set", "data.path=tokens"};
        expected = "a directory without train.bin";
    }
    SECTION("missing") {
        fs::remove(work / "text.txt");
        expected = "small.json:3: data.path: " + (work / "text.txt").string() + ": cannot read: No such file";
        status = 1;
    }
    SECTION("unreadable") {
        // Root may read everything; a link to itself nobody can read.
        fs::remove(work / "text.txt");
        fs::create_symlink("text.txt", work / "text.txt");
        expected = "small.json:3: data.path: " + (work / "text.txt").string() + ": cannot read";
        status = 1;
    }
    const Outcome outcome = work.run(train_small(more));
    CAPTURE(outcome.err);
    CHECK(outcome.status == status);
    CHECK(contains(outcome.err, expected));
    CHECK_FALSE(fs::exists(work / "runs"));
}

TEST_CASE("an existing or impossible --out is refused and left alone") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string metrics = content(work / "runs/small/metrics.jsonl");
    const Outcome again = work.run(train_small());
    CHECK(again.status == 2);
    CHECK(contains(again.err, "runs/small: already exists; choose another --out, or go on with it: ballast resume"));
    CHECK(content(work / "runs/small/metrics.jsonl") == metrics);

    const Outcome below_a_file = work.run(train_small({"--out", "text.txt/run"}));
    CHECK(below_a_file.status == 1);
    CHECK(contains(below_a_file.err, "text.txt"));
}

TEST_CASE("a model larger than any memory is one clear line") {
    Workplace work;
    work.write_small_run();
    const Outcome outcome = work.run(train_small({"--set", "model.width=1048576", "--set", "model.layers=100"}));
    CHECK(outcome.status == 1);
    const std::vector<std::string> lines = lines_of(outcome.err);
    REQUIRE_FALSE(lines.empty());
    CHECK(contains(lines.back(), "out of memory: the run needs about "));
    CHECK(contains(lines.back(), "the largest parts: moments "));
    CHECK_FALSE(fs::exists(work / "runs"));
}

TEST_CASE("a prompt or a text with characters that the vocabulary lacks") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const Outcome prompt = work.run({"generate", "runs/small", "--prompt", "the Zebra"});
    CHECK(prompt.status == 2);
    CHECK(prompt.out.empty());
    CHECK(contains(prompt.err, "--prompt: the vocabulary lacks 'Z' (U+005A), character 5 of the text"));
    write(work / "other.txt", "the cat said: ¡hola!\n");
    const Outcome text = work.run({"eval", "runs/small", "--data", "other.txt"});
    CHECK(text.status == 2);
    CHECK(text.out.empty());
    CHECK(contains(text.err, "other.txt: the vocabulary lacks "));

    for (const Workplace::Arguments& arguments : {Workplace::Arguments{"--prompt", ""},
                                                  {"--prompt", "the", "--temperature", "-1"},
                                                  {"--prompt", "the", "--top-p", "0"},
                                                  {"--prompt", "the", "--seed", "-1"},
                                                  {"--prompt", "the", "--top-k", "-2"},
                                                  {"--prompt", "the", "--tokens", "-1"},
                                                  {"--prompt", "the", "--checkpoint", "7"}}) {
        Workplace::Arguments words{"generate", "runs/small"};
        words.insert(words.end(), arguments.begin(), arguments.end());
        const Outcome outcome = work.run(words);
        CAPTURE(words, outcome.err);
        CHECK(outcome.status == 2);
        CHECK(outcome.out.empty());
        CHECK(lines_of(outcome.err).size() == 1);
    }
}
