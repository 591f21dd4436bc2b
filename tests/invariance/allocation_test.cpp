// A training step in the steady state calls no allocator: not ours, not the standard library's, not BLAS's.

#include <atomic>
#include <cstdlib>
#include <malloc.h>
#include <memory>
#include <thread>

#include "ballast/base/parallel.h"
#include "catch.h"
#include "lab.h"
#include "sanitizer.h"

namespace {
std::atomic<std::int64_t> g_allocations{0};
} // namespace

// Every allocation of the program is counted, in whatever library, since `operator new` and the C functions end here.
#if BALLAST_SANITIZER_ALLOCATES
// Clang has a header for it, sanitizer/allocator_interface.h; GCC has the function alone.
// NOLINTNEXTLINE(bugprone-reserved-identifier): its own name
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*, std::size_t),
                                                         void (*free_hook)(const volatile void*));
namespace {
[[maybe_unused]] const int kHooked = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { ++g_allocations; }, [](const volatile void*) {});
} // namespace
#else
// glibc's own allocator, beneath the functions that are replaced here.
// NOLINTBEGIN(bugprone-reserved-identifier): the names are glibc's
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* memory, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);

void* malloc(std::size_t bytes) {
    ++g_allocations;
    return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
    ++g_allocations;
    return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
    ++g_allocations;
    return __libc_realloc(memory, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
    ++g_allocations;
    return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
    *memory = memalign(alignment, bytes);
    return *memory == nullptr ? ENOMEM : 0;
}
}
// NOLINTEND(bugprone-reserved-identifier)
#endif

using namespace lab;

namespace {

/// Allocations, on any thread, while `action` runs.
template <class Action>
std::int64_t allocations_in(Action&& action) {
    const std::int64_t before = g_allocations;
    action();
    return g_allocations - before;
}

} // namespace

TEST_CASE("the counter sees every kind of allocation", "[invariance]") {
    // Volatile, so that the compiler does not see that nobody uses the memory.
    void* volatile memory = nullptr;
    CHECK(allocations_in([] {}) == 0);
    CHECK(allocations_in([&] { memory = std::malloc(100); }) == 1);
    CHECK(allocations_in([&] { memory = std::realloc(memory, 200000); }) == 1);
    std::free(memory);
    CHECK(allocations_in([&] { memory = std::calloc(3, 100); }) == 1);
    std::free(memory);
    CHECK(allocations_in([&] { memory = std::aligned_alloc(64, 128); }) == (kHooksSeeAlignedAlloc ? 1 : 0));
    std::free(memory);
    CHECK(allocations_in([&] { memory = ::operator new(100); }) == 1);
    ::operator delete(memory);
    Arena arena;
    CHECK(allocations_in([&] { arena.allocate<float>(100); }) >= 1);
    // On the thread of a task, too.
    set_threads(2);
    const auto task = [](std::int64_t) {
        void* volatile memory = std::malloc(100);
        std::free(memory);
    };
    parallel_for(8, task);
    CHECK(allocations_in([&] { parallel_for(8, task); }) == 8);
    set_threads(available_processors());
}

TEST_CASE("measuring the time of each op allocates nothing either", "[invariance]") {
    const Lab lab;
    Learner learner(lab.config({}), lab.data());
    std::int64_t step = 0;
    const auto steps = [&] {
        for (int i = 0; i < 3; ++i) {
            learner.time_nodes(true);
            learner.step(++step);
        }
    };
    steps();
    CHECK(allocations_in(steps) == 0);
}

TEST_CASE("a training step allocates nothing once it is warm", "[invariance]") {
    const Lab lab;
    for (const int threads : {1, 2, 3, 8})
        for (const Overrides& options : option_sets()) {
            CAPTURE(threads, options);
            set_threads(threads);
            Learner learner(lab.config(options), lab.data());
            // Warm: every thread has had a task of every kind, which may take some steps where threads are many.
            std::int64_t quiet = 0;
            for (std::int64_t step = 1; step <= 200 && quiet < 5; ++step)
                quiet = allocations_in([&] { learner.step(step); }) == 0 ? quiet + 1 : 0;
            CHECK(quiet == 5);
        }
    set_threads(available_processors());
}
