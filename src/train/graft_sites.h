#pragma once

#include <string_view>

#include "ballast/autograd/tape.h"

// Values of a pass by the sites that modules give their nodes (nn/block.h). They are unset where the model has no such
// site.

namespace ballast {

/// Whether `site` is `module` or within it: "blocks.1" has "blocks.1.ffn.input", not "blocks.10".
inline bool is_within(std::string_view site, std::string_view module) {
    return site.starts_with(module) && (site.size() == module.size() || site[module.size()] == '.');
}

/// What the first node of a site takes.
inline Var input_of(const Tape& tape, std::string_view site) {
    for (const Node& node : tape.nodes())
        if (node.site == site) return node.inputs[0];
    return {};
}

/// What the last node of a module makes.
inline Var output_of(const Tape& tape, std::string_view module) {
    Var last;
    for (const Node& node : tape.nodes())
        if (is_within(node.site, module)) last = node.output;
    return last;
}

} // namespace ballast
