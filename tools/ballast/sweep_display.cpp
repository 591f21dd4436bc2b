#include "sweep_display.h"

#include <algorithm>
#include <cstdio>

#include "format.h"

namespace {

constexpr std::size_t kMostRuns = 12; ///< that have a line

std::string summary_line(const SweepProgress& progress) {
    std::string text = std::to_string(progress.running.size()) + " running, " + std::to_string(progress.waiting) +
                       " waiting, " + std::to_string(progress.done) + " done, " + std::to_string(progress.diverged) +
                       " diverged";
    if (progress.failed > 0) text += ", " + std::to_string(progress.failed) + " failed";
    if (progress.seconds_left) text += ", ETA " + duration(*progress.seconds_left);
    return text;
}

} // namespace

std::string SweepDisplay::run_line(const SweepProgress::Run& run, std::size_t name_width, std::size_t width) const {
    constexpr std::size_t kBar = 16;
    std::string text = run.name + std::string(name_width - std::min(name_width, columns_of(run.name)), ' ');
    const std::string numbers =
        format("  %lld/%lld", static_cast<long long>(run.step), static_cast<long long>(run.steps)) +
        (run.loss ? format("  loss %.3f", *run.loss) : "");
    if (text.size() + 2 + kBar + numbers.size() <= width) {
        const double share = run.steps > 0 ? static_cast<double>(run.step) / static_cast<double>(run.steps) : 1;
        return text + "  " + progress_bar(terminal_, share, kBar) + numbers;
    }
    text += numbers;
    return text.substr(0, width);
}

void SweepDisplay::show(const SweepProgress& progress) {
    if (!terminal_.live) return;
    // The last column stays free: some terminals wrap as soon as it is filled.
    const std::size_t width = std::max<std::size_t>(2, terminal_width()) - 1;
    std::vector<std::string> lines;
    std::size_t name_width = 0;
    for (const SweepProgress::Run& run : progress.running)
        name_width = std::max(name_width, columns_of(run.name));
    for (const SweepProgress::Run& run : progress.running) {
        if (lines.size() == kMostRuns) break;
        lines.push_back(run_line(run, name_width, width));
    }
    if (progress.running.size() > kMostRuns)
        lines.push_back("and " + std::to_string(progress.running.size() - kMostRuns) + " more");
    lines.push_back(summary_line(progress).substr(0, width));
    clear();
    for (const std::string& line : lines) {
        std::fputs((line + "\n").c_str(), out_);
        shown_.push_back(shown_columns(line));
    }
    std::fflush(out_);
}

void SweepDisplay::clear() {
    if (shown_.empty()) return;
    // A terminal that has become narrower since has wrapped lines over several rows.
    std::size_t rows = 0;
    for (const std::size_t columns : shown_)
        rows += 1 + (columns > 0 ? (columns - 1) / terminal_width() : 0);
    shown_.clear();
    std::fputs(format("\r\x1b[%zuA\x1b[J", rows).c_str(), out_);
    std::fflush(out_);
}

void SweepDisplay::line(std::string_view text) {
    clear();
    std::fputs((std::string(text) + "\n").c_str(), out_);
    std::fflush(out_);
}
