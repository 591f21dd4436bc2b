// What a report reads, computes and embeds; tests/interop/test_report.py looks at the page itself.

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "ballast/base/file.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/lab/report.h"
#include "ballast/lab/sweep_table.h"
#include "ballast/train/metrics.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace fs = std::filesystem;

using Json = nlohmann::json;

namespace {

struct RunOptions {
    double lr = 1e-3;
    std::string_view placement = "pre";
    std::uint64_t seed = 1;
    std::string verdict = "stable"; ///< empty: no summary
    double first_loss = 4;
    double final_loss = 2;
    std::optional<double> final_val_loss = {};
    std::int64_t steps = 3;
    std::int64_t planned_steps = 0;       ///< 0: those that it made
    std::optional<double> last_loss = {}; ///< of the last batch; none: final_loss
};

/// A run directory as training leaves it.
fs::path make_run(const fs::path& path, const RunOptions& options = RunOptions()) {
    Config config;
    config.name = "run";
    config.seed = options.seed;
    config.optimizer.lr = options.lr;
    REQUIRE(from_string(options.placement, config.model.norm.placement));
    config.data.path = "/nowhere/text.txt";
    config.train.steps = std::max(options.steps, options.planned_steps);
    resolve(config);
    const RunDirectory directory = RunDirectory::create(path, to_json(config), current_environment());
    JsonLinesSink metrics(directory.metrics_path());
    for (std::int64_t step = 1; step <= options.steps; ++step) {
        StepRecord record;
        record.step = step;
        record.loss = step == 1 ? options.first_loss : options.final_loss;
        if (step == options.steps) record.loss = options.last_loss.value_or(record.loss);
        metrics.write(record);
    }
    if (options.verdict.empty()) return path;
    RunSummary summary;
    summary.verdict = options.verdict;
    summary.step = options.steps;
    summary.final_loss = options.last_loss.value_or(options.final_loss);
    summary.final_val_loss = options.final_val_loss;
    directory.write_summary(summary);
    return path;
}

void append(const fs::path& file, const std::string& text) {
    std::ofstream(file, std::ios::binary | std::ios::app) << text;
}

Json data_of(const Report& report) { return Json::parse(report_data(report)); }

} // namespace

TEST_CASE("a report reads every run once, and names those that it cannot read") {
    const TemporaryDirectory directory;
    const fs::path good = make_run(directory / "good");
    const fs::path torn = make_run(directory / "torn", {.verdict = ""});
    append(torn / "metrics.jsonl", R"({"step":4,"lo)");
    const fs::path damaged = make_run(directory / "damaged");
    append(damaged / "metrics.jsonl", "{}\n");
    const fs::path summary = make_run(directory / "summary");
    append(summary / "summary.json", "}");

    const std::vector<fs::path> paths{good, torn, damaged, directory / "absent", good / "", summary};
    const Report report = read_report(paths);
    REQUIRE(report.runs.size() == 2);
    CHECK(report.runs[0].label == "good");
    CHECK(report.runs[1].label == "torn");
    CHECK(report.runs[1].record.steps.size() == 3);
    CHECK_FALSE(report.runs[1].summary.has_value());
    REQUIRE(report.unreadable.size() == 3);
    CHECK_THAT(report.unreadable[0].problem, ContainsSubstring("metrics.jsonl:4: "));
    CHECK_THAT(report.unreadable[1].problem, ContainsSubstring("no such run directory"));
    CHECK_THAT(report.unreadable[2].problem, ContainsSubstring("summary.json"));
}

TEST_CASE("runs of the same name are told apart by their paths") {
    const TemporaryDirectory directory;
    fs::create_directories(directory / "a");
    const std::vector<fs::path> paths{make_run(directory / "a" / "run"), make_run(directory / "run")};
    const Report report = read_report(paths);
    CHECK(report.runs[0].label == paths[0].string());
    CHECK(report.runs[1].label == paths[1].string());
}

TEST_CASE("the data of a page can end no script, whatever a name has, and is the same for the same records") {
    const TemporaryDirectory directory;
    const std::string name = "<\xe6\xbc\xa2<!--<script>\"\\'\xff\u2028";
    const std::vector<fs::path> paths{make_run(directory / name)};
    const Report report = read_report(paths);
    const std::string data = report_data(report);
    CHECK(data.find('<') == std::string::npos);
    CHECK(std::all_of(data.begin(), data.end(), [](char c) { return c >= ' ' && c <= '~'; }));
    // What is not UTF-8 cannot be shown as it is.
    CHECK(Json::parse(data).at("runs").at(0).at("label") == "<\xe6\xbc\xa2<!--<script>\"\\'\xef\xbf\xbd\u2028");
    CHECK(report_page(report) == report_page(read_report(paths)));
    CHECK_THAT(report_page(report), ContainsSubstring("Dygraph"));
}

