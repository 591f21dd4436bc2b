#include "ballast/lab/diagnose.h"

#include <string>
#include <vector>

#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "catch.h"

using namespace ballast;

namespace {

/// Of a run that has come to `kind`, by a config that stands in configs/divergence.
RunRecord record_of(const std::string& config, const std::string& kind) {
    RunRecord run;
    run.config = load_config(BALLAST_SOURCE_DIR "/configs/divergence/" + config + ".json");
    run.events.push_back({.step = 9, .kind = kind, .message = "something was seen"});
    return run;
}

} // namespace

TEST_CASE("a run that recorded neither steps nor layers is diagnosed by its config and its events alone", "[lab]") {
    for (const std::string config : {"no_final_norm", "no_norm", "post_no_warmup", "exploding_lr"})
        for (const std::string kind : {"non_finite", "divergence", "stall", "loss_spike", "rewind"}) {
            CAPTURE(config, kind);
            for (const Diagnosis& cause : diagnose(record_of(config, kind))) {
                CAPTURE(cause.cause);
                CHECK(cause.confidence > 0);
                CHECK(cause.confidence <= 1);
                CHECK_FALSE(cause.evidence.empty());
            }
        }
    const std::vector<Diagnosis> found = diagnose(record_of("no_final_norm", "divergence"));
    REQUIRE_FALSE(found.empty());
    CHECK(found.front().cause == "no_final_norm");
}

TEST_CASE("a run to which nothing has happened has no cause", "[lab]") {
    CHECK(diagnose(record_of("no_norm", "gradient_spike")).empty());
}

TEST_CASE("evidence that quotes what stands in a file is a printable line", "[lab]") {
    RunRecord run = record_of("exploding_lr", "loss_spike");
    run.graft.emplace();
    run.graft->source = "runs/\x1b[2J";
    run.graft->changes.push_back({.path = "model.norm.placement", .a = "pre\n", .b = "post\x07"});
    run.graft->drift.mean_logit = 1;
    bool quoted = false;
    for (const Diagnosis& cause : diagnose(run))
        for (const std::string& line : cause.evidence) {
            CHECK(printable(line, line.size()) == line);
            quoted = quoted || line.find("[2J") != std::string::npos;
        }
    CHECK(quoted);
}
