// Optimizer steps: one pass over parameters, moments and gradients, bound by memory bandwidth. The squares for the
// stability record are taken on the way, in double, for which a vector of parameters has as many lanes as a vector of
// doubles. x - x, 0 for a finite x and NaN otherwise, is summed to see what is not finite.

#include "ballast/kernels/update.h"

#include <algorithm>
#include <array>

#include "ballast/base/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/update.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using D = HalfRealTag;

/// Replaces p[i] by new_parameter(access, i, p[i]) and takes the statistics.
template <class Body>
HWY_INLINE UpdateStats update(real* p, std::int64_t n, Body&& new_parameter) {
    const D d;
    auto not_finite = Zero(d);
    UpdateStats stats;
    two_sums(DoubleTag(), n, stats.update_squares, stats.parameter_squares,
             [&](auto at, std::int64_t i, auto& updates, auto& parameters) BALLAST_INLINE_LAMBDA {
                 const auto old = at.load(d, p + i);
                 const auto now = at.keep(d, new_parameter(at, i, old), Zero(d));
                 at.store(now, d, p + i);
                 const auto change = to_double(Sub(now, old));
                 const auto value = to_double(now);
                 updates = MulAdd(change, change, updates);
                 parameters = MulAdd(value, value, parameters);
                 not_finite = Add(not_finite, Sub(now, now));
             });
    stats.finite = GetLane(SumOfLanes(d, not_finite)) == 0;
    return stats;
}

UpdateStats adamw_range(real* p, real* m, real* v, const real* gradient, std::int64_t n, const AdamWStep& step) {
    const D d;
    const auto scale = Set(d, step.gradient_scale);
    const auto beta1 = Set(d, step.beta1), rest1 = Set(d, 1 - step.beta1);
    const auto beta2 = Set(d, step.beta2), rest2 = Set(d, 1 - step.beta2);
    const auto rate = Set(d, step.lr * step.correction1), correction2 = Set(d, step.correction2);
    const auto eps = Set(d, step.eps), decay = Set(d, step.decay);
    return update(p, n, [=](auto at, std::int64_t i, auto old) BALLAST_INLINE_LAMBDA {
        const auto g = Mul(scale, at.load(d, gradient + i));
        const auto m_new = MulAdd(beta1, at.load(d, m + i), Mul(rest1, g));
        const auto v_new = MulAdd(beta2, at.load(d, v + i), Mul(rest2, Mul(g, g)));
        at.store(m_new, d, m + i);
        at.store(v_new, d, v + i);
        const auto change = Div(Mul(rate, m_new), Add(Sqrt(Mul(v_new, correction2)), eps));
        return Sub(old, MulAdd(decay, old, change));
    });
}

UpdateStats sgd_range(real* p, real* velocity, const real* gradient, std::int64_t n, const SgdStep& step) {
    const D d;
    const auto scale = Set(d, step.gradient_scale);
    const auto momentum = Set(d, step.momentum);
    const auto lr = Set(d, step.lr), decay = Set(d, step.decay);
    const bool plain = step.momentum == 0, nesterov = step.nesterov;
    return update(p, n, [=](auto at, std::int64_t i, auto old) BALLAST_INLINE_LAMBDA {
        auto direction = Mul(scale, at.load(d, gradient + i));
        if (!plain) {
            const auto v_new = MulAdd(momentum, at.load(d, velocity + i), direction);
            at.store(v_new, d, velocity + i);
            direction = nesterov ? MulAdd(momentum, v_new, direction) : v_new;
        }
        return Sub(old, MulAdd(decay, old, Mul(lr, direction)));
    });
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(adamw_range);
HWY_EXPORT(sgd_range);

/// Calls step(begin, count) for chunks of [0, n), at most kChunks of them, and adds their statistics in order.
template <class Step>
UpdateStats in_chunks(std::int64_t n, Step&& step) {
    constexpr std::int64_t kChunks = 256;
    const std::int64_t chunk = std::max(rows_per_task(1), (n + kChunks - 1) / kChunks);
    std::array<UpdateStats, kChunks> parts;
    parallel_ranges(n, chunk, [&](std::int64_t begin, std::int64_t end) {
        parts[static_cast<std::size_t>(begin / chunk)] = step(begin, end - begin);
    });
    UpdateStats total;
    for (const UpdateStats& part : parts) {
        total.update_squares += part.update_squares;
        total.parameter_squares += part.parameter_squares;
        total.finite = total.finite && part.finite;
    }
    return total;
}

} // namespace

UpdateStats adamw_update(real* p, real* m, real* v, const real* gradient, std::int64_t n, const AdamWStep& step) {
    return in_chunks(n, [&](std::int64_t begin, std::int64_t count) {
        return HWY_DYNAMIC_DISPATCH(adamw_range)(p + begin, m + begin, v + begin, gradient + begin, count, step);
    });
}

UpdateStats sgd_update(real* p, real* velocity, const real* gradient, std::int64_t n, const SgdStep& step) {
    real* const first = step.momentum == 0 ? nullptr : velocity;
    return in_chunks(n, [&](std::int64_t begin, std::int64_t count) {
        return HWY_DYNAMIC_DISPATCH(sgd_range)(p + begin, first != nullptr ? first + begin : nullptr, gradient + begin,
                                               count, step);
    });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
