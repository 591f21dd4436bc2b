// Where something began to go wrong: the first statistic of the probes to leave its range, or a resume.

#include "ballast/train/onset.h"

#include <functional>

#include "catch.h"

using namespace ballast;

namespace {

/// A probe every 5 steps, of one layer's statistic and one that stays as it is.
std::vector<LayerRecord> probes(std::optional<double> LayerRecord::*statistic, const std::vector<double>& values) {
    std::vector<LayerRecord> records;
    for (std::size_t i = 0; i < values.size(); ++i) {
        LayerRecord& record = records.emplace_back();
        record.step = 5 * static_cast<std::int64_t>(i + 1);
        record.layer = 2;
        record.site = "ffn";
        record.stream_rms = 1.5;
        record.*statistic = values[i];
    }
    return records;
}

std::string onset_of(std::optional<double> LayerRecord::*statistic, const std::vector<double>& values) {
    const auto records = probes(statistic, values);
    const std::optional<Onset> onset = find_onset(records, 1, records.back().step);
    return onset ? onset->text() : "";
}

Event resumed(std::int64_t step, std::vector<KeyDifference> changes) { return resume_event(step, changes); }

} // namespace

TEST_CASE("the onset is the first probe from which on a statistic is out of its range", "[onset]") {
    CHECK(onset_of(&LayerRecord::branch_ratio, {1, 1.1, 1, 1.05, 3, 4, 9}) ==
          "step 25, layer 2, ffn: branch_ratio 3, was 1.025");
    CHECK(onset_of(&LayerRecord::branch_ratio, {1, 1.1, 1, 1.05, 3, 1, 1}).empty()); // it came back
    CHECK(onset_of(&LayerRecord::branch_ratio, {1, 1.1, 1, 1.05, 3, 1, 5}) ==
          "step 35, layer 2, ffn: branch_ratio 5, was 1");
    CHECK(onset_of(&LayerRecord::branch_ratio, {1, 1, 9}).empty()); // too few before
    CHECK(
        onset_of(&LayerRecord::branch_ratio, {1, 1, 1, 1, NAN}).starts_with("step 25, layer 2, ffn: branch_ratio nan"));
}

TEST_CASE("a gradient may vanish, other statistics may fall", "[onset]") {
    CHECK(onset_of(&LayerRecord::gradient_rms, {1e-3, 1.1e-3, 1e-3, 1e-3, 1e-5, 1e-6}) ==
          "step 25, layer 2, ffn: gradient_rms 1e-05, was 0.001");
    CHECK(onset_of(&LayerRecord::gradient_rms, {1e-3, 1.1e-3, 1e-3, 1e-3, 3e-4, 3e-4}).empty());
    CHECK(onset_of(&LayerRecord::branch_ratio, {1, 1.1, 1, 1.05, 0.01, 0.01}).empty());
}

TEST_CASE("what is about 0 in a healthy network does not leave its range by growing a little", "[onset]") {
    CHECK(onset_of(&LayerRecord::dead_share, {0, 0, 0, 0, 0.1, 0.2}).empty());
    CHECK(onset_of(&LayerRecord::dead_share, {0.01, 0.02, 0.01, 0.01, 0.1, 0.2}).empty());
    CHECK(onset_of(&LayerRecord::dead_share, {0.01, 0.02, 0.01, 0.01, 0.1, 0.5}).starts_with("step 30"));
    CHECK(onset_of(&LayerRecord::gain_spread, {1e-7, 1e-7, 1e-7, 1e-7, 1e-3, 0.09}).empty());
    CHECK(onset_of(&LayerRecord::gain_spread, {1e-2, 1e-2, 1e-2, 1e-2, 0.2, 0.3}).starts_with("step 25"));
    CHECK(onset_of(&LayerRecord::update_ratio, {0, 0, 0, 0, 1e-8, 1e-3}).empty());
}

TEST_CASE("a resume with other settings is an onset, one with more steps only where the rate follows", "[onset]") {
    const std::vector<Event> events{
        resumed(100, {{"optimizer.lr", "0.1", "0.2"}}),
        resumed(200, {{"train.steps", "200", "400"}, {"model.norm.eps", "1e-05", "3.0"}}),
        resumed(300, {{"train.steps", "400", "500"}, {"log.csv", "false", "true"}}),
        resumed(350, {}),
    };
    ScheduleConfig schedule;
    schedule.kind = ScheduleKind::constant;
    const auto onset = [&](std::int64_t first, std::int64_t last) {
        return resume_onset(events, schedule, first, last);
    };
    REQUIRE(onset(150, 400).has_value());
    CHECK(onset(150, 400)->text() ==
          "step 201, resumed with train.steps from 200 to 400, model.norm.eps from 1e-05 to 3.0");
    CHECK(onset(1, 200)->step == 101);
    CHECK(onset(201, 201)->step == 201);
    CHECK_FALSE(onset(202, 400).has_value());
    CHECK_FALSE(onset(1, 100).has_value());
    schedule.kind = ScheduleKind::cosine;
    CHECK(onset(202, 400)->step == 301);
    CHECK(resume_changes(events.back()).empty());
}
