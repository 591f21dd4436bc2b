#include "ballast/config/load.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "ballast/config/describe.h"
#include "catch.h"
#include "config_random.h"
#include "temporary_directory.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

const std::string kMinimal = R"({"data": {"path": "/text.txt"}})";

fs::path write(const fs::path& file, const std::string& text) {
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
    return file;
}

Config with(const std::vector<std::string>& overrides, const std::string& text = kMinimal) {
    return config_from_json(text, "test.json", overrides);
}

std::string error_of(const std::vector<std::string>& overrides) {
    try {
        with(overrides);
    } catch (const ConfigError& error) {
        return error.what();
    }
    return "";
}

} // namespace

TEST_CASE("a config that was written reads back to the bit", "[config]") {
    RandomConfig random(2);
    for (int i = 0; i < 200; ++i) {
        Config config = random.next();
        resolve(config);
        INFO(to_json(config));
        const Config read = config_from_json(to_json(config), "elsewhere/config.json");
        REQUIRE(read == config);
        REQUIRE(to_json(read) == to_json(config));
        REQUIRE(config_hash(read) == config_hash(config));
        REQUIRE(validate(read).empty());
    }
}

TEST_CASE("doubles keep their bits, with no more digits than they need", "[config]") {
    Config config = with({});
    for (const double lr : {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, 1e-3, 3e-4, 123456789.0, 0.0}) {
        config.optimizer.lr = lr;
        config.schedule.final_lr = 0;
        CHECK(config_from_json(to_json(config), "x.json").optimizer.lr == lr);
    }
    config.optimizer.lr = 3e-4;
    CHECK(to_json(config).find("\"lr\": 0.0003,") != std::string::npos);
    config.optimizer.lr = std::nan("");
    CHECK_THROWS_AS(to_json(config), ConfigError);
}

TEST_CASE("overrides equal the same values in the file", "[config]") {
    RandomConfig random(3);
    Config start; // as it stands in kMinimal: nothing is derived yet
    start.data.path = "/text.txt";
    for (int i = 0; i < 50; ++i) {
        Config target = random.next();
        resolve(target);
        std::vector<std::string> overrides;
        for (const KeyDifference& difference : diff(start, target))
            overrides.push_back(difference.path + "=" + difference.b);
        REQUIRE(overrides.size() > 20);
        CHECK(to_json(with(overrides)) == to_json(target));
    }
}

TEST_CASE("an override is JSON, or else bare text", "[config]") {
    CHECK(with({"model.norm.placement=post"}).model.norm.placement == placement_named("post"));
    CHECK(with({"model.norm.placement=\"none\""}).model.norm.placement == placement_named("none"));
    CHECK(with({"optimizer.betas=[0.5,0.75]"}).optimizer.betas == std::array{0.5, 0.75});
    CHECK(with({"model.norm={\"kind\": \"rmsnorm\", \"eps\": 1e-6}"}).model.norm.eps == 1e-6);
    CHECK(with({"model.bias=true"}).model.bias);
    CHECK(with({"train.steps=2e3"}).train.steps == 2000);
    CHECK(with({"seed=18446744073709551615"}).seed == 18446744073709551615U);
    CHECK(with({"name=1e5"}).name == "1e5");
    CHECK(with({"name=true"}).name == "true");
    CHECK(with({"name=a=b"}).name == "a=b");
    CHECK(with({"model.layers=3", "model.layers=5"}).model.layers == 5);
    CHECK(with({"schedule.warmup=-0"}).schedule.warmup == 0);

    CHECK(error_of({"model.layers"}) ==
          "--set: \"model.layers\" is no override; expected KEY=VALUE, such as model.layers=6");
    CHECK(error_of({"=3"}) == "--set: \"=3\" is no override; expected KEY=VALUE, such as model.layers=6");
    CHECK(error_of({"model..layers=3"}).find("is no override") != std::string::npos);
    CHECK(error_of({"model.layers=three"}) == "--set: model.layers: is \"three\"; expected an integer from 1 to 10000");
    CHECK(error_of({"model.layers="}) == "--set: model.layers: is \"\"; expected an integer from 1 to 10000");
    CHECK(error_of({"optimizer.lr=1e999"}) == "--set: optimizer.lr: is \"1e999\"; expected a number of at least 0");
    CHECK(error_of({"optimizer.lr=nan"}) == "--set: optimizer.lr: is \"nan\"; expected a number of at least 0");
    CHECK(error_of({"extends=base.json"}) == "--set: extends: cannot be overridden; expected it in a config file");
    CHECK(error_of({"lr=1"}) == "--set: lr: is not a key; did you mean `optimizer.lr`?");
    CHECK(error_of({"model=3"}).find("--set: model: is 3; expected an object with keys") == 0);
    // Two mistakes, and one that comes from both files and overrides.
    CHECK(error_of({"a.b=1", "model.heads=3"}).find("does not divide") != std::string::npos);
}

