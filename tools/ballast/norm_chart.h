#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// What the norms take of the training step of a model.
struct NormShare {
    std::string kind; ///< "none": the model has no norms
    std::int64_t width = 0;
    double step_seconds = 0;
    double norm_seconds = 0;
    double share() const { return norm_seconds / step_seconds; }
};

// Charts of the shares by width, a bar or a point for each kind and width; models without norms are left out.

/// Bars, for a terminal.
std::string text_chart(const std::vector<NormShare>& shares);

/// Lines over the logarithm of the width, as an SVG document.
std::string svg_chart(const std::vector<NormShare>& shares);
