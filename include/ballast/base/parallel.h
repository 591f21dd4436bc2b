#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "ballast/base/arena.h"

namespace ballast {

/// Number of worker threads used by parallel_for from now on, at least 1. Results never depend on it: callers split
/// work by the shape of the problem alone, every output element is written by one task, and sums across tasks go to
/// numbered partial buffers that are added in index order.
void set_threads(int threads);
int threads();

/// Processors this process may run on (its affinity mask), the default for set_threads.
int available_processors();

namespace detail {
void run_parallel(std::int64_t tasks, void (*call)(void*, std::int64_t), void* context);
}

/// Calls task(i) for every i in [0, tasks), in any order, on any thread; returns when all are done. Tasks must not
/// throw. A parallel_for inside a task runs serially.
template <class Task>
void parallel_for(std::int64_t tasks, Task&& task) {
    using Function = std::remove_reference_t<Task>;
    detail::run_parallel(
        tasks, [](void* context, std::int64_t i) { (*static_cast<Function*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(std::addressof(task))));
}

/// Scratch memory of the thread that runs the current task. A task takes an Arena::Mark on it before allocating; the
/// memory is kept for the next task, so a steady state allocates nothing.
Arena& worker_scratch();

/// Splits [0, count) into consecutive ranges of `grain` (the last may be shorter) and calls body(begin, end) for each.
template <class Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, Body&& body) {
    grain = std::max<std::int64_t>(grain, 1);
    parallel_for((count + grain - 1) / grain, [&](std::int64_t i) {
        const std::int64_t begin = i * grain;
        body(begin, std::min(begin + grain, count));
    });
}

/// Rows per task so that a task touches about 16 Ki elements: enough to pay for its start, few enough to balance.
constexpr std::int64_t rows_per_task(std::int64_t width) {
    return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(width, 1));
}

} // namespace ballast
