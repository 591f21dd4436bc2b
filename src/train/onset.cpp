#include "ballast/train/onset.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <tuple>
#include <vector>

#include "ballast/base/text.h"
#include "ballast/train/stability.h"

namespace ballast {

namespace {

constexpr std::size_t kFewestProbes = 3;
constexpr std::size_t kMostProbes = 32;
constexpr double kDeviations = 8;
constexpr double kFactor = 2;

/// One statistic of one place, as the probes go by.
struct Series {
    std::deque<double> calm;
    std::optional<Onset> out; ///< since when it has been out of its range

    void add(const LayerRecord& record, std::string_view statistic, double value, bool may_leave) {
        const bool falls = statistic == "attention_entropy";
        if (may_leave && calm.size() >= kFewestProbes) {
            const Centre centre = centre_of({calm.begin(), calm.end()});
            const double rise =
                std::max((kFactor - 1) * std::abs(centre.median), kDeviations * kDeviation * centre.mad);
            const bool outside =
                !std::isfinite(value) || (falls ? value < centre.median / kFactor : value > centre.median + rise);
            if (outside) {
                if (!out)
                    out = Onset{record.step, record.layer, record.site, std::string(statistic), value, centre.median};
                return;
            }
        }
        out.reset();
        if (!std::isfinite(value)) return;
        calm.push_back(value);
        if (calm.size() > kMostProbes) calm.pop_front();
    }
};

/// How far out: the earlier first, then by the factor between now and before.
auto rank(const Onset& onset) {
    const double factor = std::isfinite(onset.value) ? std::abs(onset.value / onset.before) : HUGE_VAL;
    return std::tuple(onset.step, -std::max(factor, 1 / factor));
}

} // namespace

std::string Onset::text() const {
    return "step " + std::to_string(step) + (layer ? ", layer " + std::to_string(*layer) : "") + ", " + site + ": " +
           statistic + " " + short_number(value) + (before != 0 ? ", was " + short_number(before) : "");
}

std::optional<Onset> find_onset(std::span<const LayerRecord> records, std::int64_t first_step, std::int64_t last_step) {
    std::map<std::tuple<std::int64_t, std::string_view, std::string_view>, Series> all;
    for (const LayerRecord& record : records) {
        if (record.step > last_step) break;
        const auto add = [&](std::string_view statistic, double value) {
            all[{record.layer.value_or(-1), record.site, statistic}].add(record, statistic, value,
                                                                         record.step >= first_step);
        };
        for (const LayerField& field : kLayerFields) {
            if (const auto* member = std::get_if<std::optional<double> LayerRecord::*>(&field.member)) {
                // A mean about 0 has no factor; gradient_rms says what gradient_to_eps does.
                const bool left_out = field.name == "stream_mean" || field.name == "gradient_to_eps";
                if (record.**member && !left_out) add(field.name, *(record.**member));
            } else if (const auto* heads = std::get_if<std::vector<double> LayerRecord::*>(&field.member)) {
                const std::vector<double>& values = record.**heads;
                if (!values.empty())
                    add(field.name, field.name == "attention_entropy"
                                        ? *std::min_element(values.begin(), values.end())
                                        : *std::max_element(values.begin(), values.end()));
            }
        }
    }
    std::optional<Onset> first;
    for (const auto& [key, series] : all)
        if (series.out && (!first || rank(*series.out) < rank(*first))) first = series.out;
    return first;
}

} // namespace ballast
