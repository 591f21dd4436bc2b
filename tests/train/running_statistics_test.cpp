// A batchnorm's running statistics: what a step makes of them, and what leaves them alone.

#include "ballast/nn/running_statistics.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "ballast/config/load.h"
#include "ballast/ops/registry.h"
#include "ballast/train/learner.h"
#include "ballast/train/safetensors.h"
#include "ballast/train/trainer.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

class Lab {
public:
    Lab() {
        std::string text;
        for (int i = 0; i < 400; ++i)
            text += "word " + std::to_string(i * i) + " and more of it\n";
        std::ofstream(directory_ / "text.txt", std::ios::binary) << text;
    }

    Config config(const std::vector<std::string>& overrides = {}) const {
        const std::string base = R"({"data": {"path": "text.txt"},
            "model": {"layers": 2, "heads": 2, "width": 16, "context": 8, "norm": {"kind": "batchnorm", "momentum": 0.25}},
            "train": {"steps": 4, "batch": 6, "eval_batches": 2}})";
        return config_from_json(base, directory_ / "config.json", overrides);
    }

    std::filesystem::path path(const std::string& name) const { return directory_ / name; }

private:
    TemporaryDirectory directory_;
};

std::vector<float> values_of_buffer(const ParamTable& table, const std::string& name) {
    for (const Param& buffer : table.buffers())
        if (buffer.name == name) {
            const float* begin = table.values() + buffer.offset;
            return {begin, begin + buffer.shape.elements()};
        }
    FAIL("no buffer " << name);
    return {};
}

std::vector<float> all_buffers(const ParamTable& table) {
    return {table.values() + table.size(), table.values() + table.state_size()};
}

} // namespace

TEST_CASE("a step moves running statistics by the pooled statistics of its micro-batches", "[train]") {
    // Two passes of a batchnorm over parts of a batch, and the same by hand.
    constexpr std::int64_t kWidth = 3;
    const std::vector<std::vector<float>> parts = {{1, 2, 3, 4, -5, 6}, {-1, 0, 1000, 1, 1, 1001, 2, 2, 999}};
    ParamTable table;
    const Buffer mean = table.add_buffer("norm.running_mean", {kWidth}, 0.5);
    const Buffer variance = table.add_buffer("norm.running_variance", {kWidth}, 2);
    table.allocate(1);
    CHECK(table.count() == 0);
    CHECK(table.size() == 0);
    CHECK(table.state_size() > 0);
    RunningStatistics statistics(table, 0.25);
    Tape tape(ops::registry());
    const auto observe = [&](const std::vector<float>& rows) {
        tape.begin(Mode::train);
        const Var x = tape.constant({static_cast<std::int64_t>(rows.size()) / kWidth, kWidth}, rows.data());
        ops::batchnorm(tape, x, {}, {}, mean(tape), variance(tape), 1e-5);
        statistics.observe(tape);
    };
    observe({100, 100, 100});
    statistics.begin(); // which forgets that
    for (const std::vector<float>& part : parts)
        observe(part);
    REQUIRE(statistics.update());

    for (std::size_t column = 0; column < kWidth; ++column) {
        std::vector<double> values;
        for (const std::vector<float>& part : parts)
            for (std::size_t i = column; i < part.size(); i += kWidth)
                values.push_back(part[i]);
        double sum = 0, squares = 0;
        for (const double value : values)
            sum += value;
        const double expected_mean = sum / static_cast<double>(values.size());
        for (const double value : values)
            squares += (value - expected_mean) * (value - expected_mean);
        const double expected_variance = squares / static_cast<double>(values.size() - 1);
        CHECK(values_of_buffer(table, "norm.running_mean")[column] == Approx(0.75 * 0.5 + 0.25 * expected_mean));
        CHECK(values_of_buffer(table, "norm.running_variance")[column] == Approx(0.75 * 2 + 0.25 * expected_variance));
    }

    // One row has no variance to estimate; what is not finite moves nothing.
    statistics.begin();
    observe({1, 2, 3});
    REQUIRE(statistics.update());
    const std::vector<float> before = all_buffers(table);
    CHECK(std::all_of(before.begin(), before.end(), [](float value) { return std::isfinite(value); }));
    observe({1, std::numeric_limits<float>::infinity(), 3, 4, 5, 6});
    CHECK_FALSE(statistics.update());
    CHECK(all_buffers(table) == before);
}

TEST_CASE("micro-batches make no difference to the statistics of what they share", "[train]") {
    // The first norm sees the embeddings, which do not depend on how the batch is cut.
    const Lab lab;
    const Dataset data(data_options(lab.config()));
    Learner whole(lab.config(), data), cut(lab.config({"train.micro_batch=2"}), data);
    whole.step(1);
    cut.step(1);
    for (const char* name :
         {"blocks.0.attention.pre_norm.running_mean", "blocks.0.attention.pre_norm.running_variance"}) {
        const std::vector<float> a = values_of_buffer(whole.table(), name), b = values_of_buffer(cut.table(), name);
        for (std::size_t i = 0; i < a.size(); ++i)
            CHECK(b[i] == Approx(a[i]).epsilon(1e-5).margin(1e-7));
    }
    CHECK(all_buffers(whole.table()) != all_buffers(cut.table())); // deeper norms see other inputs
}

TEST_CASE("a step that is not finite leaves running statistics as they were", "[train]") {
    const Lab lab;
    const Dataset data(data_options(lab.config()));
    Learner learner(lab.config(), data);
    REQUIRE(learner.step(1).non_finite.empty());
    const std::vector<float> before = all_buffers(learner.table());
    CHECK(before != all_buffers(Learner(lab.config(), data).table()));
    // The output layer's weights are those of the embedding.
    learner.table().values()[learner.table().find("blocks.1.ffn.output.weight")->offset] =
        std::numeric_limits<float>::infinity();
    const Learner::Step step = learner.step(2);
    CHECK_FALSE(step.non_finite.empty());
    CHECK_FALSE(step.updated);
    CHECK(all_buffers(learner.table()) == before);
}

TEST_CASE("evaluation uses running statistics, does not move them, and checkpoints hold them", "[train]") {
    const Lab lab;
    const Dataset data(data_options(lab.config()));
    Learner learner(lab.config(), data);
    for (std::int64_t step = 1; step <= 3; ++step)
        REQUIRE(learner.step(step).non_finite.empty());
    const std::vector<float> before = all_buffers(learner.table());
    const double loss = learner.validate()->loss;
    CHECK(all_buffers(learner.table()) == before);
    learner.table().values()[learner.table().buffers()[1].offset] *= 4;
    CHECK(learner.validate()->loss != loss);

    const std::atomic<bool> never{false};
    Trainer trainer = Trainer::start(lab.config(), lab.path("run"));
    trainer.run({}, never);
    const std::filesystem::path checkpoint = checkpoint_path(lab.path("run"), 4);
    const SafetensorsFile params(checkpoint / "params.safetensors"), optim(checkpoint / "optim.safetensors");
    CHECK(params.find("final_norm.running_variance") != nullptr);
    CHECK(optim.find("final_norm.gain.m") != nullptr);
    CHECK(optim.find("final_norm.running_variance.m") == nullptr);
}
