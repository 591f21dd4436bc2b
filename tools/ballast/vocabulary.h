#pragma once

#include <cstdint>
#include <string>

#include "ballast/config/config.h"

struct Vocabulary {
    std::int64_t size = 0;
    std::string assumed_because; ///< empty: it is that of the data
};

/// The vocabulary of a config's data, or what it is likely to be while the data is not there.
Vocabulary vocabulary_of(const ballast::Config& config);
