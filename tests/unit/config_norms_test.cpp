// What the keys about norms come to, and which of them are refused.

#include <cmath>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/config/norm_layout.h"
#include "catch.h"

using namespace ballast;

namespace {

const std::string kStart = "{\"data\": {\"path\": \"/t\"},\n\"model\": {";

Config model(const std::string& keys) { return config_from_json(kStart + keys + "}}", "c.json"); }

NormLayout layout(const std::string& keys) { return norm_layout(model(keys).model); }

/// The only mistake in a config whose model has these keys, which start in line 2.
std::string mistake(const std::string& keys, const std::vector<std::string>& overrides = {}) {
    INFO(keys);
    try {
        config_from_json(kStart + keys + "}}", "c.json", overrides);
    } catch (const ConfigError& error) {
        for (const ConfigProblem& problem : error.problems())
            UNSCOPED_INFO(problem.text());
        REQUIRE(error.problems().size() == 1);
        return error.problems().front().text();
    }
    FAIL("no mistake was found");
    return "";
}

bool starts(const std::string& text, const std::string& start) {
    UNSCOPED_INFO(text);
    return text.starts_with(start);
}

/// "pre|post" for the slots of a sublayer that hold a norm.
std::string slots(const SublayerNorms& norms) {
    std::string out;
    for (const auto& [spec, name] : {std::pair{norms.pre, "pre"}, {norms.out, "out"}, {norms.post, "post"}})
        if (spec) out += (out.empty() ? "" : "|") + std::string(name);
    return out.empty() ? "-" : out;
}

/// The slots of every block, attention and ffn: "pre post, pre pre".
std::string blocks(const std::string& keys) {
    std::string out;
    for (const BlockNorms& block : layout(keys).blocks)
        out += (out.empty() ? "" : ", ") + slots(block.attention) + " " + slots(block.ffn);
    return out;
}

} // namespace

TEST_CASE("a placement fills the slots that its row says", "[config]") {
    CHECK(blocks("\"layers\": 1") == "pre pre");
    CHECK(blocks("\"layers\": 1, \"norm\": {\"placement\": \"sandwich\"}") == "pre|out pre|out");
    CHECK(blocks("\"layers\": 1, \"norm\": {\"placement\": \"branch_out\"}") == "out out");
    CHECK(blocks("\"layers\": 1, \"norm\": {\"placement\": \"deepnorm\"}") == "post post");
    CHECK(blocks("\"layers\": 1, \"norm\": {\"placement\": {\"pre\": true, \"out\": false, \"post\": true}}") ==
          "pre|post pre|post");
    CHECK(blocks("\"layers\": 1, \"norm\": {\"attn\": \"post\", \"ffn\": {\"out\": true}}") == "post out");
    CHECK(blocks("\"layers\": 2, \"norm\": {\"attn\": \"post\", \"layers\": [{\"until\": 0.5, \"ffn\": \"none\"}]}") ==
          "post -, post pre");
    CHECK(blocks("\"layers\": 5, \"norm\": {\"layers\": [{\"until\": 0.25, \"placement\": \"post\"}, "
                 "{\"until\": 0.6, \"placement\": \"sandwich\"}]}") ==
          "post post, pre|out pre|out, pre|out pre|out, pre pre, pre pre");
    CHECK(layout("\"layers\": 8, \"norm\": {\"placement\": \"deepnorm\"}").blocks[3].ffn.skip_scale ==
          Approx(std::pow(16.0, 0.25)));
    const NormLayout scaled = layout("\"norm\": {\"depth_scale\": \"inv_sqrt\"}");
    CHECK(scaled.blocks[0].ffn.pre_scale == 1);
    CHECK(scaled.blocks[3].attention.pre_scale == 0.5);
    CHECK(scaled.final.kind == NormKind::layernorm);
}

TEST_CASE("a share of the depth that rounding puts below a block still covers it", "[config]") {
    // 0.07 * 100 is 7.000000000000001 in double and 0.29 * 100 is 28.999999999999996.
    const Config config =
        model("\"layers\": 100, \"norm\": {\"layers\": [{\"until\": 0.07, \"placement\": \"post\"}, "
              "{\"until\": 0.29, \"placement\": \"none\"}, {\"until\": 1, \"placement\": \"branch_out\"}]}");
    CHECK(blocks_until(config.model, 0) == 7);
    CHECK(blocks_until(config.model, 1) == 29);
    CHECK(blocks_until(config.model, 2) == 100);
}

