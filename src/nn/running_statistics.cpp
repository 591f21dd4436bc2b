#include "ballast/nn/running_statistics.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION {

RunningStatistics::RunningStatistics(const ParamTable& table, double momentum) : momentum_(momentum) {
    constexpr std::string_view kMean = ".running_mean";
    for (const Param& mean : table.buffers()) {
        if (!mean.name.ends_with(kMean)) continue;
        const std::string other = mean.name.substr(0, mean.name.size() - kMean.size()) + ".running_variance";
        const auto variance = std::find_if(table.buffers().begin(), table.buffers().end(),
                                           [&](const Param& buffer) { return buffer.name == other; });
        const auto width = static_cast<std::size_t>(mean.shape.elements());
        norms_.push_back({table.values() + mean.offset, table.values() + variance->offset, 0,
                          std::vector<double>(width), std::vector<double>(width)});
    }
}

void RunningStatistics::begin() {
    for (Pooled& norm : norms_)
        norm.rows = 0;
}

void RunningStatistics::observe(const Tape& tape) {
    if (norms_.empty()) return;
    for (const Node& node : tape.nodes()) {
        if (node.op != &ops::batchnorm_op) continue;
        const auto is_input = [&](const Pooled& norm) {
            return std::any_of(node.inputs.begin(), node.inputs.begin() + node.input_count,
                               [&](Var v) { return tape.data(v) == norm.running_mean; });
        };
        const auto norm = std::find_if(norms_.begin(), norms_.end(), is_input);
        if (norm == norms_.end()) continue;
        const ops::BatchStatistics seen = ops::batch_statistics(tape, node.output);
        const auto rows = static_cast<double>(seen.rows), total = norm->rows + rows;
        for (std::size_t i = 0; i < norm->mean.size(); ++i) {
            const double mean = norm->rows > 0 ? norm->mean[i] : 0, squares = norm->rows > 0 ? norm->squares[i] : 0;
            const double difference = static_cast<double>(seen.mean[i]) - mean;
            norm->mean[i] = mean + difference * rows / total;
            norm->squares[i] = squares + static_cast<double>(seen.variance[i]) * rows +
                               difference * difference * norm->rows * rows / total;
        }
        norm->rows = total;
    }
}

bool RunningStatistics::is_finite() const {
    const auto finite = [](const std::vector<double>& values) {
        return std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
    };
    return std::all_of(norms_.begin(), norms_.end(), [&](const Pooled& norm) {
        return norm.rows == 0 || (finite(norm.mean) && finite(norm.squares));
    });
}

bool RunningStatistics::update() {
    if (!is_finite()) return false;
    for (const Pooled& norm : norms_) {
        if (norm.rows == 0) continue;
        const double count = std::max(norm.rows - 1, 1.0);
        for (std::size_t i = 0; i < norm.mean.size(); ++i) {
            const auto moved = [&](real running, double now) {
                return static_cast<real>((1 - momentum_) * static_cast<double>(running) + momentum_ * now);
            };
            norm.running_mean[i] = moved(norm.running_mean[i], norm.mean[i]);
            norm.running_variance[i] = moved(norm.running_variance[i], norm.squares[i] / count);
        }
    }
    begin();
    return true;
}

} // namespace ballast::inline BALLAST_PRECISION
