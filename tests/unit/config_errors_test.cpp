#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "catch.h"
#include "config_random.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

fs::path write(const fs::path& file, const std::string& text) {
    std::ofstream(file, std::ios::binary) << text;
    return file;
}

std::vector<std::string> lines_of(const std::vector<ConfigProblem>& problems) {
    std::vector<std::string> lines;
    for (const ConfigProblem& problem : problems)
        lines.push_back(problem.text());
    return lines;
}

/// The mistakes in a text, as they are printed.
std::vector<std::string> mistakes(const std::string& text, const std::vector<std::string>& overrides = {}) {
    try {
        config_from_json(text, "c.json", overrides);
    } catch (const ConfigError& error) {
        return lines_of(error.problems());
    }
    return {};
}

/// The only mistake in a config with these further lines, of which the first is line 2.
std::string mistake(const std::string& lines) {
    const auto found = mistakes("{\"data\": {\"path\": \"/t\"},\n" + lines + "}");
    INFO(lines);
    for (const std::string& line : found)
        UNSCOPED_INFO(line);
    REQUIRE(found.size() == 1);
    return found[0];
}

std::vector<std::string> file_mistakes(const fs::path& file) {
    return lines_of(check_configs(std::vector<fs::path>{file}));
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("an unknown key names the key that was meant", "[config]") {
    CHECK(mistake("\"model\": {\n\"layres\": 3}") == "c.json:3: model.layres: is not a key; did you mean `layers`?");
    CHECK(mistake("\"modle\": {}") == "c.json:2: modle: is not a key; did you mean `model`?");
    CHECK(mistake("\"schedule\": {\"lr\": 1}") == "c.json:2: schedule.lr: is not a key; did you mean `optimizer.lr`?");
    CHECK(mistake("\"train\": {\"width\": 1}") ==
          "c.json:2: train.width: is not a key; did you mean `model.width` or `model.ffn.width`?");
    CHECK(mistake("\"model.layers\": 3") ==
          "c.json:2: model.layers: is a path, as --set takes it; expected `layers` in the object `model`");
    CHECK(mistake("\"model.norm.eps\": 3") ==
          "c.json:2: model.norm.eps: is a path, as --set takes it; expected `eps` in the object `model.norm`");
    CHECK(mistake("\"model\": {\"norm.eps\": 3}") ==
          "c.json:2: model.norm.eps: is a path, as --set takes it; expected `eps` in the object `model.norm`");
    CHECK(mistake("\"modle.layers\": 3") == "c.json:2: modle.layers: is not a key; did you mean `model.layers`?");
    CHECK(mistake("\"model\": {\"norn.esp\": 3}") ==
          "c.json:2: model.norn.esp: is not a key; did you mean `model.norm.eps`?");
    CHECK(mistake("\"model\": {\"n_head\": 3}") == "c.json:2: model.n_head: is not a key; did you mean `heads`?");
    CHECK(mistake("\"block_size\": 3") == "c.json:2: block_size: is not a key; did you mean `model.context`?");
    CHECK(mistake("\"log\": {\"banana\": 3}") == "c.json:2: log.banana: is not a key; expected csv or tensorboard");
    CHECK(
        mistake("\"model\": {\"extends\": \"x\"}") ==
        "c.json:2: model.extends: is not a key; expected layers, heads, kv_heads, width, context, ffn, norm, "
        "final_norm, embedding, qk_norm, v_norm, logit_softcap, head_scale, residual, layerscale_init, position, rope, "
        "tie_embeddings, bias, dropout or init");
}

TEST_CASE("a value of another type is refused", "[config]") {
    CHECK(mistake("\"model\": {\"layers\": \"4\"}") ==
          "c.json:2: model.layers: is \"4\"; expected an integer from 1 to 10000");
    CHECK(mistake("\n\n\"model\": {\"bias\":\n1}") == "c.json:4: model.bias: is 1; expected true or false");
    CHECK(mistake("\"model\": {\"norm\": \"post\"}") ==
          "c.json:2: model.norm: is \"post\"; expected an object with keys such as kind, placement, attn, ffn, "
          "layers, depth_scale, eps, gain, bias, unit_offset, partial, momentum, alpha, attention_alpha, shift, pre, "
          "out, post, final, embedding, qk, v or inner");
    CHECK(
        mistake("\"model\": null") ==
        "c.json:2: model: is null; expected an object with keys such as layers, heads, kv_heads, width, context, ffn, "
        "norm, final_norm, embedding, qk_norm, v_norm, logit_softcap, head_scale, residual, layerscale_init, position, "
        "rope, tie_embeddings, bias, dropout or init");
    CHECK(mistake("\"optimizer\": {\"lr\": [1]}") == "c.json:2: optimizer.lr: is [1]; expected a number of at least 0");
    CHECK(mistake("\"optimizer\": {\"betas\": [0.9]}") ==
          "c.json:2: optimizer.betas: is [0.9]; expected an array of 2 numbers, each from 0 to 0.9999999");
    CHECK(mistake("\"optimizer\": {\"betas\": [0.9, \"x\"]}").find("is [0.9, \"x\"]; expected") != std::string::npos);
    CHECK(mistake("\"name\": 3") ==
          "c.json:2: name: is 3; expected a name for a directory: not empty, at most 200 bytes, "
          "no slash or control character, not starting with . or -");
    CHECK(mistakes("[1]").front().find("c.json:1: is [1]; expected an object") == 0);
    CHECK(mistakes("3").size() == 1);
    CHECK(contains(mistake("\"seed\": [1, [2]]"), "seed: is an array of 2; expected"));
    CHECK(contains(mistake("\"optimizer\": {\"betas\": [0.9, 1.0]}"),
                   "betas: is [0.9, 1.0]; expected an array of 2 numbers"));
}

TEST_CASE("a number outside its range is refused with the range", "[config]") {
    CHECK(mistake("\"model\": {\"layers\": 0}") == "c.json:2: model.layers: is 0; expected an integer from 1 to 10000");
    CHECK(mistake("\"model\": {\"layers\": 2.5}") ==
          "c.json:2: model.layers: is 2.5; expected an integer from 1 to 10000");
    CHECK(mistake("\"train\": {\"steps\": 9223372036854775808}") ==
          "c.json:2: train.steps: is 9223372036854775808; expected an integer of at least 0");
    CHECK(mistake("\"train\": {\"steps\": 99999999999999999999}") ==
          "c.json:2: train.steps: is 99999999999999999999; expected an integer of at least 0");
    CHECK(mistake("\"train\": {\"steps\": -9223372036854775809}") ==
          "c.json:2: train.steps: is -9223372036854775809; expected an integer of at least 0");
    CHECK(mistake("\"train\": {\"steps\": 1e300}") ==
          "c.json:2: train.steps: is 1e300; expected an integer of at least 0");
    CHECK(mistake("\"seed\": -1") == "c.json:2: seed: is -1; expected an integer from 0 to 18446744073709551615");
    CHECK(mistake("\"model\": {\"dropout\": 1}") ==
          "c.json:2: model.dropout: is 1; expected a number of at least 0 and below 1");
    // What float has no place for: 1 - beta would be 0, and an eps of 0 divides 0 by 0 where there is no gradient.
    for (const char* lost : {"\"betas\": [0.9, 0.999999999]", "\"momentum\": 0.999999999", "\"eps\": 1e-50"})
        CHECK(contains(mistake(std::string("\"optimizer\": {") + lost + "}"), "; expected "));
    CHECK(
        mistakes("{\"data\": {\"path\": \"x\"},\n\"optimizer\": {\"betas\": [0.9999999, 0], \"eps\": 1e-37}}").empty());
    CHECK(mistake("\"model\": {\"rope\": {\"theta\": 0}}") ==
          "c.json:2: model.rope.theta: is 0; expected a number above 0 and of at most 1e+37");
    CHECK(mistake("\"name\": \"a/b\"").find("c.json:2: name: is \"a/b\"; expected a name for a directory") == 0);
    CHECK(mistake("\"name\": \"..\"").find("c.json:2: name: is \"..\"; expected") == 0);
    CHECK(
        mistakes("{\"data\": {\"path\": \"a\\u0000b\"}}") ==
        std::vector<std::string>{"c.json:1: data.path: is \"a\\u0000b\"; expected a path without control characters"});
}

TEST_CASE("an unknown enum value names the nearest one", "[config]") {
    CHECK(mistake("\"model\": {\"norm\": {\"kind\": \"layernrom\"}}") ==
          "c.json:2: model.norm.kind: is \"layernrom\"; expected none, layernorm, rmsnorm, batchnorm, "
          "scalenorm, dyt or derf; did you mean `layernorm`?");
    CHECK(mistake("\"model\": {\"norm\": {\"kind\": \"Rmsnorm\"}}").find("did you mean `rmsnorm`?") !=
          std::string::npos);
    CHECK(mistake("\"model\": {\"position\": 3}") ==
          "c.json:2: model.position: is 3; expected learned, rope, sinusoidal, alibi or none");
    CHECK(mistake("\"optimizer\": {\"kind\": \"shampoo\"}") ==
          "c.json:2: optimizer.kind: is \"shampoo\"; expected adamw or sgd");
    CHECK(mistake("\"model\": {\"final_norm\": true}") ==
          "c.json:2: model.final_norm: is true; expected auto, on or off");
}

TEST_CASE("a key given twice is a mistake in the second line", "[config]") {
    CHECK(mistake("\"seed\": 1,\n\n\"seed\": 1") == "c.json:4: seed: is given twice, first in line 2; expected once");
    CHECK(mistake("\"model\": {\"layers\": 1,\n\"layers\": 2}") ==
          "c.json:3: model.layers: is given twice, first in line 2; expected once");
    CHECK(mistake("\"train\": {\"steps\": 1},\n\"train\": {\"batch\": 2}") ==
          "c.json:3: train: is given twice, first in line 2; expected once");
}

TEST_CASE("keys that do not go together", "[config]") {
    CHECK(mistake("\"model\": {\"width\": 130}") ==
          "c.json:2: model.width: model.heads 4 does not divide model.width 130; expected a divisor, such as 2 or 5");
    CHECK(mistake("\"model\": {\"width\": 130,\n\"heads\": 3}").find("c.json:3: model.heads: model.heads 3 does not") ==
          0);
    CHECK(
        mistake("\"model\": {\n\"kv_heads\": 3}") ==
        "c.json:3: model.kv_heads: model.kv_heads 3 does not divide model.heads 4; expected a divisor, such as 2 or 4");
    CHECK(mistake("\"model\": {\n\"kv_heads\": 8}") ==
          "c.json:3: model.kv_heads: model.kv_heads 8 does not divide model.heads 4; expected a divisor, such as 4");
    CHECK(mistake("\"train\": {\"batch\": 12, \"micro_batch\": 5}") ==
          "c.json:2: train.micro_batch: train.micro_batch 5 does not divide train.batch 12; expected a divisor, such "
          "as 4 or "
          "6");
    CHECK(contains(
        mistake("\"model\": {\"width\": 12,\n\"position\": \"rope\"}"),
        "c.json:3: model.position: rope rotates pairs of features, but model.width 12 / model.heads 4 is odd"));
    CHECK(contains(mistake("\"model\": {\"width\": 3, \"heads\": 3,\n\"position\": \"sinusoidal\"}"),
                   "c.json:3: model.position: sinusoidal positions are pairs"));
    CHECK(contains(mistake("\"model\": {\"norm\": {\"kind\": \"rmsnorm\",\n\"bias\": \"on\"}}"),
                   "c.json:3: model.norm.bias: "));
    CHECK(mistake("\"optimizer\": {\"lr\": 1e-5}") == "c.json:2: optimizer.lr: schedule.final_lr 0.0001 is above "
                                                      "optimizer.lr 1e-05, but cosine falls to it; expected at "
                                                      "most optimizer.lr");
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}, \"schedule\": {\"kind\": \"constant\", \"final_lr\": 1}}").empty());
    CHECK(mistakes("{}") ==
          std::vector<std::string>{"c.json: data.path: is not given; expected a text file or a directory of bin data"});
    CHECK(
        mistakes("{\n\"data\": {\"path\": \"\"}}") ==
        std::vector<std::string>{"c.json:2: data.path: is not given; expected a text file or a directory of bin data"});
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}}", {"model.heads=3"}).front().find("--set: model.heads: ") == 0);
}

