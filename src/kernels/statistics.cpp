#include "ballast/kernels/statistics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

#include "ballast/base/arena.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/statistics.cpp"
#include "hwy/foreach_target.h" // IWYU pragma: keep
#include "hwy/highway.h"
#include "simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace ballast::inline BALLAST_PRECISION {
namespace HWY_NAMESPACE {
namespace {

using TwoSums = std::array<double, 2>;

TwoSums sum_and_squares(const real* x, std::int64_t n) {
    const HalfRealTag d;
    TwoSums sums{};
    two_sums(DoubleTag(), n, sums[0], sums[1],
             [=](auto at, std::int64_t i, auto& sum, auto& squares) BALLAST_INLINE_LAMBDA {
                 const auto v = to_double(at.load(d, x + i));
                 sum = Add(sum, v);
                 squares = MulAdd(v, v, squares);
             });
    return sums;
}

/// Second and fourth powers of the distances from `mean`.
TwoSums central_powers(const real* x, double mean, std::int64_t n) {
    const HalfRealTag d;
    const DoubleTag dd;
    const auto centre = Set(dd, mean);
    TwoSums sums{};
    two_sums(dd, n, sums[0], sums[1], [=](auto at, std::int64_t i, auto& second, auto& fourth) BALLAST_INLINE_LAMBDA {
        const auto v = at.keep(dd, Sub(to_double(at.load(d, x + i)), centre), Zero(dd));
        const auto square = Mul(v, v);
        second = Add(second, square);
        fourth = MulAdd(square, square, fourth);
    });
    return sums;
}

} // namespace
} // namespace HWY_NAMESPACE
} // namespace ballast::inline BALLAST_PRECISION
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace ballast::inline BALLAST_PRECISION {
namespace {

HWY_EXPORT(sum_and_squares);
HWY_EXPORT(central_powers);

constexpr std::int64_t kPieces = 256;

/// The sum of piece(begin, end) over [0, count), cut into pieces of `grain`, or more so that there are kPieces at most.
template <class Sums, class Piece, class Add>
Sums sum_of_pieces(std::int64_t count, std::int64_t grain, Piece&& piece, Add&& add) {
    std::array<Sums, kPieces> sums;
    grain = std::max(grain, (count + kPieces - 1) / kPieces);
    parallel_ranges(count, grain, [&](std::int64_t begin, std::int64_t end) {
        sums[static_cast<std::size_t>(begin / grain)] = piece(begin, end);
    });
    Sums total{};
    for (std::int64_t i = 0; i * grain < count; ++i)
        add(total, sums[static_cast<std::size_t>(i)]);
    return total;
}

} // namespace

Moments moments(const real* x, std::int64_t n) {
    using Sums = std::array<double, 2>;
    const auto add = [](Sums& total, const Sums& part) {
        total[0] += part[0];
        total[1] += part[1];
    };
    const auto count = static_cast<double>(n);
    const Sums raw = sum_of_pieces<Sums>(
        n, rows_per_task(1),
        [&](std::int64_t begin, std::int64_t end) {
            return HWY_DYNAMIC_DISPATCH(sum_and_squares)(x + begin, end - begin);
        },
        add);
    Moments result{raw[0] / count, std::sqrt(raw[1] / count), 0};
    const Sums central = sum_of_pieces<Sums>(
        n, rows_per_task(1),
        [&](std::int64_t begin, std::int64_t end) {
            return HWY_DYNAMIC_DISPATCH(central_powers)(x + begin, result.mean, end - begin);
        },
        add);
    if (central[0] != 0) result.kurtosis = count * central[1] / (central[0] * central[0]);
    return result;
}

std::int64_t columns_never_positive(const real* x, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
    constexpr std::int64_t kStrip = 512;
    const auto strip_count = [=](std::int64_t begin, std::int64_t end) {
        std::array<unsigned char, kStrip> positive{};
        for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t column = begin; column < end; ++column)
                positive[static_cast<std::size_t>(column - begin)] |=
                    static_cast<unsigned char>(x[row * stride + column] > 0);
        return static_cast<std::int64_t>(std::count(positive.begin(), positive.begin() + (end - begin), 0));
    };
    // Strips are whole however wide the matrix is, since their flags are on the stack.
    return sum_of_pieces<std::int64_t>((columns + kStrip - 1) / kStrip, 1,
                                       [&](std::int64_t begin, std::int64_t end) {
                                           std::int64_t count = 0;
                                           for (std::int64_t strip = begin; strip < end; ++strip)
                                               count +=
                                                   strip_count(strip * kStrip, std::min((strip + 1) * kStrip, columns));
                                           return count;
                                       },
                                       [](std::int64_t& total, std::int64_t part) { total += part; });
}