TEST_CASE("the final norm is there by itself where the stream leaves the last block without one", "[config]") {
    const auto has = [](const std::string& keys) { return static_cast<bool>(layout(keys).final); };
    CHECK(has(""));
    CHECK(has("\"norm\": {\"placement\": \"sandwich\"}"));
    CHECK(has("\"norm\": {\"placement\": \"branch_out\"}"));
    CHECK_FALSE(has("\"norm\": {\"placement\": \"post\"}"));
    CHECK_FALSE(has("\"norm\": {\"placement\": \"deepnorm\"}"));
    CHECK_FALSE(has("\"norm\": {\"placement\": \"none\"}"));
    CHECK_FALSE(has("\"norm\": {\"kind\": \"none\"}"));
    CHECK(has("\"norm\": {\"layers\": [{\"until\": 0.25, \"placement\": \"post\"}]}"));
    CHECK(has("\"norm\": {\"attn\": \"post\"}"));
    CHECK_FALSE(has("\"norm\": {\"ffn\": \"post\"}"));
    CHECK(has("\"norm\": {\"ffn\": \"none\"}"));
    CHECK(has("\"norm\": {\"placement\": {\"out\": true}}"));
    CHECK_FALSE(has("\"norm\": {\"placement\": {\"out\": true, \"post\": true}}"));
    CHECK(has("\"norm\": {\"placement\": \"post\"}, \"final_norm\": \"on\""));
}

TEST_CASE("a norm's options come from its own section, then from model.norm, then from its kind", "[config]") {
    const NormLayout mixed = layout(
        "\"bias\": true, \"qk_norm\": \"head\", \"v_norm\": \"full\", \"ffn\": {\"inner_norm\": true}, "
        "\"embedding\": {\"norm\": true}, \"norm\": {\"eps\": 1e-6, \"unit_offset\": true, \"partial\": 0.5, "
        "\"alpha\": 0.8, \"attention_alpha\": 0.3, \"momentum\": 0.2, \"qk\": {\"kind\": \"rmsnorm\", \"eps\": 1e-4}, "
        "\"v\": {\"kind\": \"dyt\"}, \"inner\": {\"kind\": \"dyt\", \"bias\": \"off\"}, \"final\": {\"gain\": "
        "\"off\"}, "
        "\"embedding\": {\"kind\": \"batchnorm\", \"gain\": \"off\"}}");
    const NormSpec& pre = mixed.blocks[0].attention.pre;
    CHECK((pre.kind == NormKind::layernorm && pre.eps == 1e-6 && pre.gain && pre.bias && pre.partial == 1));
    CHECK((mixed.qk.kind == NormKind::rmsnorm && mixed.qk.eps == 1e-4 && mixed.qk.unit_offset));
    CHECK((mixed.qk.partial == 0.5 && !mixed.qk.bias));
    CHECK((mixed.v.alpha == 0.3 && mixed.v.bias && mixed.inner.alpha == 0.8 && !mixed.inner.bias));
    CHECK((!mixed.final.gain && mixed.final.bias));
    CHECK((mixed.embedding.momentum == 0.2 && mixed.embedding.bias && !mixed.embedding.gain));
    CHECK(mixed.norms().size() == 1 + 4 * 6 + 1);

    CHECK_FALSE(layout("").final.bias);
    CHECK(layout("\"norm\": {\"kind\": \"derf\", \"shift\": -0.5}").final.bias);
    CHECK(layout("\"norm\": {\"kind\": \"derf\", \"shift\": -0.5}").final.shift == -0.5);
    CHECK(layout("\"residual\": \"layerscale\"").layerscale_start == 0.1);
    CHECK(layout("\"residual\": \"layerscale\", \"layers\": 24").layerscale_start == 1e-5);
    CHECK(layout("\"residual\": \"layerscale\", \"layers\": 25").layerscale_start == 1e-6);
    CHECK(layout("\"residual\": \"layerscale\", \"layerscale_init\": 0.5").layerscale_start == 0.5);
}

