#include "bench.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "ballast/base/text.h"
#include "ballast/config/describe.h"
#include "ballast/kernels/peak.h"
#include "ballast/lab/bench.h"
#include "ballast/train/run_directory.h"
#include "bench_model.h"
#include "format.h"
#include "json.h"
#include "table.h"

using namespace ballast;

namespace {

struct ModelOptions : BenchOptions {
    std::vector<std::string> models;
    std::vector<std::string> overrides;
    std::int64_t vocabulary = 0; ///< 0: that of the config's data
    bool worker = false;

    ModelOptions() {
        seconds = 5;
        for (const BenchConfig& config : kBenchConfigs)
            models.emplace_back(config.name);
    }
};

/// The configs of the models, all checked before the first is timed.
std::vector<Config> configs_of(const ModelOptions& options) {
    std::vector<Config> configs;
    for (const std::string& word : options.models)
        configs.push_back(load_bench_config(word, options.overrides));
    return configs;
}

std::string shapes_text(const std::vector<Shape>& shapes) {
    std::string text;
    for (const Shape& shape : shapes)
        text += (text.empty() ? "" : " ") + shape.text();
    return text;
}

/// What everything about a model begins with.
void print_model(const std::string& word, BenchModel& model) {
    const Config& config = model.config();
    std::printf("\n%s: %lld layers of width %lld, context %lld, batch %lld, vocabulary %s; %s parameters\n",
                word.c_str(), static_cast<long long>(config.model.layers), static_cast<long long>(config.model.width),
                static_cast<long long>(config.model.context), static_cast<long long>(config.train.batch),
                grouped(model.vocabulary()).c_str(), grouped(model.learner().table().count()).c_str());
}

// ---- Steps ----------------------------------------------------------------------------------------------------------

/// A part of a step: an op, or what is none.
struct Part {
    std::string name;
    std::int64_t calls = 0;
    double forward = 0;
    double backward = 0; ///< for what is no op, all of it
    double seconds() const { return forward + backward; }
};

/// The ops of a step, the longest first.
std::vector<Part> ops_of(const StepSpeed& speed) {
    std::vector<Part> parts;
    for (const CallSpeed& call : speed.calls) {
        auto part = std::find_if(parts.begin(), parts.end(), [&](const Part& p) { return p.name == call.op->name; });
        if (part == parts.end()) part = parts.insert(parts.end(), {std::string(call.op->name), 0, 0, 0});
        part->calls += call.calls;
        part->forward += call.forward_seconds;
        part->backward += call.backward_seconds;
    }
    std::stable_sort(parts.begin(), parts.end(),
                     [](const Part& a, const Part& b) { return a.seconds() > b.seconds(); });
    return parts;
}

struct ModelSpeed {
    StepSpeed step;
    double flops = 0; ///< of a step
    std::int64_t peak_bytes = 0;
    double probe_share = 0;   ///< of a step that is probed
    double start_seconds = 0; ///< 0: not measured
};

ModelSpeed measure_model(BenchModel& model, double seconds, bool with_start) {
    ModelSpeed speed;
    model.warm_up();
    speed.step = measure_steps(model.learner(), model.step, seconds);
    speed.flops = step_flops(model.learner());
    speed.peak_bytes = peak_resident_memory();
    if (model.config().stability.probe_every > 0)
        speed.probe_share = measure_probe(model.learner(), model.step, seconds);
    if (with_start) speed.start_seconds = model.start_seconds();
    return speed;
}

void print_speed(BenchModel& model, const ModelSpeed& speed) {
    const StepSpeed& step = speed.step;
    const double typical = median(step.seconds);
    const auto [fastest, slowest] = std::minmax_element(step.seconds.begin(), step.seconds.end());
    std::printf("  step    %s, median of %zu (%s to %s)\n", short_time(typical).c_str(), step.seconds.size(),
                short_time(*fastest).c_str(), short_time(*slowest).c_str());
    std::printf("  speed   %s tokens/s, %.1f GFLOP/s, %s of the peak between the steps, %.1f\n",
                short_count(static_cast<double>(model.learner().tokens_per_step()) / typical).c_str(),
                1e-9 * speed.flops / typical, percent(speed.flops / typical / step.peak_flops).c_str(),
                1e-9 * step.peak_flops);
    std::printf("  memory  %s at most\n", byte_size(static_cast<double>(speed.peak_bytes)).c_str());
    if (const std::int64_t every = model.config().stability.probe_every; every > 0)
        std::printf("  probes  %.2f %% of the time, with one step in %lld probed\n",
                    100 * speed.probe_share / static_cast<double>(every), static_cast<long long>(every));
    if (speed.start_seconds > 0)
        std::printf("  start   %s from the start of `ballast train` to the record of its first step\n",
                    short_time(speed.start_seconds).c_str());
    std::printf("\n");

    std::vector<std::vector<std::string>> rows = {{"op", "calls", "forward", "backward", "share"}};
    for (const Part& part : ops_of(step))
        rows.push_back({part.name, std::to_string(part.calls), short_time(part.forward), short_time(part.backward),
                        percent(part.seconds() / step.typical_seconds)});
    for (const auto& [name, seconds] :
         {std::pair{"clip and update", step.update_seconds}, {"other", step.other_seconds}})
        rows.push_back({name, "", short_time(seconds), "", percent(seconds / step.typical_seconds)});
    rows.push_back({"mean of the faster half of the steps", "", short_time(step.typical_seconds), "", ""});
    print_table(rows, {false, true, true, true, true});
    std::fflush(stdout);
}

std::string part_json(const char* name, double seconds, double whole) {
    return json::object(
        {{"name", json::text(name)}, {"seconds", json::number(seconds)}, {"share", json::number(seconds / whole)}});
}

std::string json_of(const std::string& word, BenchModel& model, const ModelSpeed& speed) {
    const StepSpeed& step = speed.step;
    const double typical = median(step.seconds);
    const auto [fastest, slowest] = std::minmax_element(step.seconds.begin(), step.seconds.end());
    std::vector<std::string> ops;
    for (const Part& part : ops_of(step))
        ops.push_back(json::object({{"name", json::text(part.name)},
                                    {"calls", json::number(part.calls)},
                                    {"forward_seconds", json::number(part.forward)},
                                    {"backward_seconds", json::number(part.backward)},
                                    {"share", json::number(part.seconds() / step.typical_seconds)}}));
    const auto tokens = static_cast<double>(model.learner().tokens_per_step());
    std::vector<std::pair<std::string_view, std::string>> members{
        {"name", json::text(word)},
        {"parameters", json::number(model.learner().table().count())},
        {"vocabulary", json::number(model.vocabulary())},
        {"tokens_per_step", json::number(model.learner().tokens_per_step())},
        {"flops_per_step", json::number(speed.flops)},
        {"steps", json::number(static_cast<std::int64_t>(step.seconds.size()))},
        {"step_seconds", json::number(typical)},
        {"fastest_seconds", json::number(*fastest)},
        {"slowest_seconds", json::number(*slowest)},
        {"tokens_per_second", json::number(tokens / typical)},
        {"flops_per_second", json::number(speed.flops / typical)},
        {"peak_flops", json::number(step.peak_flops)},
        {"share_of_peak", json::number(speed.flops / typical / step.peak_flops)},
        {"peak_bytes", json::number(speed.peak_bytes)},
        {"typical_seconds", json::number(step.typical_seconds)},
        {"ops", json::array(ops)},
        {"rest", json::array({part_json("clip and update", step.update_seconds, step.typical_seconds),
                              part_json("other", step.other_seconds, step.typical_seconds)})}};
    if (const std::int64_t every = model.config().stability.probe_every; every > 0) {
        members.emplace_back("probe_every", json::number(every));
        members.emplace_back("probe_share", json::number(speed.probe_share / static_cast<double>(every)));
    }
    if (speed.start_seconds > 0) members.emplace_back("start_seconds", json::number(speed.start_seconds));
    return json::object(members);
}

int bench_steps(const ModelOptions& options) {
    const std::vector<Config> configs = configs_of(options);
    const BenchReport report("steps", options);
    std::vector<std::string> models;
    for (std::size_t i = 0; i < configs.size(); ++i) {
        const std::string& word = options.models[i];
        BenchModel model(configs[i], options.vocabulary);
        if (report.prints()) print_model(word, model);
        const bool is_smallest = word == kBenchConfigs.front().name;
        const ModelSpeed speed = measure_model(model, options.seconds, is_smallest);
        if (report.prints()) print_speed(model, speed);
        models.push_back(json_of(word, model, speed));
    }
    return report.finish({{"models", json::array(models)}});
}

/// For tools/bench_peers: prints what is known of a model, then answers each line of the standard input, a number of
/// steps, with their times, the machine's peak after them and the memory so far.
int serve(const ModelOptions& options) {
    constexpr double kPeakSeconds = 0.02;
    use_threads(options.threads);
    const Environment machine = current_environment();
    BenchModel model(configs_of(options).front(), options.vocabulary);
    model.warm_up();
    std::string config = to_json(model.config());
    std::replace(config.begin(), config.end(), '\n', ' '); // between tokens: in strings it is escaped
    std::puts(json::object({{"parameters", json::number(model.learner().table().count())},
                            {"flops_per_step", json::number(step_flops(model.learner()))},
                            {"machine", to_json(machine)},
                            {"config", config}})
                  .c_str());
    std::fflush(stdout);
    for (std::int64_t count = 0; std::cin >> count;) {
        std::vector<std::string> seconds;
        for (std::int64_t i = 0; i < count; ++i)
            seconds.push_back(json::number(make_step(model.learner(), model.step)));
        std::puts(json::object({{"seconds", json::array(seconds)},
                                {"peak_flops", json::number(measure_peak_flops(kPeakSeconds))},
                                {"peak_bytes", json::number(peak_resident_memory())}})
                      .c_str());
        std::fflush(stdout);
    }
    return kDone;
}

// ---- Ops ------------------------------------------------------------------------------------------------------------

/// A pass of calls beside what the machine allows: the limit that takes longer counts.
struct PassSpeed {
    double flops_per_second = 0;
    double bytes_per_second = 0;
    bool computes = false; ///< the peak is its limit, not the bandwidth
    double share = 0;      ///< of its limit
};

PassSpeed speed_of(double flops, double bytes, double seconds, const BenchReport& report) {
    PassSpeed speed{flops / seconds, bytes / seconds, false, 0};
    const double of_peak = speed.flops_per_second / report.peak_flops();
    const double of_bandwidth = speed.bytes_per_second / report.bandwidth();
    speed.computes = of_peak > of_bandwidth;
    speed.share = std::max(of_peak, of_bandwidth);
    return speed;
}

std::string speed_text(const PassSpeed& speed) {
    return speed.computes ? format("%.1f GFLOP/s", 1e-9 * speed.flops_per_second)
                          : format("%.1f GB/s", 1e-9 * speed.bytes_per_second);
}

std::string json_of(const PassSpeed& speed) {
    return json::object({{"flops_per_second", json::number(speed.flops_per_second)},
                         {"bytes_per_second", json::number(speed.bytes_per_second)},
                         {"limit", json::text(speed.computes ? "peak" : "bandwidth")},
                         {"share_of_limit", json::number(speed.share)}});
}

int bench_ops(const ModelOptions& options) {
    const std::vector<Config> configs = configs_of(options);
    const BenchReport report("ops", options);
    std::vector<std::string> models;
    for (std::size_t i = 0; i < configs.size(); ++i) {
        const std::string& word = options.models[i];
        BenchModel model(configs[i], options.vocabulary);
        model.warm_up();
        const StepSpeed step = measure_steps(model.learner(), model.step, options.seconds);
        std::vector<std::vector<std::string>> rows = {
            {"op", "inputs", "calls", "forward", "", "of limit", "backward", "", "of limit"}};
        std::vector<std::string> calls;
        for (const CallSpeed& call : step.calls) {
            const PassSpeed forward = speed_of(call.flops.forward, call.forward_bytes, call.forward_seconds, report);
            std::vector<std::string> row = {std::string(call.op->name), shapes_text(call.inputs),
                                            std::to_string(call.calls), short_time(call.forward_seconds),
                                            speed_text(forward),        format("%.0f %%", 100 * forward.share)};
            const std::string name = std::string(call.op->name) + " " + shapes_text(call.inputs);
            std::vector<std::pair<std::string_view, std::string>> members{
                {"name", json::text(name)},
                {"op", json::text(call.op->name)},
                {"calls", json::number(call.calls)},
                {"forward_seconds", json::number(call.forward_seconds)},
                {"backward_seconds", json::number(call.backward_seconds)},
                {"forward", json_of(forward)}};
            if (call.backward_seconds > 0) {
                const PassSpeed backward =
                    speed_of(call.flops.backward, call.backward_bytes, call.backward_seconds, report);
                row.insert(row.end(), {short_time(call.backward_seconds), speed_text(backward),
                                       format("%.0f %%", 100 * backward.share)});
                members.emplace_back("backward", json_of(backward));
            }
            rows.push_back(row);
            calls.push_back(json::object(members));
        }
        if (report.prints()) {
            print_model(word, model);
            print_table(rows, {false, false, true, true, true, true, true, true, true});
            std::fflush(stdout);
        }
        models.push_back(json::object({{"name", json::text(word)},
                                       {"typical_seconds", json::number(step.typical_seconds)},
                                       {"calls", json::array(calls)}}));
    }
    return report.finish({{"models", json::array(models)}});
}

void add_model_options(CLI::App& command, ModelOptions& options) {
    command.add_option("MODEL", options.models, "p1, p2, p3 (configs/bench) or config files [p1 p2 p3]")->type_name("");
    add_set_option(command, options.overrides);
    constexpr std::int64_t kMostIds = 65536;
    command.add_option("--vocabulary", options.vocabulary, "Number of token ids [that of the config's data]")
        ->type_name("N")
        ->check(CLI::Range(std::int64_t{2}, kMostIds));
    add_bench_options(command, options, "Time for the steps of a model, at least three");
}

} // namespace

void add_bench(CLI::App& app, Action& action) {
    auto steps = std::make_shared<ModelOptions>();
    CLI::App* command =
        app.add_subcommand("bench", "Speed of training steps, ops and norms beside this machine's limits");
    command->require_subcommand(0, 1);
    add_model_options(*command, *steps);
    command->add_flag("--worker", steps->worker, "Time as many steps as each line of the standard input says")
        ->group("");
    command->footer("Random tokens take the place of a config's data.\n"
                    "Example: ballast bench p1 --json > before.json; ballast bench p1 --compare before.json");

    auto ops = std::make_shared<ModelOptions>();
    CLI::App* ops_command =
        command->add_subcommand("ops", "Speed of each op, on each shape that the models call it with");
    add_model_options(*ops_command, *ops);
    ops_command->footer("The times are those inside whole training steps, of all calls together.\n"
                        "Example: ballast bench ops p1 --threads 1");
    ops_command->callback([ops, &action] { action = [ops] { return bench_ops(*ops); }; });
    add_bench_norms(*command, action);
    command->callback([command, steps, &action] {
        if (command->get_subcommands().empty())
            action = [steps] { return steps->worker ? serve(*steps) : bench_steps(*steps); };
    });
}