TEST_CASE("numbers of a page have the recorded bits, also those that JSON does not know") {
    const TemporaryDirectory directory;
    const double infinity = std::numeric_limits<double>::infinity();
    const double first = GENERATE(0.1 + 0.2, 1e-310, 1.7976931348623157e308);
    const double last = GENERATE_COPY(std::nan(""), infinity, -infinity);
    const std::vector<fs::path> paths{make_run(directory / "run", {.first_loss = first, .final_loss = last})};
    const Json losses = data_of(read_report(paths)).at("runs").at(0).at("columns").at("loss");
    REQUIRE(losses.size() == 3);
    CHECK(losses[0].get<double>() == first);
    CHECK(losses[2] == (std::isnan(last) ? "NaN" : last > 0 ? "Infinity" : "-Infinity"));
}

TEST_CASE("steps are grouped only beyond the limit") {
    const TemporaryDirectory directory;
    const std::vector<fs::path> paths{make_run(directory / "whole", {.steps = kMostPoints}),
                                      make_run(directory / "grouped", {.steps = kMostPoints + 1})};
    const Json runs = data_of(read_report(paths)).at("runs");
    CHECK(runs[0].at("steps_a_point") == 1);
    CHECK(runs[0].at("columns").at("loss").size() == kMostPoints);
    const std::int64_t group = runs[1].at("steps_a_point");
    CHECK(group > 1);
    const Json& columns = runs[1].at("columns");
    CHECK(columns.at("step").back() == kMostPoints + 1);
    CHECK(columns.at("step").size() == static_cast<std::size_t>((kMostPoints + group) / group));
    CHECK(columns.at("loss").at("high")[0] == 4.0);
    CHECK(columns.at("loss").at("low")[0] == 2.0);
}

TEST_CASE("final loss against learning rate, a curve for each placement") {
    const TemporaryDirectory directory;
    std::vector<fs::path> paths;
    const auto add = [&](const RunOptions& options) {
        paths.push_back(make_run(directory / std::to_string(paths.size()), options));
    };
    add({.lr = 1e-2, .seed = 1, .final_loss = 2, .final_val_loss = 2.25});
    add({.lr = 1e-2, .seed = 2, .final_loss = 2, .final_val_loss = 2.75});
    add({.lr = 1e-3, .final_loss = 3, .final_val_loss = 3});
    add({.lr = 1, .verdict = "diverged", .final_loss = 9});
    add({.lr = 1e-2, .placement = "post", .final_loss = 3, .final_val_loss = 3});
    add({.lr = 1e-3, .placement = "post", .final_loss = 5, .final_val_loss = 5}); // worse than at its start
    add({.lr = 1e-1, .verdict = ""});

    const RateCurves rates = rate_curves(read_report(paths));
    CHECK(rates.validation);
    REQUIRE(rates.curves.size() == 2);
    const RateCurve& pre = rates.curves[0];
    CHECK(pre.label == "pre");
    REQUIRE(pre.points.size() == 4);
    CHECK(pre.points[0].lr == 1e-3);
    CHECK(pre.points[3].diverged);
    CHECK(pre.points[3].loss == 4);
    CHECK(pre.points[3].run == 3);
    REQUIRE(pre.sensitivity.has_value());
    CHECK(*pre.sensitivity == Approx((3 + 2.25 + 4) / 3 - 2.25)); // the second seed lacks two of the rates
    CHECK_FALSE(pre.standard_error.has_value());
    CHECK(rates.curves[1].label == "post");
    CHECK(rates.curves[1].points[0].loss == 4);

    // Both seeds of two rates.
    add({.lr = 1e-3, .seed = 2, .final_loss = 3, .final_val_loss = 3.5});
    add({.lr = 1, .seed = 2, .verdict = "non_finite", .final_loss = std::nan("")});
    const RateCurve seeds = rate_curves(read_report(paths)).curves[0];
    const double first = (3 + 2.25 + 4) / 3 - 2.25, second = (3.5 + 2.75 + 4) / 3 - 2.75;
    CHECK(seeds.sensitivity.value() == Approx((first + second) / 2));
    CHECK(seeds.standard_error.value() == Approx(std::abs(first - second) / 2));

    // Of a run without validation the last training losses count, as everywhere.
    CHECK_FALSE(rates.training);
    add({.lr = 1e-4, .final_loss = 3.5});
    const RateCurves training = rate_curves(read_report(paths));
    CHECK(training.validation);
    CHECK(training.training);
    CHECK(training.curves[0].points[0].loss == 3.5);

    const std::vector<fs::path> alone{paths[0], paths[1], paths[4]};
    CHECK(rate_curves(read_report(alone)).curves.empty());
}

