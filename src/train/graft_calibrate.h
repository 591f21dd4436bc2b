#pragma once

#include <span>
#include <string>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/data/dataset.h"
#include "ballast/nn/transformer.h"

namespace ballast {

struct CalibrationModels {
    const ModelConfig& old_config;
    const Transformer& before;
    const Transformer& after;
    ParamTable& table; ///< of `after`
};

/// Fits the gains, and biases where there are any, of norms of the new model, one norm after another in the order of
/// the pass: each feature of what the norm hands on is brought as close as it can be, in least squares over some 4096
/// tokens of the training split, to what the old model has in that place. A norm that has no such place, in a block
/// that the old model does not have, stays as it is. A batchnorm's running statistics are set to those of its input
/// first. Returns the norms that were fitted.
std::vector<std::string> calibrate_norms(const CalibrationModels& models, std::span<const std::string> norms,
                                         const Config& config, const Dataset& data);

} // namespace ballast
