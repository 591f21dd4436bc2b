#pragma once

#include <cstdint>
#include <span>
#include <string_view>

// Measurements of the kernels on this machine, for whoever prints them.

namespace ballast {

/// How fast one kind of norm is on a matrix [rows, width], with gain and bias where the kind has them.
struct NormSpeed {
    std::string_view kind; ///< as in a config: "layernorm"
    std::int64_t rows = 0;
    std::int64_t width = 0;
    /// Of the fastest call: what other programs take from a try is no property of the kernel.
    double forward_seconds = 0;
    double backward_seconds = 0;
    /// What has to be read and written, every array counted each time a pass over all rows needs it: forward x and y,
    /// backward dy, x and dx. Batch norm's statistics, and the sums of its backward, are passes of their own.
    double forward_bytes = 0;
    double backward_bytes = 0;
};

/// The kinds that measure_norm knows.
std::span<const std::string_view> norm_kinds();

/// Times forward and backward of a kind on random numbers, for about `seconds`. Throws UsageError for a kind that is
/// not in norm_kinds().
NormSpeed measure_norm(std::string_view kind, std::int64_t rows, std::int64_t width, double seconds);

} // namespace ballast