TEST_CASE("slots and lists are written as they are read", "[config]") {
    const Config config = model("\"norm\": {\"attn\": {\"post\": true}, \"layers\": [{\"until\": 0.5, "
                                "\"placement\": {\"pre\": true, \"post\": true}}]}");
    const std::string text = to_json(config);
    CHECK(text.find("\"attn\": {\"pre\": false, \"out\": false, \"post\": true},") != std::string::npos);
    CHECK(text.find("\"layers\": [{\"until\": 0.5, \"placement\": {\"pre\": true, \"out\": false, \"post\": true}, "
                    "\"attn\": \"auto\", \"ffn\": \"auto\"}],") != std::string::npos);
    CHECK(config_from_json(text, "x.json") == config);
    const std::vector<KeyDifference> differences = diff(model(""), config);
    REQUIRE(differences.size() == 2);
    CHECK(differences[1].path == "model.norm.layers");
    CHECK(differences[1].a == "[]");
}

TEST_CASE("a list replaces the one that it overrides", "[config]") {
    const std::vector<std::string> none = {"model.norm.layers=[]"},
                                   other = {"model.norm.layers=[{\"until\": 0.75, \"ffn\": \"none\"}]"};
    const std::string text = kStart + "\"norm\": {\"layers\": [{\"until\": 0.5, \"placement\": \"post\"}]}}}";
    CHECK(config_from_json(text, "c.json", none).model.norm.layers.empty());
    const Config config = config_from_json(text, "c.json", other);
    REQUIRE(config.model.norm.layers.size() == 1);
    CHECK(config.model.norm.layers[0].placement == OwnPlacement::automatic);
    CHECK(starts(mistake("\"norm\": {\"layers\": [{\"until\": 0.5, \"placement\": \"post\"}]}",
                         {"model.norm.layers=[{\"until\": 2, \"ffn\": \"none\"}]"}),
                 "--set: model.norm.layers[0].until: is 2; expected a number above 0 and of at most 1"));
}

TEST_CASE("slots that are none are refused", "[config]") {
    const std::string expected = "; expected pre, post, sandwich, branch_out, deepnorm, none or an object that sets "
                                 "`pre`, `out` or `post` to true";
    const std::vector<std::pair<std::string, std::string>> wrong = {
        {"{\"per\": true}", "`per` is no slot"},
        {"{\"pre\": true, \"oot\": true}", "`oot` is no slot"},
        {"{\"pre\": 1}", "`pre` is 1"},
        {"{}", "no slot is true"},
        {"{\"pre\": false}", "no slot is true"},
        {"{\"pre\": true, \"pre\": false}", "`pre` is given twice"},
        {"{\"pre\": {\"out\": true}}", "`pre` is an object"},
    };
    for (const auto& [value, why] : wrong)
        CHECK(mistake("\"norm\": {\n\"placement\": " + value + "}") ==
              "c.json:3: model.norm.placement: is an object in which " + why + expected);
    CHECK(mistake("\"norm\": {\"placement\": [\"pre\"]}").ends_with(expected));
    CHECK(mistake("\"norm\": {\"placement\": \"sandwhich\"}").ends_with(expected + "; did you mean `sandwich`?"));
    CHECK(starts(mistake("", {"model.norm.placement={\"pre\": 2}"}),
                 "--set: model.norm.placement: is an object in which `pre` is 2; "));
}