TEST_CASE("all mistakes are reported at once, in the order of the file", "[config]") {
    const std::vector<std::string> found = mistakes(R"({
  "nmae": "x",
  "model": {
    "layers": 0,
    "width": 130,
    "norm": {"kind": "rms", "eps": "small"}
  },
  "train": {"batch": 6, "micro_batch": 4},
  "seed": 1,
  "seed": 2
})",
                                                    {"model.dropout=2", "steps=3"});
    const std::vector<std::string> starts = {"c.json: data.path: is not given",
                                             "c.json:2: nmae: is not a key; did you mean `name`?",
                                             "c.json:4: model.layers: is 0",
                                             "c.json:5: model.width: model.heads 4 does not divide",
                                             "c.json:6: model.norm.kind: is \"rms\"",
                                             "c.json:6: model.norm.eps: is \"small\"",
                                             "c.json:8: train.micro_batch: train.micro_batch 4 does not divide",
                                             "c.json:10: seed: is given twice",
                                             "--set: model.dropout: is 2",
                                             "--set: steps: is not a key; did you mean `train.steps`?"};
    REQUIRE(found.size() == starts.size());
    for (std::size_t i = 0; i < starts.size(); ++i)
        CHECK(found[i].substr(0, starts[i].size()) == starts[i]);
}

