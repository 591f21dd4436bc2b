#include "ballast/lab/replay.h"

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "json.h"
#include "runs.h"

using namespace ballast;

namespace {

struct ReplayOptions {
    std::string run;
    std::int64_t step = 0;
    std::optional<std::int64_t> from;
    int threads = 0;
    bool json = false;
};

std::string start_text(const ReplayStart& start) {
    return start.checkpoint.empty() ? "the weights at the start" : start.checkpoint.string();
}

std::string exactness(const Replay& replay, const ReplayResult& result) {
    const std::string loss = format("loss %.9g", unsigned_nan(result.replayed_loss));
    if (!result.first_different)
        return loss + format(": that of the record to the last bit, as at all %lld replayed steps",
                             static_cast<long long>(result.compared));
    return loss +
           format(", recorded %.9g: not the run that was recorded, which differs from step %lld on",
                  unsigned_nan(result.recorded_loss), static_cast<long long>(*result.first_different)) +
           (replay.doubts().empty() ? "" : " (see the warning)");
}

std::string entry_name(const TraceEntry& entry) {
    return (entry.site.empty() ? "" : entry.site + ": ") + entry.op +
           (entry.backward ? " backward, gradient of " + entry.made : "");
}

void print_range(const std::string& name, const std::string& shape, const Range& range, const std::string& note) {
    std::printf("  %-58s %-14s %11.4g %11.4g %11.4g%s%s\n", name.c_str(), shape.c_str(), unsigned_nan(range.min),
                unsigned_nan(range.max), unsigned_nan(range.rms),
                range.not_finite > 0 ? format("  %lld not finite", static_cast<long long>(range.not_finite)).c_str()
                                     : "",
                note.c_str());
}

void print_text(const Replay& replay, const ReplayResult& result) {
    std::printf("step %lld from %s\n%s\n", static_cast<long long>(replay.step()), start_text(replay.start()).c_str(),
                exactness(replay, result).c_str());
    std::printf("\n  %-58s %-14s %11s %11s %11s\n", "values, then gradients, in the order they were made", "shape",
                "min", "max", "rms");
    for (std::size_t i = 0; i < result.trace.size(); ++i) {
        const TraceEntry& entry = result.trace[i];
        print_range(entry_name(entry), entry.shape, entry.range, result.first_out == i ? "  <- see below" : "");
    }
    if (!result.first_out) {
        const std::string compared = result.reference_step
                                         ? format("nothing has an RMS above %g times that of step %lld", kOutOfRange,
                                                  static_cast<long long>(*result.reference_step))
                                         : "there is no earlier step to compare with";
        std::printf("\neverything is finite, and %s\n", compared.c_str());
        return;
    }
    const TraceEntry& first = result.trace[*result.first_out];
    if (first.range.not_finite > 0)
        std::printf("\nfirst that is not finite: %s, %lld elements of %s\n", entry_name(first).c_str(),
                    static_cast<long long>(first.range.not_finite), first.shape.c_str());
    else
        std::printf("\nfirst whose RMS is above %g times that of step %lld: %s, %.4g, %.1f times\n", kOutOfRange,
                    static_cast<long long>(*result.reference_step), entry_name(first).c_str(), first.range.rms,
                    first.range.rms / result.reference_rms[*result.first_out]);
    std::printf("its inputs:\n");
    for (const TraceInput& input : first.inputs)
        print_range(input.name, "", input.range, "");
}

std::string range_json(const Range& range) {
    return json::object({{"min", json::number(range.min)},
                         {"max", json::number(range.max)},
                         {"rms", json::number(range.rms)},
                         {"not_finite", json::number(range.not_finite)}});
}

void print_json(const Replay& replay, const ReplayResult& result) {
    std::vector<std::string> doubts, starts, trace;
    for (const std::string& doubt : replay.doubts())
        doubts.push_back(json::text(doubt));
    for (const ReplayStart& start : replay.starts()) {
        std::string step = json::number(start.step);
        if (starts.empty() || starts.back() != step)
            starts.push_back(std::move(step)); // of a snapshot and a checkpoint
    }
    for (const TraceEntry& entry : result.trace) {
        std::vector<std::string> inputs;
        for (const TraceInput& input : entry.inputs)
            inputs.push_back(json::object({{"name", json::text(input.name)}, {"range", range_json(input.range)}}));
        trace.push_back(json::object({{"backward", json::boolean(entry.backward)},
                                      {"op", json::text(entry.op)},
                                      {"site", json::text(entry.site)},
                                      {"made", json::text(entry.made)},
                                      {"shape", json::text(entry.shape)},
                                      {"range", range_json(entry.range)},
                                      {"inputs", json::array(inputs)}}));
    }
    const std::string line = json::object(
        {{"step", json::number(replay.step())},
         {"from", json::number(replay.start().step)},
         {"starts", json::array(starts)},
         {"doubts", json::array(doubts)},
         {"exact", json::boolean(!result.first_different)},
         {"compared", json::number(result.compared)},
         {"recorded_loss", json::number(result.recorded_loss)},
         {"replayed_loss", json::number(result.replayed_loss)},
         {"first_out", result.first_out ? json::number(static_cast<std::int64_t>(*result.first_out)) : "null"},
         {"trace", json::array(trace)}});
    std::printf("%s\n", line.c_str());
}

int replay_step(const ReplayOptions& options) {
    use_threads(options.threads);
    require_run_directory(options.run);
    const Replay replay(options.run, options.step, options.from);
    for (const std::string& doubt : replay.doubts())
        stderr_log().warn("the replay may not be exact: " + doubt);
    const ReplayResult result = replay.run();
    if (options.json)
        print_json(replay, result);
    else
        print_text(replay, result);
    return result.first_different ? kFailure : kDone;
}

} // namespace

void add_replay(CLI::App& app, Action& action) {
    auto options = std::make_shared<ReplayOptions>();
    CLI::App* command = app.add_subcommand("replay", "Make one step of a run again, bit for bit, and look into it");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    command->add_option("--step", options->step, "Step to look into")->required()->type_name("N");
    command->add_option("--from", options->from, "Step whose state to begin from [the nearest that is kept]")
        ->type_name("N");
    add_threads_option(*command, options->threads);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast replay runs/quickstart --step 700");
    command->callback([options, &action] { action = [options] { return replay_step(*options); }; });
}