TEST_CASE("depths that overlap, cover nothing or are not given are refused", "[config]") {
    const auto depth = [](const std::string& items) { return mistake("\"norm\": {\"layers\": [\n" + items + "]}"); };
    CHECK(depth("{\"until\": 0.5, \"placement\": \"post\"},\n{\"until\": 0.5, \"placement\": \"none\"}") ==
          "c.json:4: model.norm.layers[1].until: model.norm.layers[1].until 0.5 overlaps the entry before, which ends "
          "at 0.5; expected above that");
    CHECK(starts(depth("{\"until\": 0.5, \"placement\": \"post\"},\n\n{\"until\": 0.25, \"placement\": \"none\"}"),
                 "c.json:5: model.norm.layers[1].until: model.norm.layers[1].until 0.25 overlaps"));
    CHECK(depth("{\"until\": 0.2, \"placement\": \"post\"}") ==
          "c.json:3: model.norm.layers[0].until: model.norm.layers[0].until 0.2 of model.layers 4, after 0, covers no "
          "block; expected a larger share, or no such entry");
    CHECK(depth("{\"until\": 0.5, \"placement\": \"post\"}, {\"until\": 0.7, \"placement\": \"none\"}")
              .find("covers no block") != std::string::npos);
    CHECK(depth("{\"placement\": \"post\"}") == "c.json:3: model.norm.layers[0]: model.norm.layers[0].until is not "
                                                "given; expected the share of the depth where this ends");
    CHECK(starts(depth("{\"until\": 0.5}"), "c.json:3: model.norm.layers[0]: model.norm.layers[0] gives no placement"));
    CHECK(starts(depth("{\"until\": 0.5, \"plcement\": \"post\"}"),
                 "c.json:3: model.norm.layers[0].plcement: is not a key; did you mean `placement`?"));
    CHECK(starts(depth("{\"until\": 0, \"placement\": \"post\"}"), "c.json:3: model.norm.layers[0].until: is 0; "));
    CHECK(starts(depth("{\"until\": 1.01, \"placement\": \"post\"}"), "c.json:3: model.norm.layers[0].until: is 1.01"));
    CHECK(starts(depth("\"post\""), "c.json:3: model.norm.layers[0]: is \"post\"; expected an object with keys such"));
    CHECK(starts(mistake("\"norm\": {\"layers\": {\"until\": 0.5}}"),
                 "c.json:2: model.norm.layers: is an object; expected an array of objects with keys such as until"));
    // The rest of the depth is of `placement`; without a rest, it is idle.
    CHECK(
        starts(mistake("\"norm\": {\"placement\": \"sandwich\", \"layers\": [{\"until\": 1, \"placement\": \"pre\"}]}"),
               "c.json:2: model.norm.placement: model.norm.placement \"sandwich\" changes nothing"));
}

TEST_CASE("a key that no norm uses is refused, wherever it stands", "[config]") {
    const std::vector<std::pair<std::string, std::string>> idle = {
        {"\"norm\": {\"momentum\": 0.2}", "norm.momentum"},
        {"\"norm\": {\"partial\": 0.5}", "norm.partial"},
        {"\"norm\": {\"unit_offset\": true}", "norm.unit_offset"},
        {"\"norm\": {\"alpha\": 0.2}", "norm.alpha"},
        {"\"norm\": {\"attention_alpha\": 0.2}", "norm.attention_alpha"},
        {"\"norm\": {\"shift\": 0.2}", "norm.shift"},
        {"\"norm\": {\"kind\": \"dyt\", \"shift\": 0.2}", "norm.shift"},
        {"\"norm\": {\"kind\": \"dyt\", \"eps\": 1e-6}", "norm.eps"},
        {"\"norm\": {\"kind\": \"derf\", \"momentum\": 0.2}", "norm.momentum"},
        {"\"norm\": {\"kind\": \"rmsnorm\", \"unit_offset\": true, \"gain\": false}", "norm.unit_offset"},
        {"\"norm\": {\"placement\": \"none\", \"kind\": \"rmsnorm\"}", "norm.kind"},
        {"\"norm\": {\"placement\": \"none\", \"eps\": 1e-6}", "norm.eps"},
        {"\"norm\": {\"placement\": \"none\", \"gain\": false}", "norm.gain"},
        {"\"norm\": {\"placement\": \"none\", \"bias\": \"on\"}", "norm.bias"},
        {"\"norm\": {\"placement\": \"post\", \"depth_scale\": \"inv_sqrt\"}", "norm.depth_scale"},
        {"\"norm\": {\"kind\": \"none\", \"placement\": \"post\"}", "norm.placement"},
        {"\"norm\": {\"kind\": \"none\"}, \"final_norm\": \"on\"", "final_norm"},
        {"\"norm\": {\"kind\": \"none\"}, \"qk_norm\": \"head\"", "qk_norm"},
        {"\"norm\": {\"kind\": \"none\"}, \"embedding\": {\"norm\": true}", "embedding.norm"},
        {"\"norm\": {\"kind\": \"none\"}, \"ffn\": {\"inner_norm\": true}", "ffn.inner_norm"},
        {"\"norm\": {\"placement\": \"post\", \"attn\": \"pre\", \"ffn\": \"none\"}", "norm.placement"},
        {"\"norm\": {\"post\": {\"eps\": 1e-6}}", "norm.post.eps"},
        {"\"norm\": {\"out\": {\"kind\": \"rmsnorm\"}}", "norm.out.kind"},
        {"\"norm\": {\"qk\": {\"gain\": \"off\"}}", "norm.qk.gain"},
        {"\"norm\": {\"v\": {\"bias\": \"on\"}}", "norm.v.bias"},
        {"\"norm\": {\"inner\": {\"eps\": 1e-6}}", "norm.inner.eps"},
        {"\"norm\": {\"embedding\": {\"eps\": 1e-6}}", "norm.embedding.eps"},
        {"\"norm\": {\"placement\": \"post\", \"final\": {\"eps\": 1e-6}}", "norm.final.eps"},
        {"\"layerscale_init\": 0.1", "layerscale_init"},
        {"\"norm\": {\"layers\": [{\"until\": 0.5, \"placement\": \"post\", \"attn\": \"pre\", \"ffn\": \"none\"}]}",
         "norm.layers[0].placement"},
    };
    for (const auto& [keys, path] : idle) {
        const std::string found = mistake(keys);
        CHECK(starts(found, "c.json:2: model." + path + ": model." + path + " "));
        CHECK(found.find(" changes nothing in this model (model.norm.kind ") != std::string::npos);
    }
    CHECK(mistake("", {"model.norm.momentum=0.2"}) ==
          "--set: model.norm.momentum: model.norm.momentum 0.2 changes nothing in this model (model.norm.kind "
          "layernorm, model.norm.placement pre); expected 0.1, or a model that uses it");
}

