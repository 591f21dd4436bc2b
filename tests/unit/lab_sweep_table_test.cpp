// Learning rate sensitivity, and the table of a sweep.

#include "ballast/lab/sweep_table.h"

#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

namespace {

SweepRow row(std::vector<Setting> settings, std::uint64_t seed, std::optional<double> final_loss,
             RunState state = RunState::done) {
    SweepRow row;
    row.run = {"run", std::move(settings), seed, "runs/run"};
    row.result.state = state;
    row.result.initial_loss = 4;
    row.result.final_loss = final_loss;
    return row;
}

std::vector<LrPoint> points(const std::vector<std::optional<double>>& losses, double initial = 4) {
    std::vector<LrPoint> points;
    for (const auto& loss : losses)
        points.push_back({1, initial, loss});
    return points;
}

} // namespace

TEST_CASE("S is the mean loss over learning rates above the least") {
    CHECK(lr_sensitivity(points({2.0, 2.0, 2.0})) == 0.0);
    CHECK(lr_sensitivity(points({3.0, 2.0, 2.5})) == 0.5);
    // A run that diverged, or ended above its start, counts with its start.
    CHECK(lr_sensitivity(points({2.0, 3.0, std::nullopt})) == 1.0);
    CHECK(lr_sensitivity(points({2.0, 3.0, 1e9})) == 1.0);
    CHECK(lr_sensitivity(points({std::nullopt, 5.0})) == 0.0);
    // Nothing has learned, or the start is not known.
    CHECK_FALSE(lr_sensitivity(points({std::nullopt, std::nullopt})));
    CHECK_FALSE(lr_sensitivity({}));
    CHECK_FALSE(lr_sensitivity(std::vector<LrPoint>{{1, std::nullopt, 2.0}, {2, 4.0, 2.0}}));
}

TEST_CASE("S is never negative, and neither an offset of all losses nor their order changes it") {
    const RandomStream random(3, "sensitivity");
    for (std::uint64_t trial = 0; trial < 200; ++trial) {
        std::vector<std::optional<double>> losses, moved;
        for (std::uint64_t i = 0; i < 7; ++i) {
            const double loss = 1 + 4 * random.uniform(7 * trial + i);
            losses.emplace_back(loss);
            moved.insert(moved.begin(), loss + 10);
        }
        const double value = *lr_sensitivity(points(losses));
        CHECK(value >= 0);
        CHECK(std::abs(*lr_sensitivity(points(moved, 14)) - value) < 1e-12);
    }
}

TEST_CASE("sensitivities have a standard error over seeds, arm by arm") {
    std::vector<SweepRow> rows;
    for (const std::string placement : {"pre", "post"})
        for (const std::string rate : {"0.1", "0.01"})
            for (const std::uint64_t seed : {1U, 2U}) {
                const double loss = 2 + (rate == "0.1" ? (placement == "pre" ? 0.2 : 1.0) + 0.2 * double(seed) : 0);
                rows.push_back(row({{"placement", placement}, {"optimizer.lr", rate}}, seed, loss));
            }
    std::vector<LrSensitivity> found = lr_sensitivities(rows);
    REQUIRE(found.size() == 2);
    CHECK(found[0].settings == std::vector<Setting>{{"placement", "pre"}});
    CHECK(found[0].rates == std::vector<double>{0.01, 0.1});
    CHECK(found[0].best_rate == 0.01);
    CHECK(found[0].sample.count == 2);
    CHECK(std::abs(found[0].sample.mean - (0.2 + 0.3) / 2) < 1e-12);
    CHECK(std::abs(*found[0].sample.standard_error() - 0.05) < 1e-12);
    CHECK(std::abs(found[1].sample.mean - (0.6 + 0.7) / 2) < 1e-12);

    // A seed with a run that goes on is left out.
    rows[0].result.state = RunState::unfinished;
    found = lr_sensitivities(rows);
    CHECK(found[0].sample.count == 1);
    CHECK(found[0].left_out == 1);
    CHECK_FALSE(found[0].sample.standard_error());
    CHECK(found[1].left_out == 0);
}

TEST_CASE("there is no sensitivity without several learning rates") {
    CHECK(lr_sensitivities({}).empty());
    CHECK(lr_sensitivities(std::vector<SweepRow>{row({{"placement", "pre"}}, 1, 2.0)}).empty());
    CHECK(lr_sensitivities(std::vector<SweepRow>{row({{"optimizer.lr", "0.1"}}, 1, 2.0)}).empty());
}

TEST_CASE("the table in CSV and JSON says the same") {
    std::vector<SweepRow> rows{row({{"variant", "a, \"b\""}}, 18446744073709551615U, 2.5),
                               row({{"variant", "c"}}, 1, std::nullopt, RunState::diverged),
                               row({{"variant", "d"}}, 1, std::nullopt, RunState::missing)};
    rows[1].result.summary.verdict = "non_finite";
    rows[1].result.summary.loss_spike_score = std::numeric_limits<double>::infinity();
    rows[2].result.initial_loss.reset();
    const std::vector<std::string> axes{"variant"};
    CHECK(sweep_csv(axes, rows) ==
          "run,variant,seed,state,verdict,step,tokens,initial_loss,final_loss,best_loss,loss_spikes,gradient_spikes,"
          "loss_spike_score,gradient_spike_score,onset_step,tokens_per_second,seconds\n"
          "run,\"a, \"\"b\"\"\",18446744073709551615,done,,0,0,4,2.5,,0,0,0,0,,0,0\n"
          "run,c,1,diverged,non_finite,0,0,4,,,0,0,Infinity,0,,0,0\n"
          "run,d,1,missing,,,,,,,,,,,,,\n");
    const auto json = nlohmann::json::parse(sweep_json("name", axes, rows));
    CHECK(json.at("name") == "name");
    CHECK(json.at("axes") == axes);
    REQUIRE(json.at("runs").size() == 3);
    CHECK(json["runs"][0].at("settings").at("variant") == "a, \"b\"");
    CHECK(json["runs"][0].at("seed") == 18446744073709551615U);
    CHECK(json["runs"][0].at("final_loss") == 2.5);
    CHECK(json["runs"][1].at("loss_spike_score") == "Infinity");
    CHECK(json["runs"][2].at("final_loss").is_null());
    CHECK(json.at("lr_sensitivity").empty());
}

TEST_CASE("the page of sweeps has every column") {
    std::ifstream file(std::string(BALLAST_SOURCE_DIR) + "/docs/sweep.md");
    const std::string page{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    for (const SweepColumn& column : sweep_columns()) {
        const std::string line = "| `" + std::string(column.name) + "` | " + std::string(column.unit) + " | " +
                                 std::string(column.meaning) + " |\n";
        CAPTURE(line);
        CHECK(page.find(line) != std::string::npos);
    }
}
