#pragma once

// Gradients that are sums over the rows of a matrix, taken by the loop that reads these rows. Rows are cut into groups
// by the shape alone; each group sums into buffers of its own, which are added in index order.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "ballast/base/arena.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

inline Grad offset(Grad grad, std::int64_t by) { return grad ? Grad{grad.data + by, grad.add} : grad; }

/// A row of partial sums, rounded up to whole vectors of any instruction set (at most 2048 bits): storing part of a
/// vector and loading it with the next row would stall.
constexpr std::int64_t padded_width(std::int64_t width) { return (width + 63) / 64 * 64; }

/// At least 16 rows in a group, so that writing and adding the partial sums stays small beside reading the rows, and
/// at most 64 groups.
inline std::int64_t rows_per_group(std::int64_t rows, std::int64_t width) {
    return std::max({rows_per_task(width), std::int64_t{16}, (rows + 63) / 64});
}

inline std::int64_t row_groups(std::int64_t rows, std::int64_t width) {
    const std::int64_t grain = rows_per_group(rows, width);
    return (rows + grain - 1) / grain;
}

/// Calls body(group, begin, end) for every group of rows.
template <class Body>
void for_row_groups(std::int64_t rows, std::int64_t width, Body&& body) {
    const std::int64_t grain = rows_per_group(rows, width);
    parallel_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) { body(begin / grain, begin, end); });
}

/// Calls body(group, begin, end, sums) for every group of rows, then adds up what the groups left in their partial
/// buffers: `sums` has, for each of the targets [width], this group's buffer, or null where there is no target. The
/// buffers hold rubbish at first and have room for padded_width(width) reals.
template <std::size_t N, class Body>
void sum_over_rows(const Grad (&targets)[N], std::int64_t rows, std::int64_t width, Arena& scratch, Body&& body) {
    const Arena::Mark mark(scratch);
    const std::int64_t groups = row_groups(rows, width);
    const std::int64_t stride = padded_width(width);
    real* partials[N];
    for (std::size_t k = 0; k < N; ++k)
        partials[k] = targets[k] ? scratch.allocate<real>(groups * stride) : nullptr;
    for_row_groups(rows, width, [&](std::int64_t group, std::int64_t begin, std::int64_t end) {
        real* sums[N];
        for (std::size_t k = 0; k < N; ++k)
            sums[k] = partials[k] != nullptr ? partials[k] + group * stride : nullptr;
        body(group, begin, end, sums);
    });
    for (std::size_t k = 0; k < N; ++k)
        if (targets[k]) column_sums(targets[k], partials[k], groups, width, stride);
}

/// target (+)= sum of `count` numbers in index order.
inline void add_in_order(Grad target, const double* sums, std::int64_t count) {
    if (!target) return;
    double total = 0;
    for (std::int64_t i = 0; i < count; ++i)
        total += sums[i];
    *target.data = static_cast<real>(target.add ? static_cast<double>(*target.data) + total : total);
}

} // namespace ballast::inline BALLAST_PRECISION
