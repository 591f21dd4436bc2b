#include "bare_model.h"

#include <algorithm>
#include <cmath>

#include "ballast/base/rng.h"
#include "ballast/config/load.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/gemm.h"
#include "ballast/lab/statistics.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"

namespace ballast::literature {

ModelConfig model_with(const std::function<void(ModelConfig&)>& change) {
    Config config;
    change(config.model);
    resolve(config);
    return config.model;
}

std::vector<std::int32_t> random_tokens(std::uint64_t seed, std::string_view name, std::int64_t count,
                                        std::int64_t vocabulary) {
    const RandomStream stream(seed, name);
    std::vector<std::int32_t> tokens;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(count); ++i)
        tokens.push_back(static_cast<std::int32_t>(stream.below(i, static_cast<std::uint64_t>(vocabulary))));
    return tokens;
}

BareModel::BareModel(const ModelConfig& config, std::int64_t vocabulary, std::uint64_t seed)
    : model_(table_, config, vocabulary), tape_(ops::registry()) {
    pin_blas();
    table_.allocate(seed);
    table_.allocate_gradients();
}

void BareModel::multiply(const std::string& name, double factor) {
    float* const first = values(name);
    std::for_each(first, first + param(name).shape.elements(),
                  [&](float& value) { value *= static_cast<float>(factor); });
}

double BareModel::gradient_norm(std::string_view prefix) const {
    double squares = 0;
    for (const Param& param : table_.params())
        if (param.name.starts_with(prefix))
            squares += sum_of_squares(table_.gradients() + param.offset, param.shape.elements());
    return std::sqrt(squares);
}

std::vector<float> BareModel::logits(const std::vector<std::int32_t>& tokens, const SequenceShape& shape, Mode mode) {
    tape_.begin(mode);
    const Var y = model_(tape_, {tokens, shape});
    return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
}

std::vector<float> BareModel::representation() const {
    for (const Node& node : tape_.nodes())
        if (node.site == "head") {
            const float* const x = tape_.data(node.inputs[0]);
            return {x, x + tape_.shape(node.inputs[0]).elements()};
        }
    return {};
}

double BareModel::backward(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets,
                           const SequenceShape& shape) {
    tape_.begin(Mode::train);
    const Var y = model_(tape_, {tokens, shape});
    const Var loss = ops::cross_entropy(tape_, y, targets, 1.0 / static_cast<double>(targets.size()));
    const double value = static_cast<double>(*tape_.data(loss));
    tape_.backward(loss);
    return value;
}

double BareModel::stream_squares() const {
    Var stream;
    for (const Node& node : tape_.nodes()) {
        if (node.site == "final_norm" || node.site == "head") break;
        stream = node.output;
    }
    const Shape shape = tape_.shape(stream);
    return sum_of_squares(tape_.data(stream), shape.elements()) / static_cast<double>(shape.rows());
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = larger(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    return worst;
}

double relative_change(const std::vector<float>& a, const std::vector<float>& b) {
    double change = 0, size = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
        change += difference * difference;
        size += static_cast<double>(b[i]) * static_cast<double>(b[i]);
    }
    return std::sqrt(change / size);
}

double log_slope(const std::vector<double>& x, const std::vector<double>& y) {
    double mean_x = 0, mean_y = 0;
    const auto n = static_cast<double>(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
        mean_x += std::log(x[i]) / n;
        mean_y += std::log(y[i]) / n;
    }
    double products = 0, squares = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        const double dx = std::log(x[i]) - mean_x;
        products += dx * (std::log(y[i]) - mean_y);
        squares += dx * dx;
    }
    return products / squares;
}

double geometric_mean(const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values)
        sum += std::log(value);
    return std::exp(sum / static_cast<double>(values.size()));
}

} // namespace ballast::literature
