#include "ballast/train/metrics.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>
#include <variant>

#include "ballast/base/error.h"
#include "json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void refuse_line(const fs::path& path, std::int64_t number, const std::string& what) {
    throw IoError(path.string() + ":" + std::to_string(number) + ": " + what);
}

/// The lines of a text that end with a line break, one after another.
class WholeLines {
public:
    explicit WholeLines(std::string_view text) : text_(text) {}

    bool next(std::string_view& line) {
        const std::size_t size = text_.substr(end_).find('\n');
        if (size == std::string_view::npos) return false;
        line = text_.substr(end_, size);
        end_ += size + 1;
        ++number_;
        return true;
    }

    std::int64_t number() const { return number_; }                      ///< of the last line, from 1
    std::int64_t end() const { return static_cast<std::int64_t>(end_); } ///< bytes up to it and its line break

private:
    std::string_view text_;
    std::size_t end_ = 0;
    std::int64_t number_ = 0;
};

constexpr const char* kWayOut = "; mend the file, or move it away to go on with a new one";

struct Kept {
    std::int64_t bytes = 0;
    std::int64_t step = 0;
};

Kept find_kept(const fs::path& path, std::int64_t last_step, const StepLog::Format& format) {
    Kept kept;
    if (last_step <= 0) return kept;
    const MappedFile file(path);
    WholeLines lines(file.text());
    std::string_view line;
    if (!format.header.empty()) {
        if (!lines.next(line)) return kept;
        if (line != format.header) refuse_line(path, 1, std::string("not the columns that are written now") + kWayOut);
        kept.bytes = lines.end();
    }
    std::int64_t damaged_line = 0;
    std::string damage;
    const auto found_damage = [&](std::string what) {
        if (damaged_line != 0) return;
        damaged_line = lines.number();
        damage = std::move(what);
    };
    while (lines.next(line)) {
        std::int64_t step = 0;
        try {
            step = format.step_of(line);
        } catch (const IoError& error) {
            found_damage(error.what());
            continue;
        }
        if (step > last_step) break;
        if (step < kept.step || (format.one_line_a_step && step == kept.step))
            found_damage("step " + std::to_string(step) + " after step " + std::to_string(kept.step));
        // Damage at the end is what a crash of the machine leaves, and is cut off; here something follows that is
        // part of the record.
        if (damaged_line != 0) refuse_line(path, damaged_line, damage + kWayOut);
        kept = {lines.end(), step};
    }
    return kept;
}

std::int64_t csv_step(std::string_view line) {
    std::int64_t step = 0;
    const auto [end, problem] = std::from_chars(line.data(), line.data() + line.size(), step);
    const auto commas = std::count(line.begin(), line.end(), ',');
    if (problem != std::errc() || step < 1 || end == line.data() + line.size() || *end != ',' ||
        commas != static_cast<std::ptrdiff_t>(kStepFields.size() - 1))
        throw IoError("not a row of " + std::to_string(kStepFields.size()) + " values that begins with a step");
    return step;
}

Event event_from_json(std::string_view line) {
    const auto json = parse_object<Json>(line);
    Event event;
    read_fields(json, event, kEventFields, Missing::refused);
    if (event.step < 0) throw IoError("key 'step': expected the number of a step");
    return event;
}

template <class Record>
void visit_records(const fs::path& path, Record (*read)(std::string_view),
                   const std::function<void(const Record&)>& visit) {
    const MappedFile file(path);
    WholeLines lines(file.text());
    std::string_view line;
    while (lines.next(line)) {
        Record record;
        try {
            record = read(line);
        } catch (const IoError& error) {
            refuse_line(path, lines.number(), error.what());
        }
        visit(record);
    }
}

template <class Record>
std::vector<Record> read_records(const fs::path& path, Record (*read)(std::string_view)) {
    std::vector<Record> records;
    visit_records<Record>(path, read, [&](const Record& record) { records.push_back(record); });
    return records;
}

} // namespace

StepLog::StepLog(const fs::path& path, std::int64_t last_step, const Format& format, const FileCalls& calls)
    : file_(path, calls) {
    const Kept kept = find_kept(path, last_step, format);
    kept_step_ = kept.step;
    if (kept.bytes < file_.size()) file_.truncate(kept.bytes);
    if (kept.bytes == 0 && !format.header.empty()) file_.append_line(format.header);
}

JsonLinesSink::JsonLinesSink(const fs::path& path, std::int64_t last_step, const FileCalls& calls)
    : log_(path, last_step,
           {.header = "",
            .step_of = [](std::string_view line) { return step_record_from_json(line).step; },
            .one_line_a_step = true},
           calls) {}

CsvSink::CsvSink(const fs::path& path, std::int64_t last_step, const FileCalls& calls)
    : log_(path, last_step, {.header = step_csv_header(), .step_of = csv_step, .one_line_a_step = true}, calls) {}

void visit_metrics(const fs::path& path, const std::function<void(const StepRecord&)>& visit) {
    visit_records(path, step_record_from_json, visit);
}

std::vector<StepRecord> read_metrics(const fs::path& path) { return read_records(path, step_record_from_json); }

EventLog::EventLog(const fs::path& path, std::int64_t last_step, const FileCalls& calls)
    : log_(path, last_step,
           {.header = "",
            .step_of = [](std::string_view line) { return event_from_json(line).step; },
            .one_line_a_step = false},
           calls) {}

void EventLog::write(const Event& event) {
    Json json;
    write_fields(json, event, kEventFields);
    log_.append(one_line(json));
}

std::vector<Event> read_events(const fs::path& path) { return read_records(path, event_from_json); }

LayerLog::LayerLog(const fs::path& path, std::int64_t last_step, const FileCalls& calls)
    : log_(path, last_step,
           {.header = "",
            .step_of = [](std::string_view line) { return layer_record_from_json(line).step; },
            .one_line_a_step = false},
           calls) {}

void LayerLog::write(std::span<const LayerRecord> records) {
    lines_.clear();
    for (const LayerRecord& record : records) {
        if (!lines_.empty()) lines_ += '\n';
        lines_ += to_json(record);
    }
    if (!lines_.empty()) log_.append(lines_);
}

std::vector<LayerRecord> read_layers(const fs::path& path) { return read_records(path, layer_record_from_json); }

} // namespace ballast
