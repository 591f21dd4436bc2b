// What the vector kernels share: loops with partial last vectors, sums, exp. Compiled once per Highway target,
// hence the toggling guard in place of `#pragma once`. A kernel file includes it after hwy/foreach_target.h.
//
// NaN rules. x86's min and max drop NaNs, Highway's Exp returns 0 for one; the functions here keep them.

#if defined(BALLAST_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef BALLAST_KERNELS_SIMD_INL_H_
#undef BALLAST_KERNELS_SIMD_INL_H_
#else
#define BALLAST_KERNELS_SIMD_INL_H_
#endif

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// A lambda does not inherit the target of the function around it under clang, and a loop body that is called from
// several places (main loop, unrolled loop, tail) would otherwise not be inlined.
#undef BALLAST_INLINE_LAMBDA
#define BALLAST_INLINE_LAMBDA HWY_ATTR __attribute__((always_inline))

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {

using namespace hwy::HWY_NAMESPACE;

/// Has memory that will be read soon brought into the second-level cache: the first is full of what is worked on now.
/// There need not be memory there.
HWY_INLINE void fetch(const real* from) { __builtin_prefetch(from, 0, 2); }

/// Access to a whole vector in memory.
struct Whole {
    template <class D>
    HWY_INLINE Vec<D> load(D d, const TFromD<D>* from) const {
        return LoadU(d, from);
    }
    template <class D>
    HWY_INLINE void store(Vec<D> v, D d, TFromD<D>* to) const {
        StoreU(v, d, to);
    }
    /// v, with `other` in the lanes that are not there.
    template <class D>
    HWY_INLINE Vec<D> keep(D, Vec<D> v, Vec<D> /*other*/) const {
        return v;
    }
};

/// Access to the first `count` lanes alone, at the end of an array: touches no memory behind it. Lanes that are not
/// there load as 0.
struct Part {
    std::size_t count;

    template <class D>
    HWY_INLINE Vec<D> load(D d, const TFromD<D>* from) const {
// AVX2's do, but not those of 32 and 64 bits; that of no vectors reads its element even where count is 0.
#if (HWY_MEM_OPS_MIGHT_FAULT && HWY_TARGET != HWY_AVX2) || HWY_TARGET == HWY_SCALAR
        HWY_ALIGN TFromD<D> lanes[MaxLanes(d)] = {};
        for (std::size_t i = 0; i < count; ++i)
            lanes[i] = from[i];
        return Load(d, lanes);
#else
        return MaskedLoad(FirstN(d, count), d, from);
#endif
    }
    template <class D>
    HWY_INLINE void store(Vec<D> v, D d, TFromD<D>* to) const {
#if HWY_MEM_OPS_MIGHT_FAULT
        HWY_ALIGN TFromD<D> lanes[MaxLanes(d)];
        Store(v, d, lanes);
        for (std::size_t i = 0; i < count; ++i)
            to[i] = lanes[i];
#else
        BlendedStore(v, FirstN(d, count), d, to);
#endif
    }
    template <class D>
    HWY_INLINE Vec<D> keep(D d, Vec<D> v, Vec<D> other) const {
        return IfThenElse(FirstN(d, count), v, other);
    }
};

/// body(access, i) for every vector of an array of n elements; `access` is Whole or, for the last, Part.
template <class D, class Body>
HWY_INLINE void for_vectors(D d, std::int64_t n, Body&& body) {
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    std::int64_t i = 0;
    for (; i + lanes <= n; i += lanes)
        body(Whole{}, i);
    if (i < n) body(Part{static_cast<std::size_t>(n - i)}, i);
}

/// Like Whole, but stores go past the caches: memory is not read before it is overwritten, and the caches keep what
/// they have. For aligned results that no cache can hold until they are used.
struct Streamed : Whole {
    template <class D>
    HWY_INLINE void store(Vec<D> v, D d, TFromD<D>* to) const {
        Stream(v, d, to);
    }
};

/// Whether rows of n elements from `to` on are whole vectors in their places, as Streamed stores need.
template <class D>
HWY_INLINE bool streamable(D d, const TFromD<D>* to, std::int64_t n) {
    const std::size_t lanes = Lanes(d);
    return static_cast<std::size_t>(n) % lanes == 0 &&
           reinterpret_cast<std::uintptr_t>(to) % (lanes * sizeof(TFromD<D>)) == 0;
}

/// for_vectors, or the same with `stream`: for streamable rows. FlushStream() has to follow the last row.
template <class D, class Body>
HWY_INLINE void for_vectors_to(bool stream, D d, std::int64_t n, Body&& body) {
    if (!stream) return for_vectors(d, n, body);
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    for (std::int64_t i = 0; i < n; i += lanes)
        body(Streamed{}, i);
}

/// for_vectors_to, several vectors at a time: body(count, access, i) for `count` of them, an integral constant.
template <std::int64_t kMost, class D, class Body>
HWY_INLINE void for_vector_groups_to(bool stream, D d, std::int64_t n, Body&& body) {
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    std::int64_t i = 0;
    const auto whole = [&](auto count, auto access) BALLAST_INLINE_LAMBDA {
        for (; i + count * lanes <= n; i += count * lanes)
            body(count, access, i);
    };
    const auto all = [&](auto access) BALLAST_INLINE_LAMBDA {
        whole(std::integral_constant<std::int64_t, kMost>(), access);
        if constexpr (kMost > 2) whole(std::integral_constant<std::int64_t, 2>(), access);
        if constexpr (kMost > 1) whole(std::integral_constant<std::int64_t, 1>(), access);
    };
    if (stream) return all(Streamed{});
    all(Whole{});
    if (i < n) body(std::integral_constant<std::int64_t, 1>(), Part{static_cast<std::size_t>(n - i)}, i);
}

/// Two sums in one loop: body(access, i, a, b) adds its vectors to a and b. Two pairs of accumulators hide the latency
/// of the additions.
template <class D, class Body>
HWY_INLINE void two_sums(D d, std::int64_t n, TFromD<D>& first, TFromD<D>& second, Body&& body) {
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    auto a0 = Zero(d), a1 = Zero(d), b0 = Zero(d), b1 = Zero(d);
    std::int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        body(Whole{}, i, a0, b0);
        body(Whole{}, i + lanes, a1, b1);
    }
    if (i + lanes <= n) {
        body(Whole{}, i, a0, b0);
        i += lanes;
    }
    if (i < n) body(Part{static_cast<std::size_t>(n - i)}, i, a1, b1);
    first = GetLane(SumOfLanes(d, Add(a0, a1)));
    second = GetLane(SumOfLanes(d, Add(b0, b1)));
}

