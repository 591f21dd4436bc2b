#include "ballast/train/metrics.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "catch.h"
#include "temporary_directory.h"
#include "train/fault_calls.h"

using namespace ballast;
namespace fs = std::filesystem;

namespace {

std::string problem_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const IoError& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// Anew, since file systems wait for the disk where a file is emptied and written again.
void write_text(const fs::path& path, const std::string& text) {
    fs::remove(path);
    std::ofstream(path, std::ios::binary) << text;
}

StepRecord record_of(std::int64_t step) {
    StepRecord record;
    record.step = step;
    record.tokens = 10 * step;
    record.loss = 1.0 / static_cast<double>(step);
    if (step % 2 == 0) record.val_loss = 3;
    return record;
}

/// The lines of steps 1 to `steps` and where each ends.
template <class Sink>
std::string whole_log(const fs::path& path, std::int64_t steps, std::vector<std::size_t>& ends) {
    fs::remove(path);
    Sink sink(path);
    ends.assign(1, read_file(path).size());
    for (std::int64_t step = 1; step <= steps; ++step) {
        sink.write(record_of(step));
        ends.push_back(read_file(path).size()); // written through: visible while the sink is open
    }
    sink.sync();
    return read_file(path);
}

template <class Sink>
void check_resume_after_any_cut() {
    const TemporaryDirectory directory;
    const fs::path path = directory / "log";
    constexpr std::int64_t kSteps = 3;
    std::vector<std::size_t> ends;
    const std::string whole = whole_log<Sink>(path, kSteps, ends);

    for (std::size_t size = 0; size <= whole.size(); ++size) {
        const auto lines =
            static_cast<std::int64_t>(std::upper_bound(ends.begin(), ends.end(), size) - ends.begin()) - 1;
        for (const std::int64_t last_step : {0, 1, 2, 3, 9}) {
            if (last_step != 2 && size % 16 != 0) continue; // a byte more or less makes no difference of its own there
            CAPTURE(size, last_step);
            write_text(path, whole.substr(0, size));
            Sink sink(path, last_step);
            const std::int64_t kept = std::clamp<std::int64_t>(lines, 0, last_step);
            CHECK(sink.kept_step() == kept);
            CHECK(read_file(path) == whole.substr(0, ends[static_cast<std::size_t>(kept)]));
            for (std::int64_t step = kept + 1; step <= kSteps; ++step)
                sink.write(record_of(step));
            CHECK(read_file(path) == whole);
        }
    }
}

} // namespace

TEST_CASE("a log that was cut anywhere goes on without gaps or repeats") {
    check_resume_after_any_cut<JsonLinesSink>();
    check_resume_after_any_cut<CsvSink>();
}

TEST_CASE("metrics read back, without an unfinished last line") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "metrics.jsonl";
    std::vector<std::size_t> ends;
    const std::string whole = whole_log<JsonLinesSink>(path, 4, ends);
    for (std::size_t size = 0; size <= whole.size(); ++size) {
        write_text(path, whole.substr(0, size));
        const std::vector<StepRecord> records = read_metrics(path);
        CHECK(records.size() ==
              static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), size) - ends.begin()) - 1);
        for (std::size_t i = 0; i < records.size(); ++i)
            CHECK(to_json(records[i]) == to_json(record_of(static_cast<std::int64_t>(i) + 1)));
    }
    write_text(path, whole.substr(0, ends[2]) + "garbage\n" + whole.substr(ends[2]));
    CHECK(problem_of([&] { read_metrics(path); }) == path.string() + ":3: not a JSON object");
    CHECK(contains(problem_of([&] { read_metrics(directory / "missing"); }), "No such file"));
}

TEST_CASE("damage at the end of a log is cut off, damage before kept lines is refused") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "log";
    std::vector<std::size_t> ends;
    const std::string whole = whole_log<JsonLinesSink>(path, 6, ends);
    const auto line = [&](std::size_t step) { return whole.substr(ends[step - 1], ends[step] - ends[step - 1]); };

    SECTION("zeros, as a crash of the machine leaves them") {
        write_text(path, whole.substr(0, ends[3]) + std::string(500, '\0'));
        JsonLinesSink sink(path, 3);
        CHECK(read_file(path) == whole.substr(0, ends[3]));
    }
    SECTION("a garbled line behind the checkpoint") {
        write_text(path, whole.substr(0, ends[3]) + "garbage\n" + line(5));
        JsonLinesSink sink(path, 4);
        CHECK(sink.kept_step() == 3);
        CHECK(read_file(path) == whole.substr(0, ends[3]));
    }
    SECTION("a garbled line in the middle loses nothing") {
        const std::string damaged = whole.substr(0, ends[2]) + "garbage\n" + whole.substr(ends[2]);
        write_text(path, damaged);
        const std::string problem = problem_of([&] { JsonLinesSink sink(path, 6); });
        CHECK(contains(problem, path.string() + ":3: not a JSON object; mend the file"));
        CHECK(read_file(path) == damaged);
    }
    SECTION("a repeated step") {
        const std::string damaged = whole.substr(0, ends[2]) + line(2) + line(3);
        write_text(path, damaged);
        CHECK(contains(problem_of([&] { JsonLinesSink sink(path, 6); }), ":3: step 2 after step 2"));
        CHECK(read_file(path) == damaged);
    }
    SECTION("a step out of order") {
        write_text(path, line(3) + line(1));
        CHECK(contains(problem_of([&] { JsonLinesSink sink(path, 6); }), ":2: step 1 after step 3"));
    }
}

