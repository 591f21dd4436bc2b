#include "sweep_runner.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <thread>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/step_record.h"
#include "command.h"
#include "format.h"
#include "signals.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

constexpr auto kPause = std::chrono::milliseconds(20);
constexpr auto kShowInterval = std::chrono::milliseconds(250);
constexpr int kMostDeaths = 3; ///< of a cell's processes, before it counts as failed
constexpr int kFirstSignal = 128;
constexpr std::size_t kLongestReason = 300; ///< of a failure, bytes

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

double tokens_per_step(const Config& config) {
    return static_cast<double>(config.train.batch) * static_cast<double>(config.model.context);
}

/// Whether another process works on a run: one that a killed sweep has left and that is about to save.
bool is_busy(const fs::path& run) {
    if (!is_there(run)) return false;
    try {
        RunDirectory::open_for_training(run);
        return false;
    } catch (const UsageError&) {
        return true;
    }
}

std::string last_line(const fs::path& file) {
    const std::string text = is_there(file) ? read_file(file) : "";
    const std::size_t end = text.find_last_not_of('\n');
    if (end == std::string::npos) return "it printed nothing";
    const std::size_t begin = text.rfind('\n', end) + 1;
    return printable(text.substr(begin, end - begin + 1), kLongestReason);
}

/// The last whole line of a file that another process writes, and may cut, without reading all that is before it.
std::string tail_line(const fs::path& path) {
    constexpr std::streamoff kLongestTail = 4096;
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const std::streamoff size = file.tellg();
    file.seekg(std::max<std::streamoff>(0, size - kLongestTail));
    const std::string tail{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const std::size_t end = tail.rfind('\n');
    if (end == std::string::npos) return "";
    const std::size_t before = end == 0 ? std::string::npos : tail.rfind('\n', end - 1);
    const std::size_t begin = before == std::string::npos ? 0 : before + 1;
    return tail.substr(begin, end - begin);
}

} // namespace

SweepRunner::SweepRunner(const Grid& grid, const SweepDirectory& directory, const std::vector<double>& memory,
                         const SweepLimits& limits, SweepDisplay& display)
    : grid_(grid), directory_(directory), limits_(limits), display_(display) {
    for (std::size_t i = 0; i < grid.cells.size(); ++i) {
        Cell& cell = cells_.emplace_back();
        cell.cell = &grid.cells[i];
        cell.run = &directory.runs()[i];
        cell.memory = memory[i];
        rows_.push_back({*cell.run, {}});
    }
}

int SweepRunner::run() {
    const std::atomic<bool>& interrupt = watch_signals();
    begin_ = Clock::now();
    for (Cell& cell : cells_) {
        if (read(cell) && row(cell).result.has_ended()) cell.state = State::ended;
        look_at(cell);
        cell.tokens_at_start = static_cast<double>(cell.step) * tokens_per_step(cell.cell->config);
    }
    if (const std::int64_t ended = count(State::ended); ended > 0)
        display_.line(std::to_string(ended) + " of " + std::to_string(cells_.size()) + " runs have ended before");
    write_table();
    while (count(State::waiting) + count(State::running) > 0) {
        if (interrupt) {
            for (Cell& cell : cells_) {
                if (cell.state == State::running) cell.child->stop();
                if (cell.state == State::waiting) cell.state = State::stopped;
            }
        }
        reap();
        if (!interrupt) start_what_fits();
        show();
        std::this_thread::sleep_for(kPause);
    }
    display_.clear();
    if (count(State::stopped) > 0) return kInterrupted;
    return count(State::failed) > 0 ? kFailure : kDone;
}

void SweepRunner::start_what_fits() {
    for (Cell& cell : cells_) {
        if (cell.state != State::waiting) continue;
        if (const int threads = threads_for(cell); threads > 0) start(cell, threads);
    }
}

/// With how many threads a cell may start now; 0: not now.
int SweepRunner::threads_for(const Cell& cell) const {
    const std::int64_t running = count(State::running);
    const std::int64_t jobs = limits_.jobs > 0 ? limits_.jobs : limits_.processors;
    const int processors = limits_.processors - processors_in_use();
    const double memory = limits_.memory - memory_in_use();
    if (running >= jobs || (running > 0 && cell.memory > memory)) return 0;
    if (limits_.jobs == 0 && running > 0 && processors < std::max(1, limits_.threads)) return 0;
    if (limits_.threads > 0) return limits_.threads;
    // One thread each is the most throughput; the processors that are left when few runs are go to these.
    const std::int64_t fit = std::max<std::int64_t>(1, static_cast<std::int64_t>(memory / cell.memory));
    const std::int64_t sharing = std::min({count(State::waiting), jobs - running, fit});
    return std::max(1, processors / static_cast<int>(sharing));
}

