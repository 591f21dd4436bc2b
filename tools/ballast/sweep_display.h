#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "display.h"

/// What a sweep shows while it runs.
struct SweepProgress {
    struct Run {
        std::string name;
        std::int64_t step = 0;
        std::int64_t steps = 0;
        std::optional<double> loss; ///< of that step
    };
    std::vector<Run> running;
    std::int64_t waiting = 0;
    std::int64_t done = 0;
    std::int64_t diverged = 0;
    std::int64_t failed = 0;
    std::optional<double> seconds_left;
};

/// On a terminal a live table at the bottom, with lines of what happens above it; elsewhere the lines alone.
class SweepDisplay {
public:
    explicit SweepDisplay(Terminal terminal, std::FILE* out = stdout) : terminal_(terminal), out_(out) {}
    ~SweepDisplay() { clear(); }

    bool is_live() const { return terminal_.live; }
    void line(std::string_view text);
    void show(const SweepProgress& progress);
    void clear();

private:
    std::string run_line(const SweepProgress::Run& run, std::size_t name_width, std::size_t width) const;

    Terminal terminal_;
    std::FILE* out_;
    std::vector<std::size_t> shown_; ///< columns of each line of the table that is on the screen
};
