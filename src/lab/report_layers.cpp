#include "report_layers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <variant>

namespace ballast {

namespace {

using Values = std::vector<double>;

/// What a record has of a statistic: nothing, a value, or one of each head.
void append_values(const LayerRecord& record, std::string_view name, Values& values) {
    for (const LayerField& field : kLayerFields) {
        if (field.name != name) continue;
        if (const auto* one = std::get_if<std::optional<double> LayerRecord::*>(&field.member)) {
            if (record.**one) values.push_back(*(record.**one));
        } else if (const auto* heads = std::get_if<std::vector<double> LayerRecord::*>(&field.member)) {
            values.insert(values.end(), (record.**heads).begin(), (record.**heads).end());
        }
    }
}

/// A NaN is what the whole comes to: it must not disappear in a comparison.
double gathered(Values values, Gather how) {
    for (const double value : values)
        if (std::isnan(value)) return value;
    switch (how) {
    case Gather::root_sum_of_squares: {
        double sum = 0;
        for (const double value : values)
            sum += value * value;
        return std::sqrt(sum);
    }
    case Gather::largest: return *std::max_element(values.begin(), values.end());
    case Gather::smallest: return *std::min_element(values.begin(), values.end());
    case Gather::median: {
        const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
        std::nth_element(values.begin(), middle, values.end());
        return *middle;
    }
    case Gather::last: break;
    }
    return values.back();
}

/// The block's number, or the first part of the site's name: "embedding" of "embedding.tokens".
std::string row_of(const LayerRecord& record) {
    return record.layer ? std::to_string(*record.layer) : record.site.substr(0, record.site.find('.'));
}

std::vector<std::int64_t> steps_of(std::span<const LayerRecord> records) {
    std::vector<std::int64_t> steps;
    for (const LayerRecord& record : records)
        if (steps.empty() || steps.back() != record.step) steps.push_back(record.step);
    return steps;
}

LayerTable table_of(std::span<const LayerRecord> records, const LayerTableKind& kind, std::size_t probes) {
    LayerTable table;
    std::map<std::string, std::size_t> row_index;
    std::vector<Values> cells; // of the probe at hand, a row each
    std::size_t probe = 0;
    const auto finish_probe = [&] {
        for (std::size_t row = 0; row < cells.size(); ++row)
            if (!cells[row].empty()) table.values[row][probe] = gathered(std::move(cells[row]), kind.gather);
        cells.assign(table.rows.size(), {});
    };
    for (std::size_t i = 0; i < records.size(); ++i) {
        if (i > 0 && records[i].step != records[i - 1].step) {
            finish_probe();
            ++probe;
        }
        Values values;
        append_values(records[i], kind.name, values);
        if (values.empty()) continue;
        const std::string name = row_of(records[i]);
        const auto [found, is_new] = row_index.try_emplace(name, table.rows.size());
        if (is_new) {
            table.rows.push_back(name);
            table.values.emplace_back(probes);
            cells.emplace_back();
        }
        Values& cell = cells[found->second];
        cell.insert(cell.end(), values.begin(), values.end());
    }
    finish_probe();
    return table;
}

} // namespace

LayerHistory layer_history(std::span<const LayerRecord> records) {
    LayerHistory history;
    history.steps = steps_of(records);
    for (const LayerTableKind& kind : kLayerTables)
        history.tables.push_back(records.empty() ? LayerTable{} : table_of(records, kind, history.steps.size()));
    return history;
}

} // namespace ballast
