#include "ballast/base/parallel.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <sched.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

namespace ballast {

namespace {

// A property of the process, like the affinity mask; with the pool below the only mutable state outside objects in the
// library.
std::atomic<int> g_threads{0};

/// Whether the calling thread is inside a task.
thread_local bool t_in_task = false;

void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

/// The threads that help the caller of parallel_for. They wait for the next loop awake for a short time, as the loops
/// of a training step follow each other closely, and then asleep, so that a machine that has other work is not kept
/// from it.
///
/// Nobody waits for a helper that has not taken a task: a loop never takes longer because a helper is asleep, or is not
/// being run, than it would take without that helper. For the same reason a child by fork(), which has the pool but
/// none of its threads, computes what its parent would.
class Pool {
public:
    Pool() = default;
    ~Pool() {
        if (::getpid() != process_) {
            // Nothing may be asked of a thread that stayed with the parent: it is forgotten, not joined.
            for (std::thread& helper : helpers_)
                std::construct_at(&helper);
            return;
        }
        stop_ = true;
        ++loops_;
        loops_.notify_all();
        for (std::thread& helper : helpers_)
            helper.join();
    }
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    using Call = void (*)(void*, std::int64_t);

    /// Runs the loop on the calling thread and `workers` - 1 helpers; false when they are helping somebody else.
    bool run(std::int64_t tasks, Call call, void* context, int workers) {
        if (busy_.exchange(true, std::memory_order_acquire)) return false;
        workers = std::min(workers, kMostThreads);
        // Spinning threads that outnumber the processors would keep from working those they wait for.
        spins_ = workers <= processors_ ? kSpins : 0;
        start_helpers(workers - 1);
        for (std::int64_t begin = 0; begin < tasks; begin += kMostTasks)
            run_part(begin, std::min(tasks - begin, kMostTasks), call, context, workers);
        busy_.store(false, std::memory_order_release);
        return true;
    }

private:
    static constexpr int kSpins = 2000; // some 50 microseconds
    static constexpr std::int64_t kMostTasks = 0xffff;
    static constexpr int kMostThreads = 1024;

    /// As many as are wanted, or as the system allows.
    void start_helpers(int wanted) {
        try {
            while (static_cast<int>(helpers_.size()) < wanted)
                helpers_.emplace_back([this, index = static_cast<int>(helpers_.size())] { help(index); });
        } catch (const std::system_error&) { // a limit on threads: the loop is run by those that there are
        }
    }

    void run_part(std::int64_t first, std::int64_t tasks, Call call, void* context, int workers) {
        // A helper that is late may look at what it was left by an earlier loop. It takes a task by replacing the share
        // that it saw, and so gets none unless all it saw belongs to one loop: while this changes, all shares are
        // empty.
        first_.store(first, std::memory_order_release);
        call_.store(call, std::memory_order_release);
        context_.store(context, std::memory_order_release);
        workers_.store(workers, std::memory_order_release);
        unfinished_.store(tasks, std::memory_order_relaxed);
        ++loop_;
        for (int i = 0; i < workers; ++i)
            shares_[static_cast<std::size_t>(i)].tasks.store(
                share_of(loop_, tasks * i / workers, tasks * (i + 1) / workers), std::memory_order_release);
        loops_.fetch_add(1, std::memory_order_release);
        loops_.notify_all();
        work(0, workers);
        for (std::int64_t left; (left = unfinished_.load(std::memory_order_acquire)) > 0;)
            wait_while(unfinished_, left);
    }

    /// Tasks [begin, end) of a loop that are not taken; the number of the loop tells it from the share of any other.
    static constexpr std::uint64_t share_of(std::uint32_t loop, std::int64_t begin, std::int64_t end) {
        return std::uint64_t{loop} << 32 | static_cast<std::uint64_t>(end) << 16 | static_cast<std::uint64_t>(begin);
    }

    /// Takes tasks of the present loop until there are none: its own share from the front, then those of others from
    /// the back. Loops over the same rows give a thread the same rows, which its own caches have.
    void work(int self, int workers) {
        std::int64_t done = 0;
        t_in_task = true;
        for (int i = 0; i < workers; ++i) {
            std::atomic<std::uint64_t>& share = shares_[static_cast<std::size_t>((self + i) % workers)].tasks;
            for (std::uint64_t seen = share.load(std::memory_order_acquire);;) {
                const std::uint64_t begin = seen & 0xffff, end = seen >> 16 & 0xffff;
                const std::int64_t first = first_.load(std::memory_order_acquire);
                const Call call = call_.load(std::memory_order_acquire);
                void* const context = context_.load(std::memory_order_acquire);
                if (begin >= end) break;
                const bool is_own = i == 0;
                const std::uint64_t left = is_own ? seen + 1 : seen - (1U << 16);
                if (!share.compare_exchange_weak(seen, left, std::memory_order_acq_rel, std::memory_order_acquire))
                    continue;
                // The loop is not over before its tasks are counted: what belongs to it still stands.
                call(context, first + static_cast<std::int64_t>(is_own ? begin : end - 1));
                ++done;
                seen = share.load(std::memory_order_acquire);
            }
        }
        t_in_task = false;
        if (done > 0 && unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done) unfinished_.notify_one();
    }

    void help(int index) {
        for (std::uint32_t seen = 0;;) {
            wait_while(loops_, seen);
            seen = loops_.load(std::memory_order_acquire);
            if (stop_) return;
            const int workers = workers_.load(std::memory_order_acquire);
            if (index + 1 < workers) work(index + 1, workers);
        }
    }

    template <class T>
    void wait_while(const std::atomic<T>& value, T old) const {
        for (int i = spins_.load(std::memory_order_relaxed); i > 0; --i) {
            if (value.load(std::memory_order_acquire) != old) return;
            pause_briefly();
        }
        value.wait(old, std::memory_order_acquire);
    }

    const pid_t process_ = ::getpid();
    const int processors_ = available_processors();
    std::atomic<bool> busy_{false};
    std::atomic<bool> stop_{false};
    std::atomic<int> spins_{0};
    std::vector<std::thread> helpers_;
    std::uint32_t loop_ = 0; ///< number of the present one
    // The present loop. Every line that threads contend for is its own.
    struct alignas(64) Share {
        std::atomic<std::uint64_t> tasks{0}; ///< share_of()
    };
    std::array<Share, kMostThreads> shares_;          ///< by thread, the caller first
    alignas(64) std::atomic<std::uint32_t> loops_{0}; ///< counts loops; helpers wait for it to change
    alignas(64) std::atomic<std::int64_t> unfinished_{0};
    alignas(64) std::atomic<std::int64_t> first_{0};
    std::atomic<Call> call_{nullptr};
    std::atomic<void*> context_{nullptr};
    std::atomic<int> workers_{0};
};

Pool& pool() {
    static Pool pool;
    return pool;
}

} // namespace

int available_processors() {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
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
    if (workers > 1 && tasks > 1 && !t_in_task && pool().run(tasks, call, context, workers)) return;
    for (std::int64_t i = 0; i < tasks; ++i)
        call(context, i);
}

} // namespace ballast
