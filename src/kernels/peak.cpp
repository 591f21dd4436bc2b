#include "ballast/kernels/peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "ballast/base/arena.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/elementwise.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/peak.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

/// Multiply-adds of independent chains, as many as hide the latency of two units (4 to 5 cycles) and still fit, with
/// their two operands, into 16 registers. Returns the operations done; `result` keeps the compiler from dropping them.
double multiply_adds(std::int64_t rounds, real* result) {
    const ScalableTag<real> d;
    const auto a = Set(d, real(0.999)), b = Set(d, real(0.001)); // the chains converge to 1
    // Each chain starts elsewhere: a compiler computes equal ones once.
    auto x0 = Zero(d), x1 = Set(d, real(0.1)), x2 = Set(d, real(0.2)), x3 = Set(d, real(0.3)), x4 = Set(d, real(0.4)),
         x5 = Set(d, real(0.5)), x6 = Set(d, real(0.6)), x7 = Set(d, real(0.7)), x8 = Set(d, real(0.8)),
         x9 = Set(d, real(0.9)), x10 = Set(d, real(1.1)), x11 = Set(d, real(1.2));
    for (std::int64_t i = 0; i < rounds; ++i) {
        x0 = MulAdd(x0, a, b);
        x1 = MulAdd(x1, a, b);
        x2 = MulAdd(x2, a, b);
        x3 = MulAdd(x3, a, b);
        x4 = MulAdd(x4, a, b);
        x5 = MulAdd(x5, a, b);
        x6 = MulAdd(x6, a, b);
        x7 = MulAdd(x7, a, b);
        x8 = MulAdd(x8, a, b);
        x9 = MulAdd(x9, a, b);
        x10 = MulAdd(x10, a, b);
        x11 = MulAdd(x11, a, b);
    }
    const auto sum =
        Add(Add(Add(x0, x1), Add(x2, x3)), Add(Add(Add(x4, x5), Add(x6, x7)), Add(Add(x8, x9), Add(x10, x11))));
    *result = GetLane(SumOfLanes(d, sum));
    return 2.0 * 12.0 * static_cast<double>(Lanes(d)) * static_cast<double>(rounds);
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {
HWY_EXPORT(multiply_adds);
} // namespace

double measure_peak_flops(double seconds) {
    using Clock = std::chrono::steady_clock;
    struct alignas(64) Slot {
        double operations;
        real result;
    };
    const std::int64_t workers = threads();
    std::vector<Slot> slots(static_cast<std::size_t>(workers));
    // Tries that get longer until each takes a tenth of the time, long beside the start of the threads: one that
    // somebody else's work held up is short of rounds, not of time, and says nothing about the next.
    std::int64_t rounds = 1 << 16;
    double best = 0;
    for (double spent = 0, elapsed = 0; spent < seconds; spent += elapsed) {
        const auto start = Clock::now();
        parallel_for(workers, [&](std::int64_t i) {
            Slot& slot = slots[static_cast<std::size_t>(i)];
            slot.operations = HWY_DYNAMIC_DISPATCH(multiply_adds)(rounds, &slot.result);
        });
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        double operations = 0;
        for (const Slot& slot : slots)
            operations += slot.operations;
        best = std::max(best, operations / elapsed);
        if (elapsed < seconds / 10) rounds *= 2;
    }
    return best;
}

double measure_bandwidth(double seconds) {
    using Clock = std::chrono::steady_clock;
    constexpr std::int64_t kElements = (std::int64_t{1} << 27) / sizeof(real); // 128 MiB an array
    Arena memory;                                                              // for its large pages
    real* arrays[3];
    for (real*& array : arrays) {
        array = memory.allocate<real>(kElements);
        std::fill_n(array, kElements, real(1));
    }
    double best = 0;
    for (double spent = 0, elapsed = 0; spent < seconds; spent += elapsed) {
        const auto start = Clock::now();
        axpby(arrays[0], real(0.5), arrays[1], real(1), arrays[2], kElements);
        elapsed = std::chrono::duration<double>(Clock::now() - start).count();
        best = std::max(best, 3.0 * sizeof(real) * static_cast<double>(kElements) / elapsed);
    }
    return best;
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
