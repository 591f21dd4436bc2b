#include "display.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sys/ioctl.h>
#include <unistd.h>
#include <vector>

#include "format.h"

using namespace ballast;

namespace {

std::string_view environment(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

bool is_terminal(std::FILE* stream) {
    return ::isatty(::fileno(stream)) == 1 && environment("TERM") != "dumb" && !environment("TERM").empty();
}

/// https://no-color.org: any value but the empty one.
bool may_color() { return environment("NO_COLOR").empty(); }

bool is_utf8_locale() {
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
        const std::string_view value = environment(name);
        if (value.empty()) continue;
        return value.find("UTF-8") != std::string_view::npos || value.find("utf8") != std::string_view::npos;
    }
    return false;
}

constexpr auto kRedrawInterval = std::chrono::milliseconds(100);
constexpr double kFading = 0.95;

} // namespace

Terminal Terminal::of_output() {
    Terminal terminal;
    terminal.live = is_terminal(stdout);
    terminal.color = terminal.live && may_color();
    terminal.unicode = terminal.live && is_utf8_locale();
    return terminal;
}

std::size_t terminal_width() {
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
    return size.ws_col;
}

std::string progress_bar(const Terminal& terminal, double share, std::size_t width) {
    const auto filled = static_cast<std::size_t>(share * static_cast<double>(width));
    const std::string_view full = terminal.unicode ? "━" : "=";
    const std::string_view empty = terminal.unicode ? "─" : "-";
    std::string done, left;
    for (std::size_t i = 0; i < width; ++i)
        (i < filled ? done : left) += i < filled ? full : empty;
    if (!terminal.color) return done + left;
    return "\x1b[36m" + done + "\x1b[0;2m" + left + "\x1b[0m";
}

std::size_t shown_columns(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\x1b')
            i = text.find('m', i);
        else
            plain += text[i];
    }
    return columns_of(plain);
}

Log stderr_log() { return Log::to_stderr(is_terminal(stderr) && may_color()); }

void Display::Average::add(double value) {
    if (!std::isfinite(value)) return;
    sum_ = kFading * sum_ + (1 - kFading) * value;
    weight_ = kFading * weight_ + (1 - kFading);
}

std::optional<double> Display::Average::value() const {
    if (weight_ == 0) return {};
    return sum_ / weight_;
}

void Display::begin(const TrainConfig& train, std::int64_t done) {
    train_ = train;
    first_ = step_ = done;
    after_first_ = Clock::now();
    draw(true);
}

void Display::write(const StepRecord& record) {
    step_ = record.step;
    loss_.add(record.loss);
    tokens_per_second_.add(record.tokens_per_second);
    if (step_ == first_ + 1) after_first_ = Clock::now();
    if (record.val_loss) val_loss_ = record.val_loss;

    const bool finite = std::isfinite(record.loss + record.gradient_norm);
    const bool plain = !terminal_.live && (step_ == 1 || step_ == train_.steps || step_ % train_.log_every == 0);
    if (plain || record.val_loss || !finite) line(step_line(record));
    draw(record.val_loss.has_value());
}

void Display::event(const Event& event) {
    const std::string text = format("step %lld: ", static_cast<long long>(event.step)) + event.message;
    line(terminal_.color ? "\x1b[33m" + text + "\x1b[0m" : text);
    draw(true);
}

std::string Display::step_line(const StepRecord& record) const {
    const int digits = static_cast<int>(std::to_string(train_.steps).size());
    std::string text =
        format("step %*lld/%lld  loss %.4f  lr %.2e  grad %.3g  %s tok/s", digits, static_cast<long long>(record.step),
               static_cast<long long>(train_.steps), unsigned_nan(record.loss), record.lr,
               unsigned_nan(record.gradient_norm), short_count(record.tokens_per_second).c_str());
    if (record.val_loss) text += format("  val %.4f", unsigned_nan(*record.val_loss));
    if (record.val_accuracy) text += format("  right %.1f %%", 100 * *record.val_accuracy);
    return text;
}

std::optional<double> Display::seconds_left() const {
    const std::int64_t timed = step_ - first_ - 1;
    if (timed < 1) return {};
    const double spent = std::chrono::duration<double>(Clock::now() - after_first_).count();
    return spent / static_cast<double>(timed) * static_cast<double>(train_.steps - step_);
}

std::string Display::live_line(std::size_t width) const {
    // What does not fit is left out, from the end; what remains of the line goes to the bar.
    std::vector<std::string> parts;
    parts.push_back(std::to_string(step_) + "/" + std::to_string(train_.steps));
    if (const auto loss = loss_.value()) parts.push_back(format("loss %.3f", *loss));
    if (const auto seconds = seconds_left()) parts.push_back("ETA " + duration(*seconds));
    if (val_loss_) parts.push_back(format("val %.3f", *val_loss_));
    if (const auto speed = tokens_per_second_.value()) parts.push_back(short_count(*speed) + " tok/s");

    constexpr std::size_t kShortestBar = 8;
    constexpr std::size_t kLongestBar = 30;
    std::string text;
    for (const std::string& part : parts) {
        const std::size_t gap = text.empty() ? 0 : 2;
        if (columns_of(text) + gap + columns_of(part) > width) break;
        text += std::string(gap, ' ') + part;
    }
    const std::size_t used = columns_of(text) + 2;
    if (used + kShortestBar > width) return text;
    const double share = train_.steps > 0 ? static_cast<double>(step_) / static_cast<double>(train_.steps) : 1;
    return progress_bar(terminal_, share, std::min(width - used, kLongestBar)) + "  " + text;
}

void Display::draw(bool now) {
    if (!terminal_.live || reader_left_) return;
    const Clock::time_point time = Clock::now();
    if (!now && shown_ > 0 && time - last_drawn_ < kRedrawInterval) return;
    last_drawn_ = time;
    const std::size_t width = terminal_width();
    clear();
    // The last column stays free: some terminals wrap as soon as it is filled.
    const std::string text = live_line(width > 1 ? width - 1 : 1);
    put(text);
    shown_ = shown_columns(text);
}

void Display::clear() {
    if (shown_ == 0) return;
    // A terminal that has become narrower since has wrapped the line over several rows.
    const std::size_t rows_above = (shown_ - 1) / terminal_width();
    std::string erase = "\r";
    if (rows_above > 0) erase += format("\x1b[%zuA", rows_above);
    shown_ = 0;
    put(erase + "\x1b[J");
}

void Display::line(std::string_view text) {
    clear();
    put(std::string(text) + "\n");
}

void Display::put(std::string_view text) {
    if (reader_left_) return;
    std::fwrite(text.data(), 1, text.size(), stdout);
    if (std::fflush(stdout) == 0) return;
    reader_left_ = true; // or the disk is full: training goes on, and the end of the program tells
    if (errno == EPIPE) std::clearerr(stdout);
}

Log Display::log() {
    return Log::to([this, out = stderr_log()](LogLevel level, std::string_view message) {
        const bool redraw = shown_ > 0;
        clear();
        switch (level) {
        case LogLevel::info: out.info(message); break;
        case LogLevel::warning: out.warn(message); break;
        case LogLevel::error: out.error(message); break;
        }
        if (redraw) draw(true);
    });
}
