#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/kernels/peak.h"
#include "ballast/lab/bench.h"
#include "ballast/ops/ops.h"

namespace ballast {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr std::size_t kLeastSteps = 3;

/// The nodes of a tape, in groups that have op and shapes in common.
class Groups {
public:
    explicit Groups(const Tape& tape) {
        for (const Node& node : tape.nodes()) {
            std::vector<Shape> inputs;
            for (std::size_t i = 0; i < node.input_count; ++i)
                inputs.push_back(tape.shape(node.inputs[i]));
            const auto same = std::find_if(calls_.begin(), calls_.end(), [&](const CallSpeed& call) {
                return call.op == node.op && call.inputs == inputs;
            });
            group_of_.push_back(static_cast<std::size_t>(same - calls_.begin()));
            if (same == calls_.end()) calls_.push_back({node.op, inputs, 0, 0, 0, {}, 0, 0});
            add_work(calls_[group_of_.back()], tape, node);
        }
    }

    /// Those of `passes` passes.
    std::vector<CallSpeed> calls(std::int64_t passes) const {
        std::vector<CallSpeed> calls = calls_;
        for (CallSpeed& call : calls) {
            call.calls *= passes;
            for (double* work : {&call.flops.forward, &call.flops.backward, &call.forward_bytes, &call.backward_bytes})
                *work *= static_cast<double>(passes);
        }
        return calls;
    }

    std::vector<NodeSeconds> sums(std::span<const NodeSeconds> nodes) const {
        std::vector<NodeSeconds> sums(calls_.size());
        for (std::size_t i = 0; i < nodes.size(); ++i) {
            sums[group_of_[i]].forward += nodes[i].forward;
            sums[group_of_[i]].backward += nodes[i].backward;
        }
        return sums;
    }

private:
    static void add_work(CallSpeed& call, const Tape& tape, const Node& node) {
        const Flops flops = node.op->flops(call.inputs, node.attributes);
        std::int64_t inputs = 0;
        const std::int64_t output = tape.shape(node.output).elements();
        for (const Shape& shape : call.inputs)
            inputs += node.op == &ops::embedding_op ? std::min(shape.elements(), output) : shape.elements();
        ++call.calls;
        call.flops.forward += flops.forward;
        call.flops.backward += flops.backward;
        call.forward_bytes += sizeof(real) * static_cast<double>(inputs + output + node.saved_count);
        call.backward_bytes += sizeof(real) * static_cast<double>(2 * inputs + output + node.saved_count);
    }

    std::vector<CallSpeed> calls_;
    std::vector<std::size_t> group_of_; ///< of each node
};

struct TimedStep {
    double seconds = 0;
    double update = 0;
    std::vector<NodeSeconds> groups;
};

/// As the public one; `update_seconds`, unless null, is what the second half takes.
double make_step(Learner& learner, std::int64_t& step, double* update_seconds, LayerProbe* probe = nullptr) {
    const auto start = Clock::now();
    ++step;
    Learner::Step result = learner.gradients(step, step, probe);
    if (!result.non_finite.empty()) throw Error("step " + std::to_string(step) + ": not finite: " + result.non_finite);
    const auto update_start = Clock::now();
    learner.update(result, probe);
    if (update_seconds != nullptr) *update_seconds = seconds_since(update_start);
    std::size_t bytes = 0;
    for (const LayerRecord& record : probe != nullptr ? probe->records() : std::span<const LayerRecord>())
        bytes += to_json(record).size();
    if (probe != nullptr && bytes == 0) throw Error("a probe without records");
    return seconds_since(start);
}

} // namespace

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

double make_step(Learner& learner, std::int64_t& step) { return make_step(learner, step, nullptr); }

StepSpeed measure_steps(Learner& learner, std::int64_t& step, double seconds) {
    constexpr double kPeakSeconds = 0.005;
    StepSpeed speed;
    std::vector<TimedStep> steps;
    std::vector<double> peaks;
    std::optional<Groups> groups; // every step has the same nodes
    for (const auto start = Clock::now(); steps.size() < kLeastSteps || seconds_since(start) < seconds;) {
        learner.time_nodes(true);
        TimedStep timed;
        timed.seconds = make_step(learner, step, &timed.update);
        if (!groups) groups.emplace(learner.tape());
        timed.groups = groups->sums(learner.tape().node_seconds());
        speed.seconds.push_back(timed.seconds);
        steps.push_back(std::move(timed));
        peaks.push_back(measure_peak_flops(kPeakSeconds));
    }
    learner.time_nodes(false);
    std::sort(peaks.begin(), peaks.end());
    speed.peak_flops = peaks[peaks.size() * 3 / 4];

    std::sort(steps.begin(), steps.end(), [](const TimedStep& a, const TimedStep& b) { return a.seconds < b.seconds; });
    steps.resize((steps.size() + 1) / 2);
    const double share = 1 / static_cast<double>(steps.size());
    speed.calls = groups->calls(learner.micro_batches());
    for (const TimedStep& timed : steps) {
        speed.typical_seconds += share * timed.seconds;
        speed.update_seconds += share * timed.update;
        for (std::size_t i = 0; i < speed.calls.size(); ++i) {
            speed.calls[i].forward_seconds += share * timed.groups[i].forward;
            speed.calls[i].backward_seconds += share * timed.groups[i].backward;
        }
    }
    speed.other_seconds = std::accumulate(
        speed.calls.begin(), speed.calls.end(), speed.typical_seconds - speed.update_seconds,
        [](double rest, const CallSpeed& call) { return rest - call.forward_seconds - call.backward_seconds; });
    return speed;
}

double measure_probe(Learner& learner, std::int64_t& step, double seconds) {
    LayerProbe probe(learner.table(), learner.config().optimizer);
    make_step(learner, step, nullptr, &probe); // the first takes memory
    std::vector<double> plain, longer;
    for (const auto start = Clock::now(); plain.size() < kLeastSteps || seconds_since(start) < seconds;) {
        plain.push_back(make_step(learner, step));
        longer.push_back(make_step(learner, step, nullptr, &probe) - plain.back());
    }
    return median(longer) / median(plain);
}

double step_flops(const Learner& learner) {
    auto parameters = static_cast<double>(learner.table().count());
    if (const Param* positions = learner.table().find("embedding.positions"))
        parameters -= static_cast<double>(positions->shape.elements());
    const ModelConfig& model = learner.config().model;
    const auto attention = static_cast<double>(12 * model.layers * model.width * model.context);
    return (6 * parameters + attention) * static_cast<double>(learner.tokens_per_step());
}

} // namespace ballast
