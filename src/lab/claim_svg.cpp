#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "ballast/base/text.h"
#include "ballast/lab/claim_record.h"

namespace ballast {

namespace {

// Okabe & Ito's colours, which colour-blind eyes tell apart; each line has a mark of its own, too.
constexpr auto kColours = std::to_array<std::string_view>(
    {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00", "#7f7f7f"});
constexpr auto kDashes = std::to_array<std::string_view>({"none", "6 3", "2 3", "8 3 2 3"});

constexpr double kWidth = 640, kHeight = 300, kLeft = 70, kRight = 190, kTop = 34, kBottom = 44;

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '&')
            out += "&amp;";
        else if (c == '<')
            out += "&lt;";
        else if (c == '>')
            out += "&gt;";
        else
            out += c;
    }
    return out;
}

std::string decimals(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    return text;
}

/// An axis from data to pixels.
class Axis {
public:
    Axis(bool logarithmic, double first, double last) : log_(logarithmic), first_(first), last_(last) {}

    bool takes(double value) const { return std::isfinite(value) && (!log_ || value > 0); }
    void add(double value) {
        low_ = std::min(low_, inner(value));
        high_ = std::max(high_, inner(value));
    }
    bool empty() const { return low_ > high_; }
    double at(double value) const { return first_ + (last_ - first_) * (inner(value) - low_) / range(); }

    /// Values with a label.
    std::vector<double> ticks() const {
        const double step = log_ ? std::max(1.0, std::ceil(range() / 5)) : round_step();
        std::vector<double> found;
        for (double at = std::ceil(low_ / step - 1e-9) * step; at <= low_ + range() * (1 + 1e-9); at += step)
            found.push_back(log_ ? std::pow(10, at) : std::abs(at) < step * 1e-9 ? 0 : at);
        if (found.size() >= 2) return found;
        return {log_ ? std::pow(10, low_) : low_, log_ ? std::pow(10, low_ + range()) : low_ + range()};
    }

private:
    double inner(double value) const { return log_ ? std::log10(value) : value; }
    double range() const { return high_ > low_ ? high_ - low_ : 1; }
    double round_step() const {
        const double decade = std::pow(10, std::floor(std::log10(range() / 4)));
        const double share = range() / 4 / decade;
        return decade * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
    }

    bool log_;
    double first_, last_;
    double low_ = std::numeric_limits<double>::infinity(), high_ = -std::numeric_limits<double>::infinity();
};

std::string line(double x1, double y1, double x2, double y2) {
    return "<line x1=\"" + decimals(x1) + "\" y1=\"" + decimals(y1) + "\" x2=\"" + decimals(x2) + "\" y2=\"" +
           decimals(y2) + "\" stroke=\"#999\" stroke-width=\"0.5\"/>\n";
}

std::string label(double x, double y, std::string_view anchor, std::string_view text) {
    return "<text x=\"" + decimals(x) + "\" y=\"" + decimals(y) + "\" text-anchor=\"" + std::string(anchor) + "\">" +
           escaped(text) + "</text>\n";
}

std::string tick_text(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.5g", value);
    return text;
}

} // namespace

std::string claim_svg(const ClaimChart& chart) {
    Axis x(chart.log_x, kLeft, kWidth - kRight), y(chart.log_y, kHeight - kBottom, kTop);
    const auto shows = [&](const std::pair<double, double>& point) {
        return x.takes(point.first) && y.takes(point.second);
    };
    for (const ClaimSeries& series : chart.series)
        for (const auto& point : series.points)
            if (shows(point)) {
                x.add(point.first);
                y.add(point.second);
            }
    if (x.empty()) return "";
    std::string svg = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 640 300\" width=\"640\" height=\"300\" "
                      "font-family=\"sans-serif\" font-size=\"11\" fill=\"#777\" role=\"img\">\n<title>" +
                      escaped(chart.title) + "</title>\n";
    svg += label(kLeft, kTop - 16, "start", chart.title + " (" + chart.y + ")");
    svg += label((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", chart.x);
    for (const double tick : x.ticks()) {
        svg += line(x.at(tick), kTop, x.at(tick), kHeight - kBottom);
        svg += label(x.at(tick), kHeight - kBottom + 15, "middle", tick_text(tick));
    }
    for (const double tick : y.ticks()) {
        svg += line(kLeft, y.at(tick), kWidth - kRight, y.at(tick));
        svg += label(kLeft - 6, y.at(tick) + 4, "end", tick_text(tick));
    }
    double legend = kTop + 6;
    for (std::size_t i = 0; i < chart.series.size(); ++i) {
        const std::string colour(kColours[i % kColours.size()]);
        const std::string stroke = "stroke=\"" + colour + "\" stroke-width=\"1.5\" fill=\"none\" stroke-dasharray=\"" +
                                   std::string(kDashes[(i / 2 + i / kColours.size()) % kDashes.size()]) + "\"";
        std::string points, marks;
        const bool sparse = chart.series[i].points.size() <= 20;
        for (const auto& point : chart.series[i].points) {
            if (!shows(point)) continue;
            const std::string px = decimals(x.at(point.first)), py = decimals(y.at(point.second));
            points += (points.empty() ? "" : " ") + px + "," + py;
            if (sparse) marks += "<circle cx=\"" + px + "\" cy=\"" + py + "\" r=\"2.5\" fill=\"" + colour + "\"/>\n";
        }
        svg += "<polyline points=\"" + points + "\" " + stroke + "/>\n" + marks;
        svg += "<polyline points=\"" + decimals(kWidth - kRight + 10) + "," + decimals(legend) + " " +
               decimals(kWidth - kRight + 34) + "," + decimals(legend) + "\" " + stroke + "/>\n";
        svg += label(kWidth - kRight + 40, legend + 4, "start", chart.series[i].name);
        legend += 17;
    }
    return svg + "</svg>\n";
}

} // namespace ballast