TEST_CASE("a key that repeats what holds anyway is not idle", "[config]") {
    CHECK_NOTHROW(model("\"norm\": {\"kind\": \"rmsnorm\", \"final\": {\"kind\": \"rmsnorm\", \"eps\": 1e-5}}"));
    CHECK_NOTHROW(model("\"norm\": {\"attn\": \"pre\", \"momentum\": 0.1, \"partial\": 1}"));
    CHECK_NOTHROW(model("\"layers\": 1, \"norm\": {\"depth_scale\": \"inv_sqrt\"}"));
    CHECK_NOTHROW(model("\"norm\": {\"kind\": \"none\", \"placement\": \"none\"}, \"final_norm\": \"off\""));
    CHECK_NOTHROW(model("\"norm\": {\"kind\": \"none\", \"qk\": {\"kind\": \"rmsnorm\"}, \"eps\": 1e-6}, "
                        "\"qk_norm\": \"head\""));
    CHECK_NOTHROW(model("\"norm\": {\"layers\": [{\"until\": 0.5, \"placement\": \"pre\"}]}"));
    CHECK_NOTHROW(model("\"norm\": {\"placement\": \"none\", \"kind\": \"rmsnorm\"}, \"final_norm\": \"on\""));
}

TEST_CASE("what a norm cannot be is refused", "[config]") {
    CHECK(mistake("\"norm\": {\"partial\": 0}") ==
          "c.json:2: model.norm.partial: is 0; expected a number above 0 and of at most 1");
    CHECK(
        starts(mistake("\"norm\": {\"kind\": \"rmsnorm\", \"partial\": 1.5}"), "c.json:2: model.norm.partial: is 1.5"));
    CHECK(starts(mistake("\"norm\": {\"partial\": -0.5}"), "c.json:2: model.norm.partial: is -0.5"));
    CHECK(mistake("\"norm\": {\"eps\": 1e-40}") ==
          "c.json:2: model.norm.eps: is 1e-40; expected a number from 1e-37 to 1e+37");
    CHECK(starts(mistake("\"norm\": {\"eps\": 0}"), "c.json:2: model.norm.eps: is 0; "));
    CHECK(mistake("\"norm\": {\"final\": {\"eps\": 1e-40}}") ==
          "c.json:2: model.norm.final.eps: model.norm.final.eps 1e-40 is lost in float; expected 0 or at least 1e-37");
    // Infinite in float: a norm would make zeros of its input, without a word.
    CHECK(mistake("\"norm\": {\"eps\": 1e39}") ==
          "c.json:2: model.norm.eps: is 1e39; expected a number from 1e-37 to 1e+37");
    for (const char* infinite :
         {"\"norm\": {\"final\": {\"eps\": 1e39}}", "\"norm\": {\"kind\": \"dyt\", \"alpha\": 1e39}",
          "\"norm\": {\"kind\": \"dyt\", \"attention_alpha\": 1e39}",
          "\"norm\": {\"kind\": \"derf\", \"shift\": -1e39}", "\"logit_softcap\": 1e39",
          "\"residual\": \"layerscale\", \"layerscale_init\": 1e39", "\"init\": {\"std\": 1e39}"})
        CHECK(mistake(infinite).find("to 1e+37") != std::string::npos);
    // 0 in float, which stands for something else.
    for (const char* lost : {"\"norm\": {\"kind\": \"dyt\", \"attention_alpha\": 1e-46}", "\"logit_softcap\": 1e-46",
                             "\"residual\": \"layerscale\", \"layerscale_init\": 1e-46"})
        CHECK(mistake(lost).find(" is lost in float; expected 0 or at least 1e-37") != std::string::npos);
    CHECK(starts(mistake("\"norm\": {\"kind\": \"dyt\", \"alpha\": 1e-46}"), "c.json:2: model.norm.alpha: is 1e-46"));
    CHECK(
        starts(mistake("\"norm\": {\"kind\": \"batchnorm\", \"momentum\": 0}"), "c.json:2: model.norm.momentum: is 0"));
    CHECK(starts(mistake("\"norm\": {\"kind\": \"dyt\", \"alpha\": 0}"), "c.json:2: model.norm.alpha: is 0"));
    CHECK(starts(mistake("\"norm\": {\"kind\": \"scalenorm\",\n\"gain\": false}"),
                 "c.json:3: model.norm.gain: model.norm.gain is false, but the gain is all that a scalenorm has"));
    CHECK(starts(mistake("\"norm\": {\"final\": {\"kind\": \"scalenorm\",\n\"gain\": \"off\"}}"),
                 "c.json:3: model.norm.final.gain: model.norm.final.gain is off, but the gain is all"));
    CHECK(starts(mistake("\"norm\": {\"final\": {\"kind\": \"rmsnorm\",\n\"bias\": \"on\"}}"),
                 "c.json:3: model.norm.final.bias: model.norm.final.bias is on, but rmsnorm has no bias"));
    CHECK(starts(mistake("\"norm\": {\"kind\": \"scalenorm\", \"bias\": \"on\"}"),
                 "c.json:2: model.norm.bias: model.norm.bias is on, but model.norm.kind scalenorm has no bias"));
    CHECK(starts(mistake("\"residual\": \"fixup\",\n\"init\": {\"kind\": \"deepnorm\"}"),
                 "c.json:2: model.residual: model.residual fixup and model.init.kind deepnorm both"));
    CHECK(starts(mistake("\"init\": {\"kind\": \"small\",\n\"std\": 0.01}"),
                 "c.json:3: model.init.std: model.init.std 0.01 is not used by model.init.kind small"));
    CHECK(starts(mistake("\"norm\": {\"kind\": \"auto\"}"), "c.json:2: model.norm.kind: is \"auto\"; expected none, "));
    CHECK(starts(mistake("\"norm\": {\"final\": {\"kind\": \"none\"}}"),
                 "c.json:2: model.norm.final.kind: is \"none\"; expected auto, layernorm"));
}

