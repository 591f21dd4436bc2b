#pragma once

#include "ballast/config/config.h"

#include <string>
#include <vector>

namespace ballast::config_io {

/// Keys that do not go together.
struct Conflict {
    std::vector<std::string> paths; ///< the keys involved, the one most likely meant to change first
    std::string message;            ///< "what is wrong; what was expected", naming all of them
};

/// The conflicts within a resolved config.
std::vector<Conflict> find_conflicts(const Config& config);

} // namespace ballast::config_io