void SweepRunner::start(Cell& cell, int threads) {
    const fs::path& run = cell.run->path;
    if (!read(cell)) return;
    if (is_busy(run)) {
        if (!cell.seen_busy) display_.line(cell.run->name + ": another process still works on it; waiting for its end");
        cell.seen_busy = true;
        return;
    }
    if (row(cell).result.has_ended()) return end(cell);
    std::vector<std::string> arguments;
    if (is_there(run))
        arguments = {"resume", run.string()};
    else
        arguments = {"train", directory_.config_path(*cell.run).string(), "--out", run.string()};
    arguments.insert(arguments.end(), {"--threads", std::to_string(threads)});
    cell.child = std::make_unique<Child>(arguments, directory_.log_path(*cell.run));
    cell.threads = threads;
    cell.state = State::running;
}

void SweepRunner::reap() {
    for (Cell& cell : cells_) {
        if (cell.state != State::running) continue;
        if (const std::optional<int> status = cell.child->poll()) finish(cell, *status);
    }
}

void SweepRunner::finish(Cell& cell, int status) {
    cell.child.reset();
    cell.threads = 0;
    if (!read(cell)) return;
    if (row(cell).result.has_ended()) return end(cell);
    cell.state = State::waiting;
    if (status == kInterrupted || is_busy(cell.run->path)) return;
    if (status > kFirstSignal && ++cell.deaths < kMostDeaths) {
        display_.line(cell.run->name + ": ended by signal " + std::to_string(status - kFirstSignal) +
                      "; going on with it");
        return;
    }
    fail(cell, last_line(directory_.log_path(*cell.run)));
}

/// Reads what the run has come to. False when it cannot be read: no reason to keep the others from going on.
bool SweepRunner::read(Cell& cell) {
    try {
        row(cell) = read_sweep_row(*cell.run, cell.cell->config);
        return true;
    } catch (const Error& error) {
        row(cell).result = RunResult();
        row(cell).result.state = RunState::unfinished;
        fail(cell, printable(error.what(), kLongestReason));
        return false;
    }
}

void SweepRunner::fail(Cell& cell, const std::string& reason) {
    cell.state = State::failed;
    display_.line(cell.run->name + ": failed: " + reason);
}

void SweepRunner::end(Cell& cell) {
    cell.state = State::ended;
    const RunResult& result = row(cell).result;
    const RunSummary& summary = result.summary;
    cell.step = summary.step;
    write_table();
    std::string text = format("%lld/%zu ", static_cast<long long>(count(State::ended)), cells_.size()) +
                       cell.run->name + ": " + summary.verdict + ", step " + std::to_string(summary.step);
    if (result.final_loss) text += format(result.by_validation ? ", val loss %.4f" : ", loss %.4f", *result.final_loss);
    display_.line(text + ", " + duration(summary.seconds));
}

void SweepRunner::write_table() const {
    write_file_atomic(directory_.csv_path(), sweep_csv(grid_.axes, rows_));
    write_file_atomic(directory_.json_path(), sweep_json(grid_.name, grid_.axes, rows_));
}

/// Where the run is, by the last record that it has written.
void SweepRunner::look_at(Cell& cell) {
    try {
        const std::string line = tail_line(cell.run->path / "metrics.jsonl");
        if (line.empty()) return;
        const StepRecord record = step_record_from_json(line);
        cell.step = record.step;
        cell.loss = record.loss;
    } catch (const IoError&) {
        return; // a damaged record is the run's own to report
    }
}

void SweepRunner::show() {
    if (!display_.is_live() || Clock::now() - last_shown_ < kShowInterval) return;
    last_shown_ = Clock::now();
    SweepProgress progress;
    for (Cell& cell : cells_) {
        if (cell.state != State::running) continue;
        look_at(cell);
        progress.running.push_back({cell.run->name, cell.step, cell.cell->config.train.steps, cell.loss});
    }
    progress.waiting = count(State::waiting) + count(State::stopped);
    progress.failed = count(State::failed);
    for (const SweepRow& row : rows_) {
        if (row.result.state == RunState::done) ++progress.done;
        if (row.result.state == RunState::diverged) ++progress.diverged;
    }
    progress.seconds_left = seconds_left();
    display_.show(progress);
}

/// By the tokens that are left and those that were trained since the sweep began.
std::optional<double> SweepRunner::seconds_left() const {
    double trained = 0, left = 0;
    for (const Cell& cell : cells_) {
        const double per_step = tokens_per_step(cell.cell->config);
        trained += static_cast<double>(cell.step) * per_step - cell.tokens_at_start;
        if (cell.state == State::waiting || cell.state == State::running)
            left += static_cast<double>(cell.cell->config.train.steps - cell.step) * per_step;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
    if (trained <= 0) return {};
    return seconds * left / trained;
}

SweepRow& SweepRunner::row(const Cell& cell) { return rows_[static_cast<std::size_t>(&cell - cells_.data())]; }

std::int64_t SweepRunner::count(State state) const {
    return std::count_if(cells_.begin(), cells_.end(), [&](const Cell& cell) { return cell.state == state; });
}

int SweepRunner::processors_in_use() const {
    int threads = 0;
    for (const Cell& cell : cells_)
        threads += cell.threads;
    return threads;
}

double SweepRunner::memory_in_use() const {
    double bytes = 0;
    for (const Cell& cell : cells_)
        if (cell.state == State::running) bytes += cell.memory;
    return bytes;
}
