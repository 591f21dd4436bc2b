#include "dry_run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/memory.h"
#include "ballast/base/text.h"
#include "ballast/train/flight_recorder.h"
#include "ballast/train/learner.h"
#include "ballast/train/memory.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "training.h"

using namespace ballast;

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// "3.86 GFLOP".
std::string flops_text(double flops) {
    std::string text = short_count(flops);
    const std::size_t suffix = text.find_first_not_of("0123456789.");
    return text.insert(std::min(suffix, text.size()), " ") + "FLOP";
}

void row(const char* group, const char* name, const std::string& value, const std::string& note = "") {
    const std::string text = format("%-8s %-14s %12s", group, name, value.c_str()) + (note.empty() ? "" : "  " + note);
    std::printf("%s\n", text.c_str());
}

/// What a run holds beside its learner, taken and filled, so that the measured memory has it.
struct RecordingMemory {
    RecordingMemory(const Config& config, const Learner& learner)
        : plan(snapshot_plan(config.stability, state_bytes(learner.table(), learner.optimizer().moments().size()))),
          snapshots(plan.on_disk ? 0 : plan.keep) {
        for (std::size_t i = 0; i < plan.keep; ++i)
            snapshots.take({}, learner.table(), learner.optimizer().moments());
        if (config.stability.on_non_finite == Policy::skip)
            undo.take({}, learner.table(), learner.optimizer().moments());
        if (config.stability.probe_every > 0) probe.emplace(learner.table(), config.optimizer);
    }

    SnapshotPlan plan;
    Snapshots snapshots;
    Snapshot undo;
    std::optional<LayerProbe> probe;
};

} // namespace

int dry_run(const Config& config) {
    const Log log = stderr_log();
    log_machine(log);
    const Dataset data(data_options(config));
    const MemoryEstimate memory = estimate_memory(config, data.vocab_size(), resident_memory());
    require_memory(memory, memory_limit());
    Learner learner(config, data);
    log_run(log, config, data, learner.table().count());
    RecordingMemory recording(config, learner);

    // The first step touches all memory for the first time, so it is not timed; that of a probe is the most.
    constexpr int kMostSteps = 20;
    constexpr double kSeconds = 2;
    std::vector<double> times;
    const auto start = std::chrono::steady_clock::now();
    for (std::int64_t step = 1; step <= kMostSteps; ++step) {
        const auto step_start = std::chrono::steady_clock::now();
        if (step == 1 && recording.probe)
            learner.gradients(step, step, &*recording.probe);
        else
            learner.step(step);
        if (step > 1) times.push_back(seconds_since(step_start));
        if (times.size() >= 3 && seconds_since(start) > kSeconds) break;
    }
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];

    const TrainConfig& train = config.train;
    const std::int64_t pieces = train.batch / train.micro_batch;
    const auto micro_batches = static_cast<double>(pieces);
    const Flops flops = learner.tape().flops();
    const double work = micro_batches * (flops.forward + flops.backward);
    const auto tokens = static_cast<double>(learner.tokens_per_step());
    const auto array = static_cast<double>(learner.table().size()) * sizeof(float);
    const std::size_t moments = learner.optimizer().moments().size();

    const auto evaluation_start = std::chrono::steady_clock::now();
    const bool evaluates = train.steps > 0 && learner.validate().has_value();
    const double evaluation = seconds_since(evaluation_start);
    const std::int64_t evaluations = !evaluates             ? 0
                                     : train.eval_every > 0 ? (train.steps + train.eval_every - 1) / train.eval_every
                                                            : 1;

    row("model", "parameters", grouped(learner.table().count()));
    row("memory", "parameters", byte_size(array));
    row("", "gradients", byte_size(array));
    row("", "moments", byte_size(array * static_cast<double>(moments)),
        std::to_string(moments) + " of " + std::string(to_string(config.optimizer.kind)));
    row("", "activations", byte_size(static_cast<double>(learner.tape().activation_bytes())),
        "measured, for " + std::to_string(train.micro_batch) + " sequences at once");
    row("", "scratch", byte_size(static_cast<double>(learner.tape().scratch_bytes())), "measured");
    row("", "snapshots", byte_size(static_cast<double>(recording.plan.bytes)),
        recording.plan.on_disk ? "of the flight recorder, on the disk" : "of the flight recorder");
    if (config.stability.probe_every > 0) row("", "probes", byte_size(array));
    row("", "in all", byte_size(memory.bytes()),
        "computed before a byte of it was taken; " + byte_size(static_cast<double>(peak_resident_memory())) +
            " measured, program and data included");
    row("disk", "checkpoint", byte_size(array * static_cast<double>(1 + moments)), "each");
    row("work", "a step", flops_text(work),
        format("forward %.0f %%, backward %.0f %%", 100 * micro_batches * flops.forward / work,
               100 * micro_batches * flops.backward / work));
    row("speed", "a step", duration(median),
        short_count(tokens / median) + " tokens/s, " + flops_text(work / median) + "/s, median of " +
            std::to_string(times.size()) + " steps");
    row("time", "training", duration(median * static_cast<double>(train.steps)),
        std::to_string(train.steps) + " steps");
    row("", "evaluation", duration(evaluation * static_cast<double>(evaluations)),
        std::to_string(evaluations) + " times " + duration(evaluation));
    row("", "in all",
        duration(median * static_cast<double>(train.steps) + evaluation * static_cast<double>(evaluations)));
    return kDone;
}
