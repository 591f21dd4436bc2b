#pragma once

// What the loops over all ops share: random inputs for an op's samples.

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/base/error.h"
#include "ballast/base/rng.h"

namespace op_calls {

using ballast::real;
using Values = std::vector<real>;

inline constexpr real kNaN = std::numeric_limits<real>::quiet_NaN();

inline std::size_t size_of(const ballast::Shape& shape) { return static_cast<std::size_t>(shape.elements()); }

/// Uniform in [low, high]. Where that holds 0, at which many functions have a kink, values closer to 0 than 0.01 are
/// moved away from it: by far more than a finite difference's step.
inline Values uniform_values(std::size_t count, std::uint64_t seed, double low, double high) {
    const ballast::RandomStream stream(seed, "uniform test values");
    Values values(count);
    for (std::size_t i = 0; i < count; ++i) {
        double x = low + (high - low) * stream.uniform(i);
        if (low < 0 && high > 0 && std::abs(x) < 0.01) x = std::copysign(0.01, x);
        values[i] = static_cast<real>(x);
    }
    return values;
}

/// Random factors of either sign, none of them small: nothing that they multiply can go unseen.
inline Values cotangent_values(std::size_t count, std::uint64_t seed) {
    const ballast::RandomStream stream(seed, "cotangent");
    Values values(count);
    for (std::size_t i = 0; i < count; ++i) {
        const double x = 2 * stream.uniform(i) - 1;
        values[i] = static_cast<real>(x + std::copysign(0.5, x));
    }
    return values;
}

inline std::vector<Values> sample_inputs(const ballast::OpSample& sample, std::uint64_t seed) {
    std::vector<Values> inputs;
    for (std::size_t i = 0; i < sample.inputs.size(); ++i)
        inputs.push_back(uniform_values(size_of(sample.inputs[i]), 100 * seed + i, sample.low, sample.high));
    return inputs;
}

inline bool is_constant(const ballast::OpSample& sample, std::size_t input) {
    for (const std::size_t constant : sample.constants)
        if (constant == input) return true;
    return false;
}

} // namespace op_calls
