// The records of a run. The first byte says of what kind the rest is: `m` metrics.jsonl, `c` metrics.csv, `e`
// events.jsonl, `s` summary.json, `n` environment.json. For the first three, the second byte is the step from which the
// run goes on, as a letter: a is 0.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

/// Record files that need no disk: the fuzzer opens thousands a second.
class QuickCalls final : public FileCalls {
public:
    int fsync(int /*descriptor*/) const override { return 0; }
};
const QuickCalls kQuickCalls;

void use_metrics(const std::filesystem::path& path, std::int64_t last_step) {
    try {
        for (const StepRecord& record : read_metrics(path))
            require(to_json(step_record_from_json(to_json(record))) == to_json(record), "a record comes back");
    } catch (const IoError& error) {
        require_message(error.what());
    }
    {
        JsonLinesSink log(path, last_step, kQuickCalls);
        require(log.kept_step() <= last_step, "no later step is kept");
        StepRecord next;
        next.step = last_step + 1;
        log.write(next);
    }
    std::int64_t step = 0;
    for (const StepRecord& record : read_metrics(path)) {
        require(record.step > step, "a log that goes on is in the order of steps");
        step = record.step;
    }
    require(step == last_step + 1, "a log that goes on has the new line at its end");
}

void use_csv(const std::filesystem::path& path, std::int64_t last_step) {
    CsvSink log(path, last_step, kQuickCalls);
    require(log.kept_step() <= last_step, "no later step is kept");
    const std::string text = read_file(path);
    require(text.starts_with(step_csv_header() + "\n") && text.ends_with("\n"), "a table has its header");
}

void use_events(const std::filesystem::path& path, std::int64_t last_step) {
    try {
        read_events(path);
    } catch (const IoError& error) {
        require_message(error.what());
    }
    EventLog(path, last_step, kQuickCalls).write({last_step + 1, "test", "\x01\xff\n", {}});
    const std::vector<Event> events = read_events(path);
    require(!events.empty() && events.back().step == last_step + 1, "a log that goes on has the new line at its end");
    require(
        std::is_sorted(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.step < b.step; }),
        "a log that goes on is in the order of steps");
}

/// A run directory around files that are replaced.
const RunDirectory& run() {
    static const RunDirectory directory = RunDirectory::create(scratch() / "run", "{}", Environment{});
    return directory;
}

void use_summary() {
    const RunSummary summary = run().summary();
    run().write_summary(summary, kQuickCalls);
    const RunSummary again = run().summary();
    require(again.step == summary.step && again.verdict.size() <= 3 * summary.verdict.size(), "a summary comes back");
}

void use_environment() {
    const Environment facts = run().environment();
    require(differences(facts, facts).empty(), "nothing differs from itself");
    run().go_on_with("{}", facts, 0, kQuickCalls);
    require(differences(facts, run().environment()).empty(), "an environment comes back");
    for (const std::string& line : differences(facts, current_environment()))
        require_message(line);
}

void use(char kind, std::string_view text) {
    if (kind == 's') {
        write_text(run().summary_path(), text);
        use_summary();
    } else if (kind == 'n') {
        write_text(run().environment_path(), text);
        use_environment();
    } else if (!text.empty()) {
        const std::int64_t last_step = std::clamp(text[0] - 'a', 0, 25);
        const std::filesystem::path path = scratch() / "log";
        write_text(path, text.substr(1));
        if (kind == 'm') use_metrics(path, last_step);
        if (kind == 'c') use_csv(path, last_step);
        if (kind == 'e') use_events(path, last_step);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    try {
        use(static_cast<char>(data[0]), {reinterpret_cast<const char*>(data) + 1, size - 1});
    } catch (const IoError& error) {
        require_message(error.what());
    }
    return 0;
}
