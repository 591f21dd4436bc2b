#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/nn/params.h"

namespace ballast {

/// The range of a tensor.
struct Range {
    double min = 0; ///< of the finite elements; NaN where there are none
    double max = 0;
    double rms = 0;              ///< of all elements
    std::int64_t not_finite = 0; ///< elements that are NaN or infinite
    double largest() const { return std::max(-min, max); }
};

Range range_of(const real* values, std::int64_t count);

/// A tensor that an op of a traced pass read.
struct TraceInput {
    std::string name; ///< a parameter's, "constant", or the site and op that made it
    Range range;
};

/// What one op of a traced pass made: a value in the forward pass, the gradient of one of its inputs in the backward
/// pass.
struct TraceEntry {
    bool backward = false;
    std::string op;
    std::string site; ///< the module that recorded the op: "blocks.3.attention.qkv"
    std::string made; ///< "" for the op's value; otherwise whose gradient it is, named as inputs are
    std::string shape;
    Range range;
    std::vector<TraceInput> inputs; ///< of the op; in the backward pass, the gradient of its value comes first
};

/// Everything on a tape whose backward() kept gradients: values in the order of the pass, then gradients in the order
/// in which they were complete. The gradient behind a linear op with an activation is that before the activation.
std::vector<TraceEntry> trace_of(const Tape& tape, const ParamTable& table);

/// The first entry with an element that is not finite; none: null.
const TraceEntry* first_not_finite(const std::vector<TraceEntry>& trace);

} // namespace ballast