TEST_CASE("a value that could not be used causes no second mistake", "[config]") {
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}, \"model\": {\"width\": \"130\", \"heads\": 3}}").size() == 1);
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}, \"model\": {\"widht\": 129, \"heads\": 3}}").size() == 1);
    CHECK(mistakes("{\"dta\": {\"path\": \"/t\"}}").size() == 1);
}

TEST_CASE("what is not JSON is one mistake with its line", "[config]") {
    struct Case {
        std::string text, expected;
    };
    const std::vector<Case> cases = {
        {"", "c.json: is empty; expected a JSON object"},
        {" \n\t\n", "c.json: is empty; expected a JSON object"},
        {"{\n\"seed\": NaN}",
         "c.json:2: is not JSON in column 9: NaN is not a number in JSON; expected a finite number"},
        {"{\"seed\":\n-Infinity}", "c.json:2: is not JSON in column 2: -Infinity is not a number in JSON; expected a"},
        {"{\n\n\"seed\": 1e999}",
         "c.json:3: is not JSON in column 13: the number 1e999 is too large; expected one below"},
        {"{\n\"a\": True}", "c.json:2: is not JSON in column 6: True is no JSON; expected true"},
        {"{\n\"seed\": 1,\n}",
         "c.json:3: is not JSON in column 1: a comma before }; expected none after the last entry"},
        {"{\"a\": [1,\n2,]\n}",
         "c.json:2: is not JSON in column 3: a comma before ]; expected none after the last entry"},
        {"{\n'a': 1}", "c.json:2: is not JSON in column 1: a single quote; expected double quotes"},
        {"{\n\"a: 1,\n\"b\": 2}",
         "c.json:2: is not JSON in column 7: a string goes beyond its line; expected a closing"},
        {"{\n\"a\": 1\n", "c.json:3: is not JSON in column 1: the text ends too early; expected closing"},
        {"{\n\"a\": 1\n\"b\": 2}", "c.json:3: is not JSON in column 3: unexpected string literal; expected '}'"},
        {"{} {}", "c.json:1: is not JSON in column 4: unexpected '{'; expected end of input"},
        {"{\"a\": \"\xff\"}", "c.json:1: is not JSON in column 8: invalid string: ill-formed UTF-8 byte"},
        {"hello", "c.json:1: is not JSON in column 1: `hello` is out of place; expected a value"},
        {"# note\n{}", "c.json:1: is not JSON in column 1: `#` is out of place; expected a value"},
        {"{\"a\": tru}", "c.json:1: is not JSON in column 10: `tru` is out of place; expected a value"},
        {"{\"a\": 1.}", "c.json:1: is not JSON in column 9: invalid number; expected digit after '.'"},
        {"{\"a\": \"\\x\"}",
         "c.json:1: is not JSON in column 9: invalid string: forbidden character after backslash; "},
        {"{ /* no end", "c.json:1: is not JSON in column"},
    };
    for (const Case& c : cases) {
        const auto found = mistakes(c.text);
        INFO(c.text);
        REQUIRE(found.size() == 1);
        CHECK(found[0].substr(0, c.expected.size()) == c.expected);
        CHECK_FALSE(contains(found[0], "json.exception"));
    }
}

