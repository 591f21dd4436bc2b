#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/nn/transformer.h"
#include "ballast/train/optimizer.h"

// Models at their start, for the claims that take seconds: no run, no data but random tokens.

namespace ballast::literature {

/// A resolved model config: that of the defaults, changed by `change`.
ModelConfig model_with(const std::function<void(ModelConfig&)>& change);

/// Uniform ids below `vocabulary`.
std::vector<std::int32_t> random_tokens(std::uint64_t seed, std::string_view name, std::int64_t count,
                                        std::int64_t vocabulary);

/// A model with values and gradients, and the tape that it was run on last.
class BareModel {
public:
    BareModel(const ModelConfig& config, std::int64_t vocabulary, std::uint64_t seed);
    BareModel(const BareModel&) = delete;
    BareModel& operator=(const BareModel&) = delete;

    ParamTable& table() { return table_; }
    const ParamTable& table() const { return table_; }
    const Param& param(const std::string& name) const { return *table_.find(name); }
    float* values(const std::string& name) { return table_.values() + param(name).offset; }
    const float* gradients(const std::string& name) const { return table_.gradients() + param(name).offset; }
    void multiply(const std::string& name, double factor);

    /// Norm of the gradients of all parameters whose name begins with `prefix`.
    double gradient_norm(std::string_view prefix) const;

    /// The logits.
    std::vector<float> logits(const std::vector<std::int32_t>& tokens, const SequenceShape& shape, Mode mode);
    /// What the last logits() gave the output layer: [tokens, width].
    std::vector<float> representation() const;
    /// E |x|^2 over its tokens of what stands behind the last block, before any final norm.
    double stream_squares() const;
    /// Forward and backward of the mean cross-entropy; gradients are in the table. Returns the loss.
    double backward(const std::vector<std::int32_t>& tokens, const std::vector<std::int32_t>& targets,
                    const SequenceShape& shape);

private:
    ParamTable table_;
    Transformer model_;
    Tape tape_;
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b);
/// |a - b| / |b|.
double relative_change(const std::vector<float>& a, const std::vector<float>& b);

/// Least squares slope of log y against log x.
double log_slope(const std::vector<double>& x, const std::vector<double>& y);

double geometric_mean(const std::vector<double>& values);

} // namespace ballast::literature
