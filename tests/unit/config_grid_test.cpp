// Sweep files: what the cells of a grid are, and what is refused before any of them runs.

#include "ballast/config/grid.h"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

/// A directory with base.json and sweeps beside it.
class Place {
public:
    Place() {
        write("base.json", R"({"name": "base", "data": {"path": "text.txt"}, "model": {"width": 32, "heads": 4}})");
    }

    std::filesystem::path write(const std::string& name, const std::string& text) const {
        std::ofstream(directory_ / name, std::ios::binary) << text;
        return directory_ / name;
    }

    Grid grid(const std::string& text, const std::vector<std::string>& overrides = {}) const {
        return load_grid(write("sweep.json", text), overrides);
    }

    /// The mistakes of a sweep file, as they are printed, without the directory.
    std::vector<std::string> mistakes(const std::string& text, const std::vector<std::string>& overrides = {}) const {
        std::vector<std::string> lines;
        try {
            grid(text, overrides);
        } catch (const ConfigError& error) {
            for (const ConfigProblem& problem : error.problems()) {
                std::string line = problem.text();
                const std::string prefix = directory_.path().string() + "/";
                for (std::size_t at = line.find(prefix); at != std::string::npos; at = line.find(prefix))
                    line.erase(at, prefix.size());
                lines.push_back(line);
            }
        }
        return lines;
    }

    const std::filesystem::path& path() const { return directory_.path(); }

private:
    TemporaryDirectory directory_;
};

std::vector<std::string> names(const Grid& grid) {
    std::vector<std::string> names;
    for (const GridCell& cell : grid.cells)
        names.push_back(cell.name);
    return names;
}

} // namespace

TEST_CASE("the cells are all combinations, the seed changing fastest") {
    const Place place;
    const Grid grid = place.grid(R"({"base": "base.json", // a comment
        "grid": {"model.norm.placement": ["pre", "post"], "optimizer.lr": [1e-3, 0.02]}, "seeds": [1, 7]})");
    CHECK(grid.name == "sweep");
    CHECK(grid.axes == std::vector<std::string>{"model.norm.placement", "optimizer.lr"});
    CHECK(names(grid) == std::vector<std::string>{"placement=pre,lr=0.001,seed=1", "placement=pre,lr=0.001,seed=7",
                                                  "placement=pre,lr=0.02,seed=1", "placement=pre,lr=0.02,seed=7",
                                                  "placement=post,lr=0.001,seed=1", "placement=post,lr=0.001,seed=7",
                                                  "placement=post,lr=0.02,seed=1", "placement=post,lr=0.02,seed=7"});
    for (const GridCell& cell : grid.cells) {
        // Each is what the base with these overrides is.
        const Config config =
            load_config(place.path() / "base.json",
                        std::vector<std::string>{"model.norm.placement=" + cell.settings[0].value,
                                                 "optimizer.lr=" + cell.settings[1].value,
                                                 "seed=" + std::to_string(cell.seed), "name=" + cell.name});
        CHECK(diff(cell.config, config).empty());
    }
}

TEST_CASE("a grid of many axes has each combination once") {
    const Place place;
    const Grid grid = place.grid(R"({"base": "base.json", "seeds": [3, 1, 2],
        "grid": {"model.layers": [1, 2, 3], "model.bias": [true, false], "optimizer.betas": [[0.9, 0.95], [0.9, 0.99]]},
        "variants": {"plain": {}, "qk": {"model.qk_norm": "head"}}})");
    CHECK(grid.cells.size() == 3 * 2 * 2 * 2 * 3);
    std::set<std::string> configs;
    for (GridCell cell : grid.cells) {
        CHECK(cell.config.name == cell.name);
        CHECK(cell.config.seed == cell.seed);
        cell.config.name = "same";
        configs.insert(to_json(cell.config));
    }
    CHECK(configs.size() == grid.cells.size());
}