double mean_angle(const real* a, const real* b, std::int64_t rows, std::int64_t width) {
    const double sum = sum_of_pieces<double>(
        rows, rows_per_task(width),
        [&](std::int64_t begin, std::int64_t end) {
            double angles = 0;
            for (std::int64_t row = begin; row < end; ++row) {
                const real* const u = a + row * width;
                const real* const v = b + row * width;
                const auto uu = static_cast<double>(dot_row(u, u, width));
                const auto vv = static_cast<double>(dot_row(v, v, width));
                const double cosine = static_cast<double>(dot_row(u, v, width)) / std::sqrt(uu * vv);
                angles += uu == 0 || vv == 0 ? 0 : std::acos(std::clamp(cosine, -1.0, 1.0));
            }
            return angles;
        },
        [](double& total, double part) { total += part; });
    return sum / (std::numbers::pi * static_cast<double>(rows));
}

void attention_statistics(double* max_logits, double* entropies, const real* qkv, const AttentionShape& shape,
                          std::int64_t sequences) {
    constexpr std::int64_t kQueryBlock = 64;
    sequences = std::min(sequences, shape.batch);
    const std::int64_t stride = shape.packed_width();
    const real scale = 1 / std::sqrt(static_cast<real>(shape.head_width));
    parallel_for(shape.heads, [&](std::int64_t head) {
        const auto slope = static_cast<real>(shape.alibi ? alibi_slope(head, shape.heads) : 0);
        const std::int64_t kv_head = head / (shape.heads / shape.kv_heads);
        Arena& scratch = worker_scratch();
        double max_logit = -std::numeric_limits<double>::infinity();
        double entropy = 0;
        for (std::int64_t sequence = 0; sequence < sequences; ++sequence) {
            const real* const rows = qkv + sequence * shape.time * stride;
            const real* const queries = rows + head * shape.head_width;
            const real* const keys = rows + (shape.heads + kv_head) * shape.head_width;
            for (std::int64_t begin = 0; begin < shape.time; begin += kQueryBlock) {
                const std::int64_t count = std::min(kQueryBlock, shape.time - begin);
                const std::int64_t visible_to_last = begin + count;
                const Arena::Mark mark(scratch);
                real* const logits = scratch.allocate<real>(count * visible_to_last);
                real* const weights = scratch.allocate<real>(visible_to_last);
                gemm_in_task(count, visible_to_last, shape.head_width, scale, {queries + begin * stride, stride},
                             {keys, stride, true}, 0, logits, visible_to_last);
                for (std::int64_t r = 0; r < count; ++r) {
                    real* const row = logits + r * visible_to_last;
                    const std::int64_t visible = begin + r + 1;
                    for (std::int64_t j = 0; slope != 0 && j < visible; ++j)
                        row[j] -= slope * static_cast<real>(begin + r - j);
                    // The entropy of weights w = e^(x - max) / sum is log sum - sum of w (x - max).
                    std::copy_n(row, visible, weights);
                    real max = 0;
                    const real sum = exp_row(weights, visible, max);
                    for (std::int64_t j = 0; j < visible; ++j)
                        row[j] -= max;
                    entropy += static_cast<double>(std::log(sum) - dot_row(weights, row, visible) / sum);
                    max_logit = std::isnan(sum) ? std::numeric_limits<double>::quiet_NaN()
                                                : std::max(max_logit, static_cast<double>(max));
                }
            }
        }
        max_logits[head] = max_logit;
        entropies[head] = entropy / static_cast<double>(sequences * shape.time);
    });
}

} // namespace ballast::inline BALLAST_PRECISION
#endif