TEST_CASE("a CSV of other columns is not continued") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "metrics.csv";
    write_text(path, "step,loss\n1,2\n");
    CHECK(contains(problem_of([&] { CsvSink sink(path, 1); }), ":1: not the columns"));
    CHECK(read_file(path) == "step,loss\n1,2\n");
    CsvSink anew(path, 0);
    CHECK(read_file(path) == step_csv_header() + "\n");

    for (const std::string row : {"x", "1,2", "1", ",,,,,,,,,,,,,,,", "-1,,,,,,,,,,,,,,,", "1x,,,,,,,,,,,,,,,"}) {
        CAPTURE(row);
        write_text(path, step_csv_header() + "\n" + row + "\n" + to_csv(record_of(2)) + "\n");
        CHECK(contains(problem_of([&] { CsvSink sink(path, 2); }), ":2: not a row"));
    }
}

TEST_CASE("events come back, several for a step, and are cut at a step") {
    const TemporaryDirectory directory;
    const fs::path path = directory / "events.jsonl";
    {
        EventLog log(path);
        log.write({0, "start", "begins", {}});
        log.write({2, "spike", "a \"quoted\"\nline \x01 \xff", 4.5});
        log.write({2, "non_finite", "loss", std::numeric_limits<double>::quiet_NaN()});
        log.write({3, "checkpoint", "saved", {}});
        log.sync();
    }
    std::vector<Event> events = read_events(path);
    REQUIRE(events.size() == 4);
    CHECK(events[1].kind == "spike");
    CHECK(contains(events[1].message, "a \"quoted\"\nline \x01 "));
    CHECK(events[1].value == 4.5);
    CHECK(std::isnan(events[2].value.value()));
    CHECK_FALSE(events[3].value.has_value());
    {
        EventLog log(path, 2);
        log.write({2, "resume", "goes on", {}});
    }
    events = read_events(path);
    REQUIRE(events.size() == 4);
    CHECK(events[3].kind == "resume");

    write_text(path, R"({"step":1,"kind":"a","message":2})"
                     "\n");
    CHECK(problem_of([&] { read_events(path); }) == path.string() + ":1: key 'message': expected a string");
}

TEST_CASE("a full disk stops a log with an error and leaves whole lines") {
    const TemporaryDirectory directory;
    for (int where = 0; where < 8; ++where) {
        CAPTURE(where);
        const fs::path path = directory / std::to_string(where);
        const FaultCalls calls(where, FaultCalls::Fault::error);
        std::int64_t written = 0;
        const std::string problem = problem_of([&] {
            JsonLinesSink sink(path, 0, calls);
            for (std::int64_t step = 1; step <= 10; ++step, ++written)
                sink.write(record_of(step));
        });
        CHECK(contains(problem, "No space left on device"));
        if (where > 0) CHECK(read_metrics(path).size() == static_cast<std::size_t>(written));
    }
}

TEST_CASE("a process killed while it writes a line leaves a log that reads and goes on") {
    const TemporaryDirectory directory;
    for (int where = 1; where < 6; ++where) {
        CAPTURE(where);
        const fs::path path = directory / std::to_string(where);
        const int status = in_child_process([&] {
            const FaultCalls calls(where, FaultCalls::Fault::death);
            JsonLinesSink sink(path, 0, calls);
            for (std::int64_t step = 1; step <= 10; ++step)
                sink.write(record_of(step));
        });
        REQUIRE(status == 9);
        const std::vector<StepRecord> records = read_metrics(path);
        CHECK(records.size() == static_cast<std::size_t>(where - 1));
        JsonLinesSink sink(path, where - 1);
        sink.write(record_of(where));
        CHECK(read_metrics(path).size() == static_cast<std::size_t>(where));
    }
}
