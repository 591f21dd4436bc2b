#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/base/file.h"
#include "ballast/train/event.h"
#include "ballast/train/layer_record.h"
#include "ballast/train/step_record.h"

// The records of a run: text files that grow by one line a step or event. A line reaches the operating system before
// write() returns, so a killed run is readable up to its last whole line. A run that goes on from the checkpoint of
// step k opens its records at step k, which drops what the unfinished stretch behind the checkpoint had written: the
// files look as if the run had never been interrupted. For that to hold, write everything about step k and call sync()
// before saving the checkpoint of step k.

namespace ballast {

/// Takes what a training step reports.
class MetricsSink {
public:
    MetricsSink() = default;
    virtual ~MetricsSink() = default;
    MetricsSink(const MetricsSink&) = delete;
    MetricsSink& operator=(const MetricsSink&) = delete;

    virtual void write(const StepRecord& record) = 0;
    /// What begins with the step whose record was written last.
    virtual void event(const Event& /*event*/) {}
    /// Makes what was written survive a crash of the machine.
    virtual void sync() {}
};

/// A file of lines that each belong to a step, in the order of steps.
class StepLog {
public:
    struct Format {
        std::string header; ///< the first line; empty: none
        /// The step that a line belongs to. Throws IoError, saying what is wrong, for what is not a whole line.
        std::function<std::int64_t(std::string_view)> step_of;
        bool one_line_a_step = false;
    };

    /// Opens the file, created when missing, and keeps exactly its whole lines of steps up to `last_step`; 0 starts
    /// anew. Dropped are the lines of later steps and what a dying process or machine left unfinished at the end.
    /// Throws IoError with path and line for damage in the middle, with good lines to be kept after it.
    StepLog(const std::filesystem::path& path, std::int64_t last_step, const Format& format,
            const FileCalls& calls = kSystemCalls);

    void append(std::string_view line) { file_.append_line(line); }
    void sync() { file_.sync(); }

    /// Step of the last line that was kept at opening, 0 when none was.
    std::int64_t kept_step() const { return kept_step_; }

private:
    AppendFile file_;
    std::int64_t kept_step_ = 0;
};

/// metrics.jsonl: a StepRecord a line, as to_json() writes it.
class JsonLinesSink final : public MetricsSink {
public:
    /// See StepLog.
    explicit JsonLinesSink(const std::filesystem::path& path, std::int64_t last_step = 0,
                           const FileCalls& calls = kSystemCalls);
    void write(const StepRecord& record) override { log_.append(to_json(record)); }
    void sync() override { log_.sync(); }
    std::int64_t kept_step() const { return log_.kept_step(); }

private:
    StepLog log_;
};

/// metrics.csv: a line of column names, then a StepRecord a line.
class CsvSink final : public MetricsSink {
public:
    /// See StepLog. Throws IoError, too, when the file has other columns.
    explicit CsvSink(const std::filesystem::path& path, std::int64_t last_step = 0,
                     const FileCalls& calls = kSystemCalls);
    void write(const StepRecord& record) override { log_.append(to_csv(record)); }
    void sync() override { log_.sync(); }
    std::int64_t kept_step() const { return log_.kept_step(); }

private:
    StepLog log_;
};

/// The records of a metrics.jsonl, one after another. An unfinished last line is left out; throws IoError with path and
/// line for any other line that is not a record.
void visit_metrics(const std::filesystem::path& path, const std::function<void(const StepRecord&)>& visit);
/// All of them.
std::vector<StepRecord> read_metrics(const std::filesystem::path& path);

/// events.jsonl: an Event a line, any number of them for a step.
class EventLog {
public:
    /// See StepLog.
    explicit EventLog(const std::filesystem::path& path, std::int64_t last_step = 0,
                      const FileCalls& calls = kSystemCalls);
    void write(const Event& event);
    void sync() { log_.sync(); }

private:
    StepLog log_;
};

/// All events of an events.jsonl, as read_metrics() reads records.
std::vector<Event> read_events(const std::filesystem::path& path);

/// layers.jsonl: a LayerRecord a line, those of a probed step one after another.
class LayerLog {
public:
    /// See StepLog.
    explicit LayerLog(const std::filesystem::path& path, std::int64_t last_step = 0,
                      const FileCalls& calls = kSystemCalls);
    /// The records of one step.
    void write(std::span<const LayerRecord> records);
    void sync() { log_.sync(); }

private:
    StepLog log_;
    std::string lines_;
};

/// All records of a layers.jsonl, as read_metrics() reads records.
std::vector<LayerRecord> read_layers(const std::filesystem::path& path);

} // namespace ballast
