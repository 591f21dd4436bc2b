#include "ballast/train/onset.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <tuple>
#include <vector>

#include "ballast/base/text.h"
#include "ballast/train/schedule.h"
#include "ballast/train/stability.h"

namespace ballast {

namespace {

constexpr std::size_t kFewestProbes = 3;
constexpr std::size_t kMostProbes = 32;
constexpr double kDeviations = 8;
constexpr double kFactor = 2;
constexpr double kVanished = 8; ///< the factor by which a gradient may fall

/// Statistics that may be close to 0 in a healthy network, where a factor says nothing: up to here they are in range.
double harmless(std::string_view statistic) {
    if (statistic == "dead_share") return 0.25;
    if (statistic == "gain_spread") return 0.1;
    return 0;
}

bool is_outside(std::string_view statistic, double value, const Centre& usual) {
    if (!std::isfinite(value)) return true;
    if (usual.median == 0) return false; // something that begins
    if (statistic == "attention_entropy") return value < usual.median / kFactor;
    if (statistic == "gradient_rms" && value < usual.median / kVanished) return true;
    const double rise = std::max((kFactor - 1) * std::abs(usual.median), kDeviations * kDeviation * usual.mad);
    return value > std::max(usual.median + rise, harmless(statistic));
}

/// One statistic of one place, as the probes go by.
struct Series {
    std::deque<double> calm;
    std::optional<Onset> out; ///< since when it has been out of its range

    void add(const LayerRecord& record, std::string_view statistic, double value, bool may_leave) {
        if (may_leave && calm.size() >= kFewestProbes) {
            const Centre centre = centre_of({calm.begin(), calm.end()});
            if (is_outside(statistic, value, centre)) {
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
    if (site == kResumeSite) return "step " + std::to_string(step) + ", resumed with " + statistic;
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

std::optional<Onset> resume_onset(std::span<const Event> events, const ScheduleConfig& schedule,
                                  std::int64_t first_step, std::int64_t last_step) {
    std::optional<Onset> last;
    for (const Event& event : events) {
        const std::int64_t step = event.step + 1;
        if (event.kind != "resume" || step < first_step || step > last_step) continue;
        const std::string changes(resume_changes(event));
        const auto names = [&](std::string_view key) {
            return changes.starts_with(key) || changes.find(", " + std::string(key)) != std::string::npos;
        };
        constexpr std::string_view kKeys[] = {"model.", "optimizer.", "schedule.", "loss.", "data.", "train.batch "};
        const bool is_longer = names("train.steps ") && follows_length(schedule);
        if (is_longer || std::any_of(std::begin(kKeys), std::end(kKeys), names))
            last = Onset{.step = step, .layer = {}, .site = std::string(kResumeSite), .statistic = changes};
    }
    return last;
}

} // namespace ballast