TEST_CASE("a model of norms put together in code is checked, too", "[config]") {
    Config config;
    config.data.path = "t";
    config.model.norm.layers = {{.until = 0.5, .placement = own_placement(placement_named("post"))},
                                {.until = 0.25, .placement = own_placement(placement_named("none"))}};
    auto problems = validate(config);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].path == "model.norm.layers[1].until");
    config.model.norm.layers[1].until = 7;
    problems = validate(config);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].text() == "model.norm.layers[1].until: is 7.0; expected a number above 0 and of at most 1");
    config.model.norm.layers = {};
    config.model.norm.momentum = 0.5;
    REQUIRE(validate(config).size() == 1);
    CHECK(validate(config)[0].path == "model.norm.momentum");
}

TEST_CASE("every key about norms has a ready config, which changes nothing else", "[config]") {
    const std::filesystem::path configs = std::filesystem::path(BALLAST_SOURCE_DIR) / "configs";
    const Config base = load_config(configs / "quickstart.json");
    std::set<std::string> seen; // "model.norm.kind \"rmsnorm\"", and the key alone
    for (const auto& entry : std::filesystem::directory_iterator(configs / "norm")) {
        INFO(entry.path());
        const std::vector<KeyDifference> differences = diff(base, load_config(entry.path()));
        for (const KeyDifference& difference : differences) {
            CAPTURE(difference.path);
            CHECK((difference.path == "name" || difference.path.starts_with("model.")));
            seen.insert({difference.path, difference.path + " " + difference.b});
        }
        CHECK(differences.size() >= (entry.path().filename() == "pre.json" ? 1 : 2)); // the name, and a key
    }
    const auto has = [&](const std::string& what) {
        INFO(what);
        CHECK(seen.contains(what));
    };
    const auto quoted = [](std::string_view text) { return " \"" + std::string(text) + "\""; };
    for (const auto& kind : values_of(NormKind{})) // the identity: a placement without norms
        if (kind.value != NormKind::none && kind.value != base.model.norm.kind)
            has("model.norm.kind" + quoted(kind.name));
    for (const auto& placement : values_of(Placement{}))
        if (placement.value != base.model.norm.placement) has("model.norm.placement" + quoted(placement.name));
    has(R"(model.norm.placement {"pre": true, "out": false, "post": true})");
    for (const auto& residual : values_of(ResidualKind{}))
        if (residual.value != base.model.residual) has("model.residual" + quoted(residual.name));
    for (const auto& rows : values_of(HeadNorm{}))
        if (rows.value != HeadNorm::none) has("model.qk_norm" + quoted(rows.name));
    for (const char* init : {"deepnorm", "small", "depth_scaled"})
        has("model.init.kind" + quoted(init));
    for (const char* key :
         {"norm.attn",        "norm.ffn",        "norm.layers",     "norm.depth_scale", "norm.partial",
          "norm.unit_offset", "norm.eps",        "norm.gain",       "norm.bias",        "norm.pre.kind",
          "norm.pre.eps",     "norm.final.gain", "norm.final.bias", "v_norm",           "logit_softcap",
          "embedding.norm",   "embedding.scale", "ffn.inner_norm",  "head_scale",       "final_norm"})
        has("model." + std::string(key));
}

