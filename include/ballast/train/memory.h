#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ballast/config/config.h"

// What a training run will hold in memory, known before any of it is taken.

namespace ballast {

struct MemoryPart {
    std::string name; ///< "parameters", "activations"
    double bytes = 0;
    std::string keys; ///< settings that make it smaller, for people
};

struct MemoryEstimate {
    std::vector<MemoryPart> parts;

    double bytes() const;
    /// The parts from the largest on: "activations 12.0 GiB (train.micro_batch, …), moments 1.1 GiB (…)".
    std::string largest(std::size_t count) const;
};

/// Memory of a run of `config` (resolved) with a vocabulary of this size, at its peak, when `process_bytes` are in use
/// before: the program, its libraries, the data. Plans a step with the shapes alone; takes no
/// memory but for the ids of a micro-batch.
MemoryEstimate estimate_memory(const Config& config, std::int64_t vocabulary, std::int64_t process_bytes);

/// Throws Error, naming the largest parts, when the run cannot fit into memory_limit().
void require_memory(const MemoryEstimate& estimate, std::int64_t limit);

} // namespace ballast
