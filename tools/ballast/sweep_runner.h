#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ballast/config/grid.h"
#include "ballast/lab/sweep.h"
#include "ballast/lab/sweep_table.h"
#include "child.h"
#include "sweep_display.h"

/// What the cells of a sweep may take of the machine.
struct SweepLimits {
    int processors = 1;
    int jobs = 0;      ///< runs at once; 0: as many as fit
    int threads = 0;   ///< of each run; 0: one while there are runs for all processors, more for the last ones
    double memory = 0; ///< bytes for all runs together
};

/// Runs the cells of a sweep as processes, those that have not ended yet, and keeps the table in the directory up to
/// date.
class SweepRunner {
public:
    /// `memory` has the bytes that each cell needs. Grid, directory and display outlive the runner.
    SweepRunner(const ballast::Grid& grid, const ballast::SweepDirectory& directory, const std::vector<double>& memory,
                const SweepLimits& limits, SweepDisplay& display);

    /// Until all cells have ended, or all that run have stopped after a signal. Returns an ExitStatus; runs that
    /// diverge are results. Throws IoError.
    int run();

    const std::vector<ballast::SweepRow>& rows() const { return rows_; } ///< in the order of the grid

private:
    using Clock = std::chrono::steady_clock;
    enum class State : std::uint8_t { waiting, running, ended, failed, stopped };
    struct Cell {
        const ballast::GridCell* cell = nullptr;
        const ballast::SweepRun* run = nullptr;
        double memory = 0;
        State state = State::waiting;
        std::unique_ptr<Child> child; ///< while it runs
        int threads = 0;
        int deaths = 0;         ///< processes that a signal has ended
        bool seen_busy = false; ///< another process worked on it
        std::int64_t step = 0;  ///< last one that is recorded
        std::optional<double> loss;
        double tokens_at_start = 0; ///< that were trained before this process began with it
    };

    void start_what_fits();
    int threads_for(const Cell& cell) const;
    void start(Cell& cell, int threads);
    void reap();
    void finish(Cell& cell, int status);
    bool read(Cell& cell);
    void fail(Cell& cell, const std::string& reason);
    void end(Cell& cell);
    void write_table() const;
    static void look_at(Cell& cell);
    void show();
    std::optional<double> seconds_left() const;
    ballast::SweepRow& row(const Cell& cell);
    std::int64_t count(State state) const;
    int processors_in_use() const;
    double memory_in_use() const;

    const ballast::Grid& grid_;
    const ballast::SweepDirectory& directory_;
    SweepLimits limits_;
    SweepDisplay& display_;
    std::vector<Cell> cells_;
    std::vector<ballast::SweepRow> rows_;
    Clock::time_point begin_;
    Clock::time_point last_shown_;
};