TEST_CASE("learning rate sensitivity is that of a sweep, however runs end") {
    const TemporaryDirectory directory;
    std::vector<fs::path> paths;
    std::vector<SweepRow> rows;
    const auto add = [&](const RunOptions& options) {
        paths.push_back(make_run(directory / std::to_string(paths.size()), options));
        const std::string rate = std::to_string(options.lr);
        const Config config = config_from_json(read_file(paths.back() / "config.json"), paths.back() / "config.json");
        rows.push_back(read_sweep_row({rate, {{"optimizer.lr", rate}}, options.seed, paths.back()}, config));
    };
    const auto require_same = [&] {
        const LrSensitivity of_sweep = lr_sensitivities(rows).at(0);
        const RateCurve curve = rate_curves(read_report(paths)).curves.at(0);
        REQUIRE(curve.sensitivity.has_value());
        CHECK(*curve.sensitivity == Approx(of_sweep.sample.mean));
        CHECK(curve.standard_error.has_value() == of_sweep.sample.standard_error().has_value());
    };
    // Without validation the mean of the last 5 % of steps counts: of 40, the last two.
    for (const std::uint64_t seed : {1, 2}) {
        add({.lr = 0.01, .seed = seed, .final_loss = 2, .steps = 40, .last_loss = 2.5});
        add({.lr = 0.02, .seed = seed, .final_loss = 3, .steps = 40, .last_loss = 3.75});
    }
    require_same();
    // A run that a policy of its config has stopped has no final loss, whatever its last evaluation was.
    add({.lr = 0.04,
         .seed = 1,
         .verdict = "stalled",
         .final_loss = 3.5,
         .final_val_loss = 3.5,
         .steps = 20,
         .planned_steps = 40});
    add({.lr = 0.04, .seed = 2, .verdict = "stalled", .final_loss = 3.5, .steps = 20, .planned_steps = 40});
    require_same();
    // Where nothing was learned, S says nothing.
    const std::vector<fs::path> idle{make_run(directory / "a", {.lr = 0.1, .verdict = "diverged", .planned_steps = 9}),
                                     make_run(directory / "b", {.lr = 0.2, .verdict = "diverged", .planned_steps = 9})};
    CHECK_FALSE(rate_curves(read_report(idle)).curves.at(0).sensitivity.has_value());
}

TEST_CASE("layers become a table of blocks, in which no NaN is lost") {
    const TemporaryDirectory directory;
    const fs::path run = make_run(directory / "run");
    append(run / "layers.jsonl", R"({"step":1,"site":"embedding","stream_rms":0.5}
{"step":1,"layer":0,"site":"attention","stream_rms":1,"max_attention_logit":[1,3],"attention_entropy":[2,1]}
{"step":1,"layer":0,"site":"ffn","stream_rms":2}
{"step":1,"layer":0,"site":"attention.qkv.weight","gradient_norm":3,"update_ratio":0.1}
{"step":1,"layer":0,"site":"ffn.input.weight","gradient_norm":4,"update_ratio":0.3}
{"step":1,"layer":0,"site":"ffn.input.bias","gradient_norm":0,"update_ratio":"Infinity"}
{"step":5,"layer":0,"site":"attention","stream_rms":1,"max_attention_logit":[1,"NaN"],"attention_entropy":[2,1]}
{"step":5,"layer":0,"site":"ffn","stream_rms":"NaN"}
)");
    const std::vector<fs::path> paths{run};
    const Json layers = data_of(read_report(paths)).at("runs").at(0).at("layers");
    CHECK(layers.at("step") == Json{1, 5});
    const Json& tables = layers.at("tables");
    CHECK(tables.at("stream_rms").at("rows") == Json{"embedding", "0"});
    CHECK(tables.at("stream_rms").at("values") == Json::parse(R"([[0.5, null], [2, "NaN"]])"));
    CHECK(tables.at("max_attention_logit").at("values") == Json::parse(R"([[3, "NaN"]])"));
    CHECK(tables.at("attention_entropy").at("values") == Json::parse("[[1, 1]]"));
    CHECK(tables.at("gradient_norm").at("values") == Json::parse("[[5, null]]"));
    CHECK(tables.at("update_ratio").at("values") == Json::parse("[[0.3, null]]"));
    CHECK_FALSE(tables.contains("dead_share"));
}

TEST_CASE("keys in which runs differ, or one run differs from the defaults") {
    const TemporaryDirectory directory;
    const std::vector<fs::path> paths{make_run(directory / "a"), make_run(directory / "b", {.lr = 0.5}),
                                      make_run(directory / "c", {.seed = 7})};
    CHECK(data_of(read_report(paths)).at("differences") ==
          Json::parse(R"([{"key": "optimizer.lr", "values": ["0.001", "0.5", "0.001"]},
                          {"key": "seed", "values": ["1", "1", "7"]}])"));
    const Json alone = data_of(read_report(std::vector<fs::path>{paths[1]})).at("differences");
    const auto lr =
        std::find_if(alone.begin(), alone.end(), [](const Json& row) { return row.at("key") == "optimizer.lr"; });
    REQUIRE(lr != alone.end());
    CHECK(lr->at("default") == "0.001");
}
