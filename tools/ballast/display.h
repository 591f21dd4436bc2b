#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ballast/base/log.h"
#include "ballast/config/config.h"
#include "ballast/train/metrics.h"

/// What can be drawn on a stream.
struct Terminal {
    bool live = false;    ///< a terminal that can move its cursor: lines may be redrawn
    bool color = false;   ///< and show colours, which NO_COLOR forbids
    bool unicode = false; ///< and more than ASCII

    /// Of standard output.
    static Terminal of_output();
};

/// Columns of the terminal that standard output is; 80 where it is none.
std::size_t terminal_width();

/// A bar of `width` columns whose part `share`, 0 to 1, is full.
std::string progress_bar(const Terminal& terminal, double share, std::size_t width);

/// Columns that a text takes whose colours take none.
std::size_t shown_columns(std::string_view text);

/// Standard error with coloured prefixes where it is a terminal that may have colours.
ballast::Log stderr_log();

/// The terminal as a sink of training: on a terminal one live line at the bottom, with what happens above it;
/// elsewhere plain lines, every `train.log_every` steps and at each evaluation. A reader that has left does not stop
/// the training.
class Display final : public ballast::MetricsSink {
public:
    explicit Display(Terminal terminal) : terminal_(terminal) {}
    ~Display() override { clear(); }

    /// Called before the first step. `done` steps of the run have been made already.
    void begin(const ballast::TrainConfig& train, std::int64_t done);
    void write(const ballast::StepRecord& record) override;
    void event(const ballast::Event& event) override;
    /// A line of standard output above the live one.
    void line(std::string_view text);
    /// Messages of the library, on standard error and above the live line.
    ballast::Log log();
    /// Takes the live line away.
    void clear();

private:
    using Clock = std::chrono::steady_clock;

    /// An average in which the past fades, unbiased from the first value on; values that are not finite are left out.
    class Average {
    public:
        void add(double value);
        std::optional<double> value() const;

    private:
        double sum_ = 0;
        double weight_ = 0;
    };

    void draw(bool now);
    void put(std::string_view text);
    std::string live_line(std::size_t width) const;
    std::string step_line(const ballast::StepRecord& record) const;
    std::optional<double> seconds_left() const;

    Terminal terminal_;
    ballast::TrainConfig train_;
    std::int64_t first_ = 0; ///< steps that were made before this process
    std::int64_t step_ = 0;
    Clock::time_point after_first_; ///< the first step is slow: memory is touched for the first time
    Clock::time_point last_drawn_;
    Average loss_;
    Average tokens_per_second_;
    std::optional<double> val_loss_;
    std::size_t shown_ = 0;    ///< columns of the live line that is on the screen; 0: none
    bool reader_left_ = false; ///< standard output cannot be written any more
};
