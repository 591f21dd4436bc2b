// Runs that go wrong for a known reason, beside their stable twins (configs/divergence): the event, the verdict, the
// first cause, and replays of the step where it began.

#include <algorithm>
#include <iostream>
#include <set>

#include "ballast/base/parallel.h"
#include "ballast/config/load.h"
#include "ballast/lab/diagnose.h"
#include "ballast/lab/replay.h"
#include "ballast/train/trainer.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

struct Case {
    std::string name; ///< of the config
    std::string verdict;
    std::string event;         ///< that must be there
    std::string cause;         ///< that diagnose() puts first
    OutOfRange how;            ///< that a replay of the event's step finds first
    bool backward;             ///< in a gradient
    std::string override = {}; ///< of a resume after half the run
};

const std::vector<Case>& cases() {
    static const std::vector<Case> all{
        {"exploding_lr", "diverged", "divergence", "lr_too_high", OutOfRange::above, false},
        {"post_no_warmup", "stalled", "stall", "post_ln_no_warmup", OutOfRange::below, true},
        {"no_norm", "non_finite", "non_finite", "no_norm", OutOfRange::not_finite, false},
        {"no_final_norm", "diverged", "divergence", "no_final_norm", OutOfRange::above, false},
        {"attention_logits", "stalled", "stall", "attention_logit_growth", OutOfRange::above, false},
        {"poisoned", "spiky", "loss_spike", "bad_data", OutOfRange::above, true},
        {"lr_on_resume", "spiky", "loss_spike", "lr_on_resume", OutOfRange::above, false, "optimizer.lr=0.1"},
        {"norm_on_resume", "spiky", "loss_spike", "norm_changed", OutOfRange::below, false, "model.norm.eps=3"},
        {"large_beta2", "spiky", "loss_spike", "large_beta2", OutOfRange::above, true},
        {"large_eps", "stalled", "stall", "gradients_at_eps", OutOfRange::at_eps, true},
        {"graft_post", "stalled", "stall", "norms_at_graft", OutOfRange::above, false},
    };
    return all;
}

/// `wanted` if the run has such an event; otherwise the first that is an instability, or "none".
std::string event_of(const std::filesystem::path& run, const std::string& wanted) {
    std::string found = "none";
    for (const Event& event : read_events(run / "events.jsonl")) {
        if (event.kind == wanted) return wanted;
        const bool counts = event.kind != "resume" && event.kind != "graft" && event.kind != "interrupted";
        if (counts && found == "none") found = event.kind;
    }
    return found;
}

/// Interrupts the training behind a step.
class StopAt final : public MetricsSink {
public:
    StopAt(std::int64_t step, std::atomic<bool>& interrupt) : step_(step), interrupt_(interrupt) {}
    void write(const StepRecord& record) override { interrupt_ = record.step == step_; }

private:
    std::int64_t step_;
    std::atomic<bool>& interrupt_;
};

Config config_named(const std::string& name) {
    return load_config(std::string(BALLAST_SOURCE_DIR) + "/configs/divergence/" + name + ".json");
}

RunSummary train(const std::string& name, const std::filesystem::path& out, const std::vector<std::string>& resume) {
    Config config = config_named(name);
    std::atomic<bool> interrupt{false};
    if (!config.init_from.run.empty()) {
        config.init_from.run = out.parent_path() / "graft_source";
        if (!std::filesystem::exists(config.init_from.run))
            Trainer::start(config_named("graft_source"), config.init_from.run).run({}, interrupt);
    }
    if (name.find("_on_resume") != std::string::npos) {
        StopAt stop(config.train.steps / 2, interrupt);
        MetricsSink* const sinks[] = {&stop};
        Trainer::start(config, out).run(sinks, interrupt);
        interrupt = false;
        return Trainer::resume(out, resume).run({}, interrupt);
    }
    return Trainer::start(config, out).run({}, interrupt);
}