TEST_CASE("shorter runs than the warm-up are allowed", "[config]") {
    CHECK(with({"train.steps=20"}).train.steps == 20);
}

TEST_CASE("derived values are filled in, once", "[config]") {
    Config config = with({"model.width=132", "model.bias=true"});
    CHECK(config.model.kv_heads == 4);
    CHECK(config.model.ffn.width == 528);
    CHECK(config.model.norm.bias == Switch::on);
    CHECK(config.model.final_norm == Switch::on);
    CHECK(config.train.micro_batch == 12);
    Config again = config;
    resolve(again);
    CHECK(again == config);

    CHECK(with({"model.ffn.kind=swiglu"}).model.ffn.width == 344); // 8/3 * 128 = 341.3
    CHECK(with({"model.ffn.kind=geglu", "model.width=96"}).model.ffn.width == 256);
    CHECK(with({"model.ffn.kind=swiglu", "model.ffn.width=7"}).model.ffn.width == 7);
    CHECK(with({"model.norm.placement=post"}).model.final_norm == Switch::off);
    CHECK(with({"model.norm.placement=none"}).model.final_norm == Switch::off);
    CHECK(with({"model.norm.kind=none"}).model.final_norm == Switch::off);
    CHECK(with({"model.norm.placement=post", "model.final_norm=on"}).model.final_norm == Switch::on);
    CHECK(with({"model.norm.kind=rmsnorm", "model.bias=true"}).model.norm.bias == Switch::off);
    CHECK(with({"model.norm.bias=on"}).model.norm.bias == Switch::on);
}

TEST_CASE("the limits of sizes keep every derived size within 64 bits", "[config]") {
    const Config config = with({"model.width=1048576", "model.ffn.kind=gelu", "train.batch=16777216"});
    CHECK(config.model.ffn.width == 4194304);
    CHECK(with({"model.width=1048576", "model.ffn.kind=swiglu"}).model.ffn.width > 0);
}

TEST_CASE("comments, whole floats and $schema are allowed", "[config]") {
    const Config config = config_from_json(R"(// first
{
  "$schema": "schema.json", /* where
  the schema is */
  "data": {"path": "/text.txt"}, // the data
  "train": {"steps": 10.0, "eval_every": 1e2},
  "optimizer": {"lr": 1, "weight_decay": -0.0}
} // last)",
                                           "x.json");
    CHECK(config.train.steps == 10);
    CHECK(config.train.eval_every == 100);
    CHECK(config.optimizer.lr == 1);
    CHECK(config.optimizer.weight_decay == 0);
}