TEST_CASE("nesting is bounded", "[config]") {
    for (const char* open : {"[", "{\"model\":"}) {
        std::string deep;
        for (int i = 0; i < 100000; ++i)
            deep += open;
        CHECK(mistakes(deep) == std::vector<std::string>{"c.json:1: is nested too deep; expected at most 64 levels"});
        CHECK(mistakes("{\"data\": {\"path\": \"/t\"}}", {"model=" + deep}).size() == 1);
    }
    std::string path = "a";
    for (int i = 0; i < 100000; ++i)
        path += ".a";
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}}", {path + "=1"}).size() == 1);
}

TEST_CASE("many mistakes are cut off with their number", "[config]") {
    std::string text = "{\"data\": {\"path\": \"/t\"}";
    for (int i = 0; i < 250; ++i)
        text += ", \"junk" + std::to_string(i) + "\": 1";
    const auto found = mistakes(text + "}");
    REQUIRE(found.size() == 101);
    CHECK(found.back() == "c.json: has 150 more mistakes; fix those above first");
}

TEST_CASE("messages are safe to print", "[config]") {
    const auto found =
        mistakes("{\"data\": {\"path\": \"/t\"}, \"\\u001b[31m\\n\\u202e\": 1, \"name\": \"a\\u009b\\u0000\"}");
    REQUIRE(found.size() == 2);
    CHECK(contains(found[0], "\\u001b[31m\\n\\u202e"));
    CHECK(contains(found[1], "a\\u009b\\u0000"));
    CHECK(mistakes("{\"data\": {\"path\": \"/t\"}, \"" + std::string(100000, 'x') + "\": 1}").front().size() < 300);
    const auto bytes = mistakes("{\"data\": {\"path\": \"/t\"}}", {"name=\xff\x1b"});
    REQUIRE(bytes.size() == 1);
    CHECK(contains(bytes[0], "is \"\\xff\\u001b\"; expected"));
}