TEST_CASE("an eps that changes is told of by place", "[config]") {
    const auto changes = [](const std::string& from, const std::string& to) {
        return eps_changes(model(from).model, model(to).model);
    };
    CHECK(changes("", "").empty());
    CHECK(changes("", "\"norm\": {\"eps\": 1e-3}") == "pre from 1e-05 to 0.001, final from 1e-05 to 0.001");
    CHECK(changes("\"norm\": {\"eps\": 1e-3}", "\"norm\": {\"pre\": {\"eps\": 1e-3}}") == "final from 0.001 to 1e-05");
    // Another kind adds eps to the same; scalenorm's is something else, dyt has none, and other places are other norms.
    CHECK(changes("", "\"norm\": {\"kind\": \"rmsnorm\", \"eps\": 1e-6}") ==
          "pre from 1e-05 to 1e-06, final from 1e-05 to 1e-06");
    CHECK(changes("", "\"norm\": {\"kind\": \"scalenorm\", \"eps\": 1e-6}").empty());
    CHECK(changes("\"norm\": {\"eps\": 1e-3}", "\"norm\": {\"kind\": \"dyt\"}").empty());
    CHECK(changes("", "\"norm\": {\"placement\": \"post\", \"eps\": 1e-6}").empty());
    CHECK(changes("\"qk_norm\": \"head\"", "\"qk_norm\": \"head\", \"norm\": {\"qk\": {\"eps\": 1e-6}}") ==
          "qk from 1e-05 to 1e-06");
    CHECK(changes("\"norm\": {\"layers\": [{\"until\": 0.5, \"placement\": \"post\"}]}",
                  "\"norm\": {\"post\": {\"eps\": 1e-6}, \"layers\": [{\"until\": 0.5, \"placement\": \"post\"}]}") ==
          "post from 1e-05 to 1e-06");
}
