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
        return loss + ": that of the record to the last bit" +
               (result.compared > 1 ? format(", as at all %lld replayed steps", static_cast<long long>(result.compared))
                                    : std::string());
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

std::string reference_text(const ReplayResult& result) {
    const std::string last = std::to_string(result.reference_last);
    return result.reference_first == result.reference_last
               ? "step " + last
               : "steps " + std::to_string(result.reference_first) + " to " + last;
}

/// One line: what left its range first, and how.
std::string finding(const Replay& replay, const ReplayResult& result) {
    if (!result.first_out)
        return result.reference_last == 0
                   ? std::string("everything is finite, and there is no earlier step to compare with")
                   : format("everything is finite, and has an RMS within a factor of %g of that of ", kRangeFactor) +
                         reference_text(result);
    const TraceEntry& first = result.trace[*result.first_out];
    if (result.how == OutOfRange::not_finite)
        return "first that is not finite: " + entry_name(first) +
               format(", %lld elements of ", static_cast<long long>(first.range.not_finite)) + first.shape;
    const std::string name = "first out of its range: " + entry_name(first) + format(", RMS %.4g", first.range.rms);
    if (result.how == OutOfRange::at_eps)
        return name + format(": below optimizer.eps, %g, which then sets the size of the update",
                             replay.config().optimizer.eps);
    const RmsRange usual = result.reference[*result.first_out].value_or(RmsRange());
    return name +
           (result.how == OutOfRange::above ? format(": above %g times the ", kRangeFactor)
                                            : format(": below 1/%g of the ", kRangeFactor)) +
           format("%.4g to %.4g of ", usual.least, usual.largest) + reference_text(result);
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
    std::printf("\n%s\n", finding(replay, result).c_str());
    if (!result.first_out) return;
    std::printf("its inputs:\n");
    for (const TraceInput& input : result.trace[*result.first_out].inputs)
        print_range(input.name, "", input.range, "");
}

std::string range_json(const Range& range) {
    return json::object({{"min", json::number(range.min)},
                         {"max", json::number(range.max)},
                         {"rms", json::number(range.rms)},
                         {"not_finite", json::number(range.not_finite)}});
}

std::string_view word_of(OutOfRange how) {
    switch (how) {
    case OutOfRange::no: break;
    case OutOfRange::not_finite: return "not_finite";
    case OutOfRange::above: return "above";
    case OutOfRange::below: return "below";
    case OutOfRange::at_eps: return "at_eps";
    }
    return "";
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
    for (std::size_t i = 0; i < result.trace.size(); ++i) {
        const TraceEntry& entry = result.trace[i];
        const std::optional<RmsRange>& usual = result.reference[i];
        std::vector<std::string> inputs;
        for (const TraceInput& input : entry.inputs)
            inputs.push_back(json::object({{"name", json::text(input.name)}, {"range", range_json(input.range)}}));
        trace.push_back(
            json::object({{"backward", json::boolean(entry.backward)},
                          {"op", json::text(entry.op)},
                          {"site", json::text(entry.site)},
                          {"made", json::text(entry.made)},
                          {"shape", json::text(entry.shape)},
                          {"range", range_json(entry.range)},
                          {"reference_rms",
                           usual ? json::array({json::number(usual->least), json::number(usual->largest)}) : "null"},
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
         {"reference", result.reference_last == 0 ? "null"
                                                  : json::object({{"first", json::number(result.reference_first)},
                                                                  {"last", json::number(result.reference_last)}})},
         {"first_out", result.first_out ? json::number(static_cast<std::int64_t>(*result.first_out)) : "null"},
         {"how", result.first_out ? json::text(word_of(result.how)) : "null"},
         {"trace", json::array(trace)}});
    std::printf("%s\n", line.c_str());
}

int replay_step(const ReplayOptions& options) {
    use_threads(options.threads);
    require_run_directory(options.run);
    const Replay replay(options.run, options.step, options.from);
    for (const std::string& doubt : replay.doubts())
        stderr_log().warn("the replay may not be exact: " + doubt);
    const ReplayResult result = replay.run(stderr_log());
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
