#include "ballast/base/parallel.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <mutex>
#include <numeric>
#include <set>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "catch.h"
#include "sanitizer.h"

using namespace ballast;

namespace {

/// Sets the number of threads, and the default again at the end.
struct Threads {
    explicit Threads(int count) { set_threads(count); }
    ~Threads() { set_threads(available_processors()); }
};

} // namespace

TEST_CASE("every task runs once, at any number of threads", "[base]") {
    for (const int count : {1, 2, 3, 8}) {
        const Threads threads(count);
        for (const std::int64_t tasks : {0, 1, 2, 7, 1000}) {
            CAPTURE(count, tasks);
            std::vector<std::atomic<int>> runs(static_cast<std::size_t>(tasks));
            parallel_for(tasks, [&](std::int64_t i) { ++runs[static_cast<std::size_t>(i)]; });
            for (const auto& run : runs)
                CHECK(run == 1);
        }
    }
}

TEST_CASE("all tasks are done when parallel_for returns, and what they wrote is visible", "[base]") {
    const Threads threads(3);
    std::vector<std::int64_t> squares(5000);
    for (std::int64_t round = 0; round < 20; ++round) {
        parallel_for(5000, [&](std::int64_t i) { squares[static_cast<std::size_t>(i)] = i * i + round; });
        CHECK(std::accumulate(squares.begin(), squares.end(), std::int64_t{0}) ==
              std::int64_t{4999} * 5000 * 9999 / 6 + 5000 * round);
    }
}

TEST_CASE("a loop inside a task runs on the task's thread, in order", "[base]") {
    const Threads threads(4);
    std::vector<std::vector<std::int64_t>> orders(6);
    std::atomic<int> strangers{0};
    parallel_for(6, [&](std::int64_t outer) {
        const auto self = std::this_thread::get_id();
        parallel_for(50, [&](std::int64_t inner) {
            if (std::this_thread::get_id() != self) ++strangers;
            orders[static_cast<std::size_t>(outer)].push_back(inner);
        });
    });
    CHECK(strangers == 0);
    std::vector<std::int64_t> expected(50);
    std::iota(expected.begin(), expected.end(), 0);
    for (const auto& order : orders)
        CHECK(order == expected);
}

TEST_CASE("one thread runs tasks in order on the calling thread", "[base]") {
    const Threads threads(1);
    std::vector<std::int64_t> order;
    const auto self = std::this_thread::get_id();
    bool here = true;
    parallel_for(100, [&](std::int64_t i) {
        here = here && std::this_thread::get_id() == self;
        order.push_back(i);
    });
    CHECK(here);
    CHECK(std::is_sorted(order.begin(), order.end()));
}

#if BALLAST_SANITIZER_ALLOCATES
static bool is_child = false;

/// LeakSanitizer stops all threads before it looks, and waits for ever for those that a child by fork() does not have.
extern "C" int __lsan_is_turned_off(); // NOLINT(bugprone-reserved-identifier): its own name for what it asks
extern "C" int __lsan_is_turned_off() { return is_child ? 1 : 0; } // NOLINT(bugprone-reserved-identifier)
#endif

TEST_CASE("a child by fork() has none of the threads: its loops run, and it ends by exit()", "[base]") {
    const Threads threads(3);
    const auto loop_is_right = [] {
        std::vector<std::int64_t> doubled(1000);
        parallel_for(1000, [&](std::int64_t i) { doubled[static_cast<std::size_t>(i)] = 2 * i; });
        return std::accumulate(doubled.begin(), doubled.end(), std::int64_t{0}) == 999 * 1000;
    };
    REQUIRE(loop_is_right()); // from here on there are threads

    std::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
#if BALLAST_SANITIZER_ALLOCATES
        is_child = true;
#endif
        // exit() ends the test framework as well: what it says does not belong into the output of this process.
        const int nowhere = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
        ::dup2(nowhere, STDOUT_FILENO);
        ::dup2(nowhere, STDERR_FILENO);
        std::exit(loop_is_right() ? 0 : 1);
    }
    REQUIRE(child > 0);
    int status = -1;
    pid_t ended = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while ((ended = ::waitpid(child, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < deadline)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (ended == 0) {
        ::kill(child, SIGKILL);
        ::waitpid(child, &status, 0);
    }
    CHECK(ended == child);
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0));
}

TEST_CASE("the number of threads is at least 1", "[base]") {
    for (const int count : {1, 5}) {
        const Threads threads(count);
        CHECK(ballast::threads() == count);
    }
    for (const int count : {0, -3}) {
        const Threads threads(count);
        CHECK(ballast::threads() == 1);
    }
    CHECK(available_processors() >= 1);
}

TEST_CASE("every thread has scratch memory of its own, and keeps it from loop to loop", "[base]") {
    const Threads threads(3);
    std::mutex mutex;
    const auto arenas_of_a_loop = [&] {
        std::set<Arena*> arenas;
        std::atomic<int> arrived{0};
        // Three tasks that wait for each other are on three threads.
        parallel_for(3, [&](std::int64_t) {
            {
                const std::lock_guard lock(mutex);
                arenas.insert(&worker_scratch());
            }
            ++arrived;
            while (arrived < 3)
                std::this_thread::yield();
        });
        return arenas;
    };
    const std::set<Arena*> first = arenas_of_a_loop();
    CHECK(first.size() == 3);
    CHECK(first.count(&worker_scratch()) == 1); // the caller works, too
    // A loop with fewer tasks than threads in between costs no thread.
    parallel_for(2, [](std::int64_t) {});
    CHECK(arenas_of_a_loop() == first);
}

TEST_CASE("ranges cover everything once, all but the last of full length", "[base]") {
    const Threads threads(3);
    for (const std::int64_t count : {0, 1, 99, 100, 101, 1000})
        for (const std::int64_t grain : {-1, 0, 1, 7, 100, 5000}) {
            CAPTURE(count, grain);
            std::vector<std::atomic<int>> seen(static_cast<std::size_t>(count));
            std::atomic<int> odd_lengths{0};
            parallel_ranges(count, grain, [&](std::int64_t begin, std::int64_t end) {
                const std::int64_t length = std::max<std::int64_t>(grain, 1);
                if (begin % length != 0 || (end != count && end - begin != length)) ++odd_lengths;
                for (std::int64_t i = begin; i < end; ++i)
                    ++seen[static_cast<std::size_t>(i)];
            });
            CHECK(odd_lengths == 0);
            for (const auto& n : seen)
                CHECK(n == 1);
        }
}

TEST_CASE("rows per task follow the width alone", "[base]") {
    CHECK(rows_per_task(1) == 16384);
    CHECK(rows_per_task(128) == 128);
    CHECK(rows_per_task(100000) == 1);
    CHECK(rows_per_task(0) == 16384);
}