TEST_CASE("ranges are evenly spaced, and begin and end where they say") {
    const Place place;
    const auto rates = [&](const std::string& range) {
        std::vector<double> values;
        for (const GridCell& cell :
             place.grid(R"({"base": "base.json", "grid": {"optimizer.lr": )" + range + "}}").cells)
            values.push_back(cell.config.optimizer.lr);
        return values;
    };
    CHECK(rates(R"({"from": 1e-4, "to": 0.1, "points": 4})") == std::vector<double>{1e-4, 1e-3, 1e-2, 1e-1});
    CHECK(rates(R"({"from": 1, "to": 3, "points": 5, "scale": "linear"})") == std::vector<double>{1, 1.5, 2, 2.5, 3});
    const std::vector<double> falling = rates(R"({"from": 0.3, "to": 3e-4, "points": 7, "scale": "log"})");
    REQUIRE(falling.size() == 7);
    CHECK(falling.front() == 0.3);
    CHECK(falling.back() == 3e-4);
    for (std::size_t i = 1; i < falling.size(); ++i)
        CHECK(std::abs(falling[i - 1] / falling[i] - std::sqrt(10)) < 1e-3);
}

TEST_CASE("variants take sections and dotted paths, relative files start at the sweep") {
    const Place place;
    const Grid grid = place.grid(R"({
        "base": {"extends": "base.json", "model": {"layers": 3}, "train.steps": 7},
        "variants": {"other text": {"data": {"path": "other.txt"}}, "dotted": {"model.norm.placement": "post"}}})");
    REQUIRE(grid.cells.size() == 2);
    CHECK(names(grid) == std::vector<std::string>{"variant=other-text", "variant=dotted"});
    CHECK(grid.cells[0].settings == std::vector<Setting>{{"variant", "other text"}});
    CHECK(grid.cells[0].config.data.path == place.path() / "other.txt");
    CHECK(grid.cells[1].config.data.path == place.path() / "text.txt");
    CHECK(to_string(grid.cells[1].config.model.norm.placement) == "post");
    for (const GridCell& cell : grid.cells) {
        CHECK(cell.config.model.layers == 3);
        CHECK(cell.config.model.width == 32);
        CHECK(cell.config.train.steps == 7);
        CHECK(cell.seed == Config().seed);
    }
}

TEST_CASE("a base may be written into the sweep, without any other file") {
    const Place place;
    const Grid grid = place.grid(R"({"base": {"data": {"path": "text.txt"}, "model": {"width": 16}}, "seeds": [5]})");
    REQUIRE(grid.cells.size() == 1);
    CHECK(grid.cells[0].config.model.width == 16);
    CHECK(grid.cells[0].config.data.path == place.path() / "text.txt");
}

TEST_CASE("keys of one section may stand in two places, if each stands in one") {
    const Place place;
    const Grid grid = place.grid(
        R"({"base": {"extends": "base.json", "model.layers": 1, "model": {"heads": 2},
        "optimizer": {}, "optimizer.lr": 0.25, "model.norm": {}}, "grid": {"train.steps": [3]},
        "variants": {"a": {"train": {}}, "b": {
        "model": {"width": 64, "norm": {}}, "model.heads": 4, "model.norm": {}}}})");
    REQUIRE(grid.cells.size() == 2);
    CHECK(grid.cells[1].config.model.layers == 1);
    CHECK(grid.cells[1].config.model.heads == 4);
    CHECK(grid.cells[1].config.model.width == 64);
    CHECK(grid.cells[1].config.optimizer.lr == 0.25);
}

TEST_CASE("overrides change the base of every cell") {
    const Place place;
    const Grid grid =
        place.grid(R"({"base": {"extends": "base.json", "train.steps": 9}, "seeds": [1, 2]})", {"train.steps=3"});
    for (const GridCell& cell : grid.cells)
        CHECK(cell.config.train.steps == 3);
}