/// One sum, likewise, with four accumulators.
template <class D, class Body>
HWY_INLINE TFromD<D> one_sum(D d, std::int64_t n, Body&& body) {
    const auto lanes = static_cast<std::int64_t>(Lanes(d));
    auto s0 = Zero(d), s1 = Zero(d), s2 = Zero(d), s3 = Zero(d);
    std::int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes) {
        body(Whole{}, i, s0);
        body(Whole{}, i + lanes, s1);
        body(Whole{}, i + 2 * lanes, s2);
        body(Whole{}, i + 3 * lanes, s3);
    }
    for (; i + lanes <= n; i += lanes)
        body(Whole{}, i, s0);
    if (i < n) body(Part{static_cast<std::size_t>(n - i)}, i, s1);
    return GetLane(SumOfLanes(d, Add(Add(s0, s1), Add(s2, s3))));
}

/// target[i] (+)= v. Memory that is only written is not read: it may hold NaNs from the step before.
template <class Access, class D>
HWY_INLINE void put(Access at, D d, Grad target, std::int64_t i, Vec<D> v) {
    // Not one store of a ?: of two vectors: GCC 12 makes that a masked addition for AVX-512, and where the mask is
    // spilled (Gelu in double) adds in the first lane alone.
    if (target.add)
        at.store(Add(at.load(d, target.data + i), v), d, target.data + i);
    else
        at.store(v, d, target.data + i);
}

/// Loads optional[i], or `otherwise` when the array is null.
template <class Access, class D>
HWY_INLINE Vec<D> load_or(Access at, D d, const TFromD<D>* optional, std::int64_t i, Vec<D> otherwise) {
    return optional != nullptr ? at.load(d, optional + i) : otherwise;
}

/// A vector of `real` with as many lanes as one of double has, for kernels that accumulate in double.
using DoubleTag = ScalableTag<double>;
using HalfRealTag = Rebind<real, DoubleTag>;

template <class V>
HWY_INLINE Vec<DoubleTag> to_double(V v) {
    if constexpr (std::is_same_v<real, double>)
        return v;
    else
        return PromoteTo(DoubleTag(), v);
}

/// e^x. NaN gives NaN. float: 1.02 ulp where the result is a normal number (over every x from 2^-14 in size), 0 where
/// it would be subnormal, which no caller needs and which would be slow. double: Highway's, 1 ulp.
template <class D>
HWY_INLINE Vec<D> exp_of(D d, Vec<D> x) {
    using T = TFromD<D>;
    const auto infinity = Set(d, std::numeric_limits<T>::infinity());
    if constexpr (std::is_same_v<T, double>) {
        // Beyond the bounds Highway's reduction leaves its range; at them it gives infinity and 0.
        const auto high = Set(d, 709.8), low = Set(d, -745.2);
        const auto inside = IfThenElse(Gt(x, high), high, IfThenElse(Lt(x, low), low, x));
        const auto y = IfThenElse(Gt(x, high), infinity, Exp(d, inside));
        return IfThenElse(Eq(x, x), y, x);
    } else {
        // x = n ln 2 + r, |r| <= ln(2)/2; e^x = 2^n (1 + r + r^2 p(r)). Adding 1.5 * 2^23 rounds x / ln 2 to the
        // integer n and leaves it in the low bits. p is the weighted minimax fit of (e^r - 1 - r) / r^2 (Lawson's
        // algorithm): relative error 3.1e-9. The high part of ln 2 has 9 zero bits, so that n times it is exact.
        const RebindToSigned<D> di;
        const auto magic = Set(d, 12582912.0f);
        const auto shifted = MulAdd(x, Set(d, 1.44269504f), magic);
        const auto n = Sub(shifted, magic);
        const auto r = NegMulAdd(n, Set(d, -2.12194440e-4f), NegMulAdd(n, Set(d, 0.693359375f), x));
        auto p = Set(d, 0.00138144331f);
        p = MulAdd(p, r, Set(d, 0.00836879669f));
        p = MulAdd(p, r, Set(d, 0.0416683958f));
        p = MulAdd(p, r, Set(d, 0.1666652f));
        p = MulAdd(p, r, Set(d, 0.499999934f));
        const auto m = Add(MulAdd(Mul(r, r), p, r), Set(d, 1.0f));
        // m is in [0.7, 1.42]: adding n to its exponent multiplies by 2^n, even for n = 128, where 2^n is no float.
        const auto y = BitCast(d, Add(BitCast(di, m), ShiftLeft<23>(BitCast(di, shifted))));
        const auto not_above = IfThenElse(Le(x, Set(d, 88.72283f)), y, Add(x, infinity));
        return IfThenZeroElse(Lt(x, Set(d, -87.33f)), not_above);
    }
}

} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#endif // BALLAST_KERNELS_SIMD_INL_H_