TEST_CASE("files that cannot be read", "[config]") {
    const TemporaryDirectory dir;
    const std::string name = (dir / "none.json").string();
    CHECK(file_mistakes(dir / "none.json") ==
          std::vector<std::string>{name + ": does not exist; expected a config file"});
    CHECK(file_mistakes(dir.path()) ==
          std::vector<std::string>{dir.path().string() + ": is a directory; expected a config file"});
    CHECK(file_mistakes(write(dir / "empty.json", "")).front().find(": is empty; expected a JSON object") !=
          std::string::npos);
    // Reading a process's memory at address 0 fails even for the superuser, whom permissions do not stop.
    CHECK(contains(file_mistakes("/proc/self/mem").front(), "/proc/self/mem: cannot be read: "));
    CHECK(contains(file_mistakes(dir / "none.json/x.json").front(), "none.json/x.json: "));
    CHECK(contains(file_mistakes("/dev/zero").front(), "/dev/zero: is larger than 16 MiB; expected a config file"));
}

TEST_CASE("extends that leads nowhere or in a circle", "[config]") {
    const TemporaryDirectory dir;
    const std::string base = dir.path().string() + "/";
    const std::string data = "\"data\": {\"path\": \"t\"}";
    write(dir / "missing.json", "{" + data + ",\n\"extends\": \"gone.json\"}");
    CHECK(file_mistakes(dir / "missing.json") ==
          std::vector<std::string>{base + "missing.json:2: extends: " + base +
                                   "gone.json does not exist; expected a config file"});
    write(dir / "folder.json", "{" + data + ", \"extends\": \".\"}");
    CHECK(contains(file_mistakes(dir / "folder.json").front(), "folder.json:1: extends: "));
    CHECK(contains(file_mistakes(dir / "folder.json").front(), "is a directory; expected a config file"));
    write(dir / "number.json", "{" + data + ",\n\n\"extends\": [\"a.json\"]}");
    CHECK(
        file_mistakes(dir / "number.json") ==
        std::vector<std::string>{base + "number.json:3: extends: is [\"a.json\"]; expected the path of a config file"});

    write(dir / "self.json", "{\"extends\": \"./self.json\"}");
    CHECK(file_mistakes(dir / "self.json") ==
          std::vector<std::string>{base + "self.json:1: extends: goes in a circle, " + base + "self.json -> " + base +
                                   "./self.json; expected a file that does not lead back"});
    write(dir / "a.json", "{\"extends\": \"b.json\"}");
    write(dir / "b.json", "{\n\"extends\": \"c.json\"}");
    write(dir / "c.json", "{\n\n\"extends\": \"b.json\"}");
    const auto circle = file_mistakes(dir / "a.json");
    REQUIRE(circle.size() == 1);
    CHECK(circle[0] == base + "c.json:3: extends: goes in a circle, " + base + "a.json -> " + base + "b.json -> " +
                           base + "c.json -> " + base + "b.json; expected a file that does not lead back");
}

