#include "ballast/train/memory.h"

#include <algorithm>
#include <vector>

#include "ballast/base/arena.h"
#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/nn/transformer.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "ballast/train/flight_recorder.h"
#include "ballast/train/optimizer.h"

namespace ballast {

namespace {

/// Bytes that a step's values, gradients and saved state take, by going through it without computing.
double activation_bytes(const Transformer& model, const Config& config) {
    const std::int64_t rows = config.train.micro_batch;
    const std::int64_t time = config.model.context;
    const std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * time)); // looked at to see that they are ids
    Tape plan(ops::registry(), Arena::Backing::none);
    plan.begin(Mode::train, {}, config.stability.probe_every > 0); // a step that is probed needs the most
    const Var logits = model(plan, {ids, {rows, time}});
    plan.backward(ops::cross_entropy(plan, logits, ids, 1, config.loss.z_loss));
    return static_cast<double>(Arena::block_bytes(plan.activation_bytes()));
}

/// Code and buffers of the program's libraries, BLAS above all, that are first touched by a step.
constexpr double kLibraries = 1 << 20;

} // namespace

double MemoryEstimate::bytes() const {
    double sum = 0;
    for (const MemoryPart& part : parts)
        sum += part.bytes;
    return sum;
}

std::string MemoryEstimate::largest(std::size_t count) const {
    std::vector<MemoryPart> sorted = parts;
    std::stable_sort(sorted.begin(), sorted.end(),
                     [](const MemoryPart& a, const MemoryPart& b) { return a.bytes > b.bytes; });
    std::string text;
    for (std::size_t i = 0; i < std::min(count, sorted.size()); ++i)
        text += (i == 0 ? "" : ", ") + sorted[i].name + " " + byte_size(sorted[i].bytes) +
                (sorted[i].keys.empty() ? "" : " (" + sorted[i].keys + ")");
    return text;
}

MemoryEstimate estimate_memory(const Config& config, std::int64_t vocabulary, std::int64_t process_bytes) {
    ParamTable table(Arena::Backing::none);
    const Transformer model(table, config.model, vocabulary);
    table.allocate(config.seed);
    table.allocate_gradients();
    const auto array = static_cast<double>(Arena::block_bytes(sizeof(float) * static_cast<std::size_t>(table.size())));
    const auto moments = static_cast<double>(moment_count(config.optimizer));
    const double batches = 2.0 * sizeof(std::int32_t) * static_cast<double>(config.train.batch * config.model.context);
    const std::size_t state = state_bytes(table, moment_count(config.optimizer));
    const SnapshotPlan snapshots = snapshot_plan(config.stability, state);
    const bool keeps_undo = config.stability.on_non_finite == Policy::skip;
    return {{
        {"parameters", array, "model.width, model.layers"},
        {"gradients", array, "model.width, model.layers"},
        {"moments", array * moments, "optimizer.kind"},
        {"snapshots", snapshots.on_disk ? 0 : static_cast<double>(snapshots.bytes),
         "stability.snapshot_memory, stability.snapshot_every"},
        {"undo copy", keeps_undo ? static_cast<double>(state) : 0, "stability.on_non_finite"},
        {"probes", config.stability.probe_every > 0 ? array : 0, "stability.probe_every"},
        {"activations", activation_bytes(model, config), "train.micro_batch, model.context"},
        {"batches", batches, "train.batch"},
        {"program and data", kLibraries + static_cast<double>(process_bytes), ""},
    }};
}

void require_memory(const MemoryEstimate& estimate, std::int64_t limit) {
    if (estimate.bytes() <= static_cast<double>(limit)) return;
    throw Error("out of memory: the run needs about " + byte_size(estimate.bytes()) + " and this machine allows " +
                byte_size(static_cast<double>(limit)) + "; the largest parts: " + estimate.largest(3));
}

} // namespace ballast
