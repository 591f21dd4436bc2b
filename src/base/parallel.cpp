#include "ballast/base/parallel.h"

#include <atomic>
#include <omp.h>
#include <sched.h>

namespace ballast {

namespace {
// A property of the process, like the affinity mask: the only mutable state outside objects in the library.
std::atomic<int> g_threads{0};
} // namespace

int available_processors() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return std::max(1, omp_get_num_procs());
    return std::max(1, CPU_COUNT(&mask));
}

void set_threads(int threads) { g_threads = std::max(1, threads); }

int threads() {
    const int set = g_threads;
    return set > 0 ? set : available_processors();
}

Arena& worker_scratch() {
    thread_local Arena arena;
    return arena;
}

void detail::run_parallel(std::int64_t tasks, void (*call)(void*, std::int64_t), void* context) {
    const int workers = threads();
    if (workers <= 1 || tasks <= 1 || omp_in_parallel()) {
        for (std::int64_t i = 0; i < tasks; ++i)
            call(context, i);
        return;
    }
    // Always the same number of threads, also where there are fewer tasks: GCC's OpenMP ends the threads that a smaller
    // team leaves over, their scratch memory with them, and starts new ones for the next larger team.
#pragma omp parallel for schedule(dynamic, 1) num_threads(workers)
    for (std::int64_t i = 0; i < tasks; ++i)
        call(context, i);
}

} // namespace ballast