TEST_CASE("mistakes of all files come in one go, and once for a base that is shared", "[config]") {
    const TemporaryDirectory dir;
    const std::string base = dir.path().string() + "/";
    write(dir / "base.json", "{\"data\": {\"path\": \"t\"},\n\"model\": {\"layers\": 0}}");
    write(dir / "top.json", "{\"extends\": \"base.json\",\n\n\"train\": {\"steps\": -1}}");
    write(dir / "other.json", "{\"extends\": \"base.json\", \"sed\": 1}");
    const std::vector<fs::path> files = {dir / "top.json", dir / "other.json"};
    const auto found = lines_of(check_configs(files));
    REQUIRE(found.size() == 3);
    CHECK(found[0].find(base + "top.json:3: train.steps: is -1") == 0);
    CHECK(found[1].find(base + "base.json:2: model.layers: is 0") == 0);
    CHECK(found[2].find(base + "other.json:1: sed: is not a key; did you mean `seed`?") == 0);
    // A mistake against JSON stops its own file only.
    write(dir / "base.json", "{\n\"data\":}");
    const auto broken = file_mistakes(dir / "top.json");
    REQUIRE(broken.size() == 2);
    CHECK(broken[0].find(base + "top.json:3: train.steps: is -1") == 0);
    CHECK(broken[1].find(base + "base.json:2: is not JSON") == 0);
}

TEST_CASE("a mistake that shows later is placed at the line of its key", "[config]") {
    const TemporaryDirectory dir;
    const std::string base = dir.path().string() + "/";
    write(dir / "base.json", "{\"data\": {\n\"path\": \"t\"}}");
    const fs::path top = write(dir / "top.json", "{\"extends\": \"base.json\",\n\n\"model\": {\"context\": 100}}");
    const std::vector<std::string> none, context = {"model={\"context\": 50}"};
    CHECK(problem_at(top, none, "model.context", "m").text() == base + "top.json:3: model.context: m");
    CHECK(problem_at(top, none, "data.path", "m").text() == base + "base.json:2: data.path: m");
    CHECK(problem_at(top, none, "train.batch", "m").text() == base + "top.json: train.batch: m");
    CHECK(problem_at(top, context, "model.context", "m").text() == "--set: model.context: m");
}

TEST_CASE("a config put together in code is checked, too", "[config]") {
    Config config;
    config.data.path = "t";
    config.optimizer.lr = std::nan("");
    config.model.layers = -1;
    const auto found = lines_of(validate(config));
    REQUIRE(found.size() == 2);
    CHECK(found[0] == "model.layers: is -1; expected an integer from 1 to 10000");
    CHECK(found[1] == "optimizer.lr: is nan; expected a number of at least 0");
}

TEST_CASE("any bytes either load or are refused", "[config]") {
    RandomConfig random_config(5);
    Config config = random_config.next();
    resolve(config);
    const std::string good = "{// note\n" + to_json(config).substr(1);
    REQUIRE(mistakes(good).empty());
    std::mt19937_64 random(6);
    const auto below = [&](std::size_t count) { return static_cast<std::size_t>(random() % count); };
    const std::vector<std::string> pieces = {"{",       "}",       "[",    "]",    ",",       ":",    "\"",   "\\",
                                             "\\u0000", "\\ud800", "null", "true", "-",       "1",    "e",    "9",
                                             ".",       "\n",      "//",   "/*",   "extends", "\xff", "\xc3", "1e999"};
    int refused = 0, loaded = 0;
    for (int i = 0; i < 1500; ++i) {
        std::string text = good;
        for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
            const std::size_t at = below(text.size()), length = std::min(below(8), text.size() - at);
            switch (below(5)) {
            case 0: text[at] = static_cast<char>(below(256)); break;
            case 1: text.erase(at, length); break;
            case 2: text.insert(at, pieces[below(pieces.size())]); break;
            case 3: text.insert(at, text.substr(below(text.size()), below(60))); break;
            default: text.resize(at + 1); break;
            }
        }
        try {
            const Config read = config_from_json(text, "c.json");
            CHECK(validate(read).empty());
            ++loaded;
        } catch (const ConfigError& error) {
            ++refused;
            REQUIRE_FALSE(error.problems().empty());
            for (const ConfigProblem& problem : error.problems()) {
                const std::string line = problem.text();
                CHECK(std::none_of(line.begin(), line.end(),
                                   [](char c) { return static_cast<unsigned char>(c) < 0x20; }));
                CHECK(problem.line <= 1 + std::count(text.begin(), text.end(), '\n'));
            }
        }
    }
    CHECK(refused > 500);
    CHECK(loaded > 20);
}