TEST_CASE("names that are alike, or no names for files, stay apart") {
    const Place place;
    const Grid grid = place.grid(R"({"base": {"extends": "base.json", "model.norm.placement": "sandwich"}, "grid": {
        "model.norm.pre.eps": [1e-5, 1e-6], "model.norm.out.eps": [0.5]}, "variants": {"a/b": {}, "a b": {"log.csv": true}}})");
    CHECK(names(grid) == std::vector<std::string>{"model.norm.pre.eps=1e-05,model.norm.out.eps=0.5,variant=a-b",
                                                  "model.norm.pre.eps=1e-05,model.norm.out.eps=0.5,variant=a-b~2",
                                                  "model.norm.pre.eps=1e-06,model.norm.out.eps=0.5,variant=a-b",
                                                  "model.norm.pre.eps=1e-06,model.norm.out.eps=0.5,variant=a-b~2"});
}

TEST_CASE("mistakes are named at their line, before anything runs") {
    const Place place;
    const auto [text, expected] = GENERATE(table<std::string, std::string>({
        {"[1]", "sweep.json:1: is [1]; expected an object with the keys"},
        {"{\"base\": \"base.json\"}", "sweep.json: makes one run alone; expected `grid`, `variants` or `seeds`"},
        {"{\"seeds\": [1]}", "sweep.json: base: is missing"},
        {"{\"base\": \"base.json\",\n\"gird\": {}}",
         "sweep.json:2: gird: is not a key of a sweep; did you mean `grid`?"},
        {"{\"base\": \"base.json\",\n\"model\": {}}", "sweep.json:2: model: is not a key of a sweep; keys of a config"},
        {"{\"base\": \"base.json\",\n\"seeds\": []}", "sweep.json:2: seeds: is []; expected a list of seeds"},
        {"{\"base\": \"base.json\",\n\"seeds\": [1,\n1]}", "sweep.json:3: seeds: has 1 twice"},
        {"{\"base\": \"base.json\",\n\"seeds\": [-1]}", "sweep.json:2: seeds: has -1; expected integers of at least 0"},
        {"{\"base\": \"base.json\",\n\"variants\": {}}", "sweep.json:2: variants: is empty"},
        {"{\"base\": \"base.json\",\n\"variants\": {\"a\": {},\n\"b\": {}}}",
         "sweep.json:3: variants.b: sets the same as a"},
        {"{\"base\": \"base.json\",\n\"variants\": {\"a\": {\"seed\": 3}}}",
         "sweep.json:2: variants.a.seed: cannot be set by a variant"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"model.layers\": []}}", "sweep.json:2: grid.model.layers: is empty"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"seed\": [1]}}", "sweep.json:2: grid.seed: is no axis"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": [0.001,\n1e-3]}}",
         "sweep.json:3: grid.optimizer.lr: has 0.001 twice"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": 3}}",
         "sweep.json:2: grid.optimizer.lr: is 3; expected a list of values"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": {\"from\": 0, \"to\": 1, \"points\": 2}}}",
         "sweep.json:2: grid.optimizer.lr: has an end that is not above 0"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": {\"from\": 1, \"to\": 1, \"points\": 2}}}",
         "sweep.json:2: grid.optimizer.lr: has 1 twice"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": {\"from\": 1, \"to\": 2}}}",
         "sweep.json:2: grid.optimizer.lr: is no range; expected from, to and points"},
        {"{\"base\": \"base.json\", \"grid\": {\"optimizer.lr\":\n{\"from\": 1, \"to\": 2, \"point\": 3}}}",
         "sweep.json:2: grid.optimizer.lr.point: is not a key of a range; did you mean `points`?"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lrr\": [1, 2]}, \"seeds\": [1, 2]}",
         "sweep.json:2: optimizer.lrr: is not a key; did you mean `lr`?"},
        {"{\"base\": \"base.json\", \"grid\": {\n\"optimizer.lr\": [1,\n\"fast\"]}, \"seeds\": [1, 2]}",
         "sweep.json:3: optimizer.lr: is \"fast\"; expected a number of at least 0 (cell lr=fast,seed=1 and 1 more)"},
        {"{\"base\": \"base.json\", \"grid\": {\"model.width\": [32],\n\"model.heads\": [4,\n5]}}",
         "sweep.json:3: model.heads: model.heads 5 does not divide model.width 32; expected a divisor, such as 4 or 8 "
         "(cell width=32,heads=5)"},
        {"{\"base\": \"base.json\", \"variants\": {\"a\": {},\n\"b\": {\"model\":\n{\"layres\": 3}}}}",
         "sweep.json:3: model.layres: is not a key; did you mean `layers`? (cell variant=b)"},
        {"{\"base\": {\"extends\": \"base.json\",\n\"model\": {\"layres\": 3}}, \"seeds\": [1, 2]}",
         "sweep.json:2: model.layres: is not a key; did you mean `layers`?"},
        {"{\"base\": \"base.json\", \"grid\": {\"model.layers\": [1]},\n\"variants\": {\"a\": {\"model\": {\"layers\": "
         "2}}}}",
         "sweep.json:2: model.layers: is set by `grid`, too"},
        {"{\"base\": \"base.json\", \"grid\": {\"model.layers\": [1],\n\"model\": [{\"layers\": 2}]}}",
         "sweep.json:2: model.layers: is set by `grid`, too"},
        {"{\"base\": {\"model.norm.attn.pre\": true,\n\"model\": {\"norm\": {\"attn\": \"post\"}}}, \"seeds\": [1, 2]}",
         "sweep.json:2: model.norm.attn: is set in line 1, too"},
        {"{\"base\": {\"model.norm.attn.pre\": true,\n\"model.norm\": {\"attn\": {\"pre\": false}}}, \"seeds\": [1, "
         "2]}",
         "sweep.json:2: model.norm.attn: is set in line 1, too"},
        {"{\"base\": {\"model.layers\": 1,\n\"model\": {\"layers\": 2}}, \"seeds\": [1, 2]}",
         "sweep.json:2: model.layers: is set in line 1, too; expected one place that sets it"},
        {"{\"base\": \"base.json\", \"variants\": {\"a\": {}, \"b\": {\"model\": {\"layers\": 2},\n\"model.layers\": "
         "1}}}",
         "sweep.json:2: model.layers: is set in line 1, too; expected one place that sets it"},
        {"{\"base\": \"missing.json\", \"seeds\": [1, 2]}", "missing.json: does not exist; expected a config file"},
        {"{\"base\": 3, \"seeds\": [1, 2]}", "sweep.json:1: base: is 3; expected a config file's path"},
        {"{\"base\": \"base.json\", \"seeds\": [1, 2],}", "sweep.json:1: is not JSON"},
    }));
    CAPTURE(text);
    const std::vector<std::string> found = place.mistakes(text);
    CAPTURE(found);
    REQUIRE(found.size() == 1);
    CHECK(found.front().starts_with(expected));
}

TEST_CASE("an override of what the grid sets is refused") {
    const Place place;
    const std::vector<std::string> found =
        place.mistakes("{\"base\": \"base.json\",\n\"grid\": {\"model.layers\": [1, 2]}}", {"model.layers=3"});
    REQUIRE(found.size() == 1);
    CHECK(found.front() == "sweep.json:2: model.layers: is set by --set, too; expected one place that sets it");
}

TEST_CASE("a grid that is too large is refused before its cells are made") {
    const Place place;
    std::string values;
    for (int i = 1; i <= 40; ++i)
        values += (i > 1 ? ", " : "") + std::to_string(i);
    std::string grid;
    for (const char* key : {"model.layers", "train.steps", "train.eval_batches", "train.log_every", "schedule.warmup"})
        grid += (grid.empty() ? "\"" : ", \"") + std::string(key) + "\": [" + values + "]";
    const std::vector<std::string> found = place.mistakes("{\"base\": \"base.json\", \"grid\": {" + grid + "}}");
    REQUIRE(found.size() == 1);
    CHECK(found.front() == "sweep.json: makes 102400000 cells; expected at most 1000");
}