TEST_CASE("extends overrides key by key, through folders", "[config]") {
    const TemporaryDirectory dir;
    write(dir / "bases/base.json", R"({"data": {"path": "text.txt", "val_fraction": 0.2},
                                       "model": {"layers": 2, "norm": {"kind": "rmsnorm", "eps": 1e-6}}})");
    write(dir / "middle.json", R"({"extends": "bases/base.json", "model": {"norm": {"eps": 1e-4}, "layers": 3}})");
    const fs::path top = write(dir / "sub/top.json", R"({"model": {"layers": 5}, "extends": "../middle.json"})");

    const Config config = load_config(top);
    CHECK(config.model.layers == 5);
    CHECK(config.model.norm.kind == NormKind::rmsnorm);
    CHECK(config.model.norm.eps == 1e-4);
    CHECK(config.data.val_fraction == 0.2);
    // The path starts at the file it stands in, whoever extends that.
    CHECK(config.data.path == (fs::canonical(dir.path()) / "bases/text.txt").string());
    // What load_config returns needs no base and no directory any more.
    CHECK(load_config(write(dir / "other/place/config.json", to_json(config))) == config);
    const std::vector<std::string> overrides = {"model.layers=6"};
    CHECK(load_config(top, overrides).model.layers == 6);
}

TEST_CASE("relative data starts at the file, or at the working directory for an override", "[config]") {
    const TemporaryDirectory dir;
    const fs::path file = write(dir / "configs/a.json", R"({"data": {"path": "../data/text.txt"}})");
    CHECK(load_config(file).data.path == (fs::canonical(dir.path()) / "data/text.txt").string());
    const std::vector<std::string> relative = {"data.path=some/text.txt"};
    CHECK(load_config(file, relative).data.path == (fs::current_path() / "some/text.txt").string());
    const std::vector<std::string> absolute = {"data.path=/some/text.txt"};
    CHECK(load_config(file, absolute).data.path == "/some/text.txt");
    CHECK(load_config(fs::relative(file)).data.path == load_config(file).data.path);
}

TEST_CASE("the shipped configs are good", "[config]") {
    int count = 0;
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(BALLAST_SOURCE_DIR) / "configs")) {
        const std::string name = entry.path().filename().string();
        if (entry.path().extension() != ".json" || name == "schema.json") continue;
        const fs::path folder = entry.path().parent_path().filename();
        if (folder == "sweep" || folder == "claims") continue; // grids of configs
        INFO(entry.path());
        CHECK_NOTHROW(load_config(entry.path()));
        ++count;
    }
    CHECK(count >= 10);
}

TEST_CASE("a norm config changes what it is about and its name alone", "[config]") {
    const fs::path configs = fs::path(BALLAST_SOURCE_DIR) / "configs";
    const Config base = load_config(configs / "quickstart.json");
    std::map<std::string, std::string> changes;
    std::set<std::string> models;
    for (const auto& entry : fs::directory_iterator(configs / "norm")) {
        const std::string file = entry.path().stem().string();
        INFO(file);
        Config config = load_config(entry.path());
        for (const KeyDifference& difference : diff(base, config)) {
            CHECK((difference.path == "name" || difference.path.starts_with("model.")));
            if (difference.path != "name") changes[file] += difference.path + " ";
        }
        std::string name = file;
        std::replace(name.begin(), name.end(), '_', '-');
        CHECK(config.name == name);
        config.name = "any";
        CHECK(models.insert(to_json(config)).second); // no two are the same
    }
    CHECK(changes.size() >= 30);
    CHECK(changes.count("pre") == 0); // the base is pre-norm itself
    CHECK(changes["post"] == "model.norm.placement model.final_norm ");
    CHECK(changes["none"] == "model.norm.placement model.final_norm ");
    CHECK(changes["pre_rmsnorm"] == "model.norm.kind ");
    CHECK(changes["post_rmsnorm"] == "model.norm.kind model.norm.placement model.final_norm ");
    CHECK(changes["mix_ln"] == "model.norm.layers ");
    CHECK(changes["normformer"] == "model.ffn.inner_norm model.norm.attn model.head_scale ");
    CHECK(changes["deepnorm"] == "model.norm.placement model.final_norm model.init.kind ");
    CHECK(changes["dyt"] == "model.norm.kind model.norm.bias ");
}
