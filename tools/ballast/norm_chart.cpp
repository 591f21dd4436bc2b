#include "norm_chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

#include "format.h"

namespace {

/// The shares of models that have norms.
std::vector<NormShare> with_norms(std::vector<NormShare> shares) {
    std::erase_if(shares, [](const NormShare& share) { return share.kind == "none"; });
    return shares;
}

double largest(const std::vector<NormShare>& shares) {
    double most = 1e-3;
    for (const NormShare& share : shares)
        most = std::max(most, share.share());
    return most;
}

/// A bar of `eighths` eighths of a column.
std::string bar(int eighths) {
    constexpr std::array kPartial = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    std::string text;
    for (; eighths >= 8; eighths -= 8)
        text += "█";
    return text + kPartial[static_cast<std::size_t>(eighths)];
}

} // namespace

std::string text_chart(const std::vector<NormShare>& shares) {
    constexpr double kColumns = 40;
    const std::vector<NormShare> shown = with_norms(shares);
    const double scale = 8 * kColumns / largest(shown);
    std::string text = "  share of a step\n";
    std::int64_t width = 0;
    for (const NormShare& share : shown) {
        const std::string label = share.width == width ? "" : std::to_string(share.width);
        width = share.width;
        text += format("  %6s  %-10s %s %.1f %%\n", label.c_str(), share.kind.c_str(),
                       bar(static_cast<int>(std::lround(scale * share.share()))).c_str(), 100 * share.share());
    }
    return text;
}

std::string svg_chart(const std::vector<NormShare>& shares) {
    constexpr double kLeft = 60, kTop = 40, kWidth = 520, kHeight = 300;
    // Okabe and Ito's colours, which colour-blind people tell apart.
    constexpr std::array kColours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"};
    const std::vector<NormShare> shown = with_norms(shares);
    std::vector<std::int64_t> widths;
    std::vector<std::string> kinds;
    std::map<std::string, std::string> points;
    for (const NormShare& share : shown) {
        if (std::find(widths.begin(), widths.end(), share.width) == widths.end()) widths.push_back(share.width);
        if (std::find(kinds.begin(), kinds.end(), share.kind) == kinds.end()) kinds.push_back(share.kind);
    }
    std::sort(widths.begin(), widths.end());
    // A grid of whole steps in percent, five or so.
    const double step = std::max(1.0, std::ceil(100 * largest(shown) / 5));
    const double top = step * std::ceil(100 * largest(shown) / step);
    const auto x_of = [&](std::int64_t width) {
        if (widths.size() < 2) return kLeft + kWidth / 2;
        const double low = std::log2(static_cast<double>(widths.front()));
        const double high = std::log2(static_cast<double>(widths.back()));
        return kLeft + kWidth * (std::log2(static_cast<double>(width)) - low) / (high - low);
    };
    const auto y_of = [&](double percent) { return kTop + kHeight * (1 - percent / top); };

    std::string svg = format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 400\" "
                             "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"720\" height=\"400\" "
                             "fill=\"white\"/>\n<text x=\"%.0f\" y=\"24\" font-size=\"15\">Norms' share of a training "
                             "step, by width of the model</text>\n",
                             kLeft);
    for (double percent = 0; percent <= top; percent += step)
        svg += format("<path d=\"M%.1f %.1fh%.1f\" stroke=\"#ddd\"/>\n<text x=\"%.1f\" y=\"%.1f\" "
                      "text-anchor=\"end\">%.0f %%</text>\n",
                      kLeft, y_of(percent), kWidth, kLeft - 8, y_of(percent) + 4, percent);
    for (const std::int64_t width : widths)
        svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%lld</text>\n", x_of(width),
                      kTop + kHeight + 20, static_cast<long long>(width));
    for (const NormShare& share : shown)
        points[share.kind] += format("%.1f,%.1f ", x_of(share.width), y_of(100 * share.share()));
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        const char* colour = kColours[i % kColours.size()];
        svg += format("<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n",
                      points[kinds[i]].c_str(), colour);
        svg += format("<text x=\"%.1f\" y=\"%.1f\" fill=\"%s\">%s</text>\n", kLeft + kWidth + 16,
                      kTop + 16 + 20 * static_cast<double>(i), colour, kinds[i].c_str());
    }
    return svg + "</svg>\n";
}