/// From each of at least `fewest` different states, the replay of a step gives its recorded loss to the last bit, and
/// the same answer to what left its range first, which is returned.
ReplayResult require_exact_replays(const std::filesystem::path& run, std::int64_t step, std::size_t fewest) {
    const Replay usual_replay(run, step);
    std::set<std::int64_t> steps;
    for (const ReplayStart& start : usual_replay.starts())
        steps.insert(start.step);
    CAPTURE(run, step, steps);
    CHECK(steps.size() >= fewest);
    ReplayResult usual = usual_replay.run();
    for (const std::int64_t from : steps) {
        const Replay replay(run, step, from);
        CHECK(replay.doubts().empty());
        const ReplayResult result = replay.run();
        CHECK_FALSE(result.first_different.has_value());
        CHECK(result.compared == step - from);
        CHECK(result.first_out == usual.first_out);
        CHECK(result.how == usual.how);
    }
    return usual;
}

/// "above, blocks.0.attention.output: linear"
std::string finding(const ReplayResult& result) {
    if (!result.first_out) return "nothing";
    const TraceEntry& first = result.trace[*result.first_out];
    CHECK_FALSE(first.inputs.empty());
    constexpr const char* kHow[] = {"", "not finite", "above", "below", "at eps"};
    return std::string(kHow[static_cast<int>(result.how)]) + ", " + first.site + ": " + first.op +
           (first.backward ? " backward, gradient of " + first.made : "");
}

} // namespace

TEST_CASE("runs that go wrong are told from their twins, with the cause, and replayed", "[divergence][long]") {
    set_threads(1); // tiny models, and a test machine is busy
    const TemporaryDirectory directory;
    std::string found_in = "run                      first out of its range at the step of the event\n";
    std::string table = "run                      verdict     event         first cause\n";
    std::set<std::string> seen;
    std::int64_t found = 0, missed = 0, false_alarms = 0, quiet = 0, causes = 0;
    for (const Case& one : cases()) {
        std::int64_t event_step = 1;
        for (const bool stable : {false, true}) {
            const std::string name = one.name + (stable ? "_stable" : "");
            const std::filesystem::path run = directory / name;
            std::vector<std::string> resume;
            if (!stable && !one.override.empty()) resume.push_back(one.override);
            const RunSummary summary = train(name, run, resume);
            const std::vector<Diagnosis> why = diagnose(read_run(run));
            const std::string event = event_of(run, one.event), cause = why.empty() ? "none" : why.front().cause;
            table += name + std::string(25 - name.size(), ' ') + summary.verdict +
                     std::string(12 - summary.verdict.size(), ' ') + event + std::string(14 - event.size(), ' ') +
                     cause + "\n";
            CAPTURE(name, summary.verdict, summary.reason, summary.onset, event, cause);
            CHECK(summary.verdict == (stable ? "stable" : one.verdict));
            CHECK(event == (stable ? "none" : one.event));
            CHECK(cause == (stable ? "none" : one.cause));
            (stable ? (event == "none" ? quiet : false_alarms) : (event == "none" ? missed : found)) += 1;
            if (!stable && cause == one.cause) ++causes;
            for (const Diagnosis& diagnosis : why)
                seen.insert(diagnosis.cause);
            if (!stable)
                for (const Event& began : read_events(run / "events.jsonl"))
                    if (began.kind == one.event) {
                        CHECK(summary.event_step == began.step); // of spikes, the first
                        event_step = began.step;
                        break;
                    }
            // The twin is looked at where the run went wrong.
            const ReplayResult replay = require_exact_replays(run, event_step, stable ? 1 : 2);
            found_in += name + std::string(25 - name.size(), ' ') + finding(replay) + "\n";
            CHECK(replay.how == (stable ? OutOfRange::no : one.how));
            if (!stable) CHECK(replay.trace.at(replay.first_out.value_or(0)).backward == one.backward);
        }
    }
    for (const std::string& cause : known_causes()) { // each signature has a run that shows it
        CAPTURE(cause);
        CHECK(seen.contains(cause));
    }
    std::cout << "\n"
              << table << "\n"
              << "              an event   none\n"
              << "goes wrong    " << found << "          " << missed << "\n"
              << "stable twin   " << false_alarms << "          " << quiet << "\n"
              << "\n"
              << found_in << "\n"
              << "right first cause: " << causes << " of " << cases().size() << "\n";
}
