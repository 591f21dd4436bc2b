// Activations against the C library's functions in double precision.

#include "ballast/kernels/activation.h"

#include <bit>
#include <cstdint>
#include <limits>
#include <numbers>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

const Activation kAll[] = {Activation::identity, Activation::gelu, Activation::gelu_tanh, Activation::relu,
                           Activation::relu2,    Activation::silu, Activation::sigmoid,   Activation::tanh,
                           Activation::erf,      Activation::exp};

double sigmoid(double x) { return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x)); }

double reference(Activation kind, double x) {
    switch (kind) {
    case Activation::identity: return x;
    case Activation::gelu: return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh: {
        const double u = std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x);
        return u < 0 ? x * sigmoid(2 * u) : 0.5 * x * (1 + std::tanh(u));
    }
    case Activation::relu: return std::isnan(x) ? x : std::max(x, 0.0);
    case Activation::relu2: return std::isnan(x) ? x : std::max(x, 0.0) * std::max(x, 0.0);
    case Activation::silu: return x * sigmoid(x);
    case Activation::sigmoid: return sigmoid(x);
    case Activation::tanh: return std::tanh(x);
    case Activation::erf: return std::erf(x);
    case Activation::exp: return std::exp(x);
    }
    return 0;
}

double reference_slope(Activation kind, double x) {
    return slope([&](double v) { return reference(kind, v); }, x);
}

Doubles references(Activation kind, const Reals& x) {
    Doubles y;
    for (const real v : x)
        y.push_back(reference(kind, v));
    return y;
}

/// What an error is measured against: the value itself, but in the tails of x Phi(x) and the like, where the rounding
/// of the exponent costs digits, a hundredth of x.
Doubles scales(const Reals& x, const Doubles& y) {
    Doubles scale;
    for (std::size_t i = 0; i < y.size(); ++i)
        scale.push_back(std::max(std::abs(y[i]), 1e-2 * std::abs(static_cast<double>(x[i])) * (x[i] < -1)) + 1e-37);
    return scale;
}

/// Slopes are sums of terms of size 1 (exp: of its own size).
Doubles slope_scales(Activation kind, const Doubles& slopes) {
    Doubles scale;
    for (const double s : slopes)
        scale.push_back(kind == Activation::exp ? std::abs(s) : 1 + std::abs(s));
    return scale;
}

/// Central differences are good to about 1e-10, which shows in the double build alone.
constexpr double kSlopeTolerance = 6 + 2e-9 / kEpsilon;

Reals inputs(std::int64_t n, std::uint64_t seed) {
    Reals x = random_reals(n, seed, 4);
    for (real& v : x) // no kink within the step of the central differences
        if (std::abs(v) < real(1e-3)) v = real(0.1);
    return x;
}

/// Both zeros, and every 4099th of all bit patterns: NaNs, infinities and subnormal numbers among them.
Reals floats_of_every_size() {
    Reals x = {0, real(-0.0)};
    for (std::uint64_t bits = 0; bits < std::uint64_t{1} << 32; bits += 4099)
        x.push_back(static_cast<real>(std::bit_cast<float>(static_cast<std::uint32_t>(bits))));
    return x;
}

} // namespace

TEST_CASE("activations equal the C library's functions", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    on_every_target([&] {
        for (const std::int64_t n : {1, 3, 7, 8, 33, 1000, 40001}) {
            CAPTURE(static_cast<int>(kind), n);
            const Reals x = random_reals(n, 1, 4);
            const Doubles expected = references(kind, x);
            Reals y(index(n), kNaN);
            activation_forward(kind, y.data(), x.data(), n);
            CHECK(worst_error(y, expected, scales(x, expected)) < 5);

            Reals in_place = x;
            activation_forward(kind, in_place.data(), in_place.data(), n);
            CHECK(same_bits(in_place, y));
            Reals range(index(n));
            activation_forward_range(kind, range.data(), x.data(), n);
            CHECK(same_bits(range, y));
        }
    });
}

TEST_CASE("activations of extreme inputs", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    on_every_target([&] {
        CAPTURE(static_cast<int>(kind));
        // Finite inputs of every size: finite results wherever the function has them (exp and relu2 overflow).
        Reals x = {0, kTiny, -kTiny, real(1e-8), real(-1e-8), 20, -20, 87, -87, 100, -100, 700, -700, 1000, -1000};
        for (const real v : {kHuge, std::numeric_limits<real>::max()}) {
            x.push_back(v);
            x.push_back(-v);
        }
        const auto n = static_cast<std::int64_t>(x.size());
        const Doubles expected = references(kind, x);
        Reals y(x.size()), slopes(x.size());
        activation_forward(kind, y.data(), x.data(), n);
        activation_backward(kind, {slopes.data(), false}, Reals(x.size(), 1).data(), x.data(), n);
        for (std::size_t i = 0; i < x.size(); ++i) {
            CAPTURE(x[i], y[i], expected[i], slopes[i]);
            // Beyond the largest number of the format is infinity; what would be subnormal may be 0.
            if (std::abs(expected[i]) > static_cast<double>(std::numeric_limits<real>::max()))
                CHECK(y[i] == kInfinity);
            else
                CHECK(std::abs(y[i] - expected[i]) <=
                      8 * kEpsilon * std::abs(expected[i]) + static_cast<double>(std::numeric_limits<real>::min()));
            CHECK_FALSE(std::isnan(slopes[i]));
        }
    });
}

TEST_CASE("activations hand a NaN on, and infinities where they have a limit", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    on_every_target([&] {
        for (const std::int64_t n : {1, 5, 40}) {
            for (std::int64_t at = 0; at < n; ++at) {
                CAPTURE(static_cast<int>(kind), n, at);
                Reals x = random_reals(n, 1), y(index(n)), clean(index(n));
                activation_forward(kind, clean.data(), x.data(), n);
                x[index(at)] = kNaN;
                activation_forward(kind, y.data(), x.data(), n);
                CHECK(std::isnan(y[index(at)]));
                y[index(at)] = clean[index(at)];
                CHECK(same_bits(y, clean));
                // A NaN with another payload.
                x[index(at)] = -std::numeric_limits<real>::signaling_NaN();
                activation_forward(kind, y.data(), x.data(), n);
                CHECK(std::isnan(y[index(at)]));
            }
        }
        Reals x = {kInfinity, -kInfinity}, y(2);
        activation_forward(kind, y.data(), x.data(), 2);
        CHECK(y[0] == static_cast<real>(reference(kind, std::numeric_limits<double>::infinity())));
    });
}

TEST_CASE("tanh and erf of floats of every size are right to a few units in the last place", "[kernels][activation]") {
    const Activation kind = GENERATE(Activation::tanh, Activation::erf);
    const Reals x = floats_of_every_size();
    const Doubles expected = references(kind, x);
    on_every_target([&] {
        // AVX-512 has an erf of its own. A looser bound would not tell what it has beyond 3.6 from 1.
        const bool has_avx512 = HWY_ARCH_X86 && hwy::SupportedTargets() <= HWY_AVX3;
        const double most = kind == Activation::erf && has_avx512 ? 3 : 8;
        Reals y(x.size());
        activation_forward(kind, y.data(), x.data(), static_cast<std::int64_t>(x.size()));
        double worst = 0, at = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double value = expected[i];
            if (std::isnan(value) && std::isnan(y[i])) continue;
            const bool kept = std::signbit(y[i]) == std::signbit(x[i]) && std::abs(y[i]) <= 1;
            const double unit = std::max(value == 0 ? 0 : std::ldexp(kEpsilon, std::ilogb(value)),
                                         static_cast<double>(std::numeric_limits<real>::denorm_min()));
            const double error = std::abs(static_cast<double>(y[i]) - value) / unit;
            if (kept && error <= worst) continue;
            worst = kept ? error : std::numeric_limits<double>::infinity();
            at = x[i];
        }
        CAPTURE(static_cast<int>(kind), at);
        CHECK(worst < most);
    });
}

TEST_CASE("erf's slope at floats of every size is right to a few units and what the exponent's rounding makes",
          "[kernels][activation]") {
    const Reals x = floats_of_every_size();
    const Reals ones(x.size(), 1);
    on_every_target([&] {
        Reals slopes(x.size());
        activation_backward(Activation::erf, {slopes.data(), false}, ones.data(), x.data(),
                            static_cast<std::int64_t>(x.size()));
        double worst = 0, at = 0; // in parts of what is allowed
        for (std::size_t i = 0; i < x.size(); ++i) {
            const double v = static_cast<double>(x[i]), slope = static_cast<double>(slopes[i]);
            if (std::isnan(v) && std::isnan(slope)) continue;
            const double expected = 2 * std::numbers::inv_sqrtpi * std::exp(-v * v);
            // In float what would be subnormal, or is close to that, is 0. An infinite square has a slope of 0.
            const double allowed = 1.2 * static_cast<double>(std::numeric_limits<real>::min()) +
                                   (expected == 0 ? 0 : expected * kEpsilon * (3 + 2 * v * v));
            const double error = std::abs(slope - expected) / allowed;
            const bool is_slow = sizeof(real) == 4 && std::fpclassify(slopes[i]) == FP_SUBNORMAL;
            if (error <= worst && !is_slow) continue;
            worst = is_slow || std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
            at = v;
        }
        CAPTURE(at);
        CHECK(worst < 1);
    });
}

TEST_CASE("exp of what masks attention scores is 0", "[kernels][activation]") {
    on_every_target([] {
        Reals y(index(9));
        activation_forward(Activation::exp, y.data(), Reals(9, real(-1e30)).data(), 9);
        CHECK(y == Reals(9, 0));
        activation_forward(Activation::exp, y.data(), Reals(9, -kInfinity).data(), 9);
        CHECK(y == Reals(9, 0));
        activation_forward(Activation::exp, y.data(), Reals(9, real(0)).data(), 9);
        CHECK(y == Reals(9, 1));
    });
}

TEST_CASE("activation backward is the derivative, written or added", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    on_every_target([&] {
        for (const std::int64_t n : {1, 3, 7, 33, 500}) {
            CAPTURE(static_cast<int>(kind), n);
            const Reals x = inputs(n, 2), ones(index(n), 1), dy = random_reals(n, 3), before = random_reals(n, 4);
            Doubles slopes;
            for (const real v : x)
                slopes.push_back(reference_slope(kind, v));
            Reals actual(index(n), kNaN);
            activation_backward(kind, {actual.data(), false}, ones.data(), x.data(), n);
            CHECK(worst_error(actual, slopes, slope_scales(kind, slopes)) < kSlopeTolerance);

            // With any dy the result is one product, or one product and a sum, away from the slopes.
            Doubles product, sum, sum_scale;
            for (std::size_t i = 0; i < x.size(); ++i) {
                product.push_back(static_cast<double>(dy[i]) * actual[i]);
                sum.push_back(product[i] + before[i]);
                sum_scale.push_back(std::abs(product[i]) + std::abs(before[i]));
            }
            Reals dx(index(n), kNaN), added = before, in_place = dy;
            activation_backward(kind, {dx.data(), false}, dy.data(), x.data(), n);
            CHECK(worst_error(dx, product, sum_scale) < 1);
            activation_backward(kind, {added.data(), true}, dy.data(), x.data(), n);
            CHECK(worst_error(added, sum, sum_scale) < 2);
            activation_backward(kind, {in_place.data(), false}, in_place.data(), x.data(), n);
            CHECK(same_bits(in_place, dx));
        }
    });
}

TEST_CASE("relu and its square have slope 0 at 0", "[kernels][activation]") {
    const Activation kind = GENERATE(Activation::relu, Activation::relu2);
    const Reals x = {0, real(-0.0), -1, 2};
    Reals dx(4);
    activation_backward(kind, {dx.data(), false}, Reals(4, 1).data(), x.data(), 4);
    CHECK(dx == Reals{0, 0, 0, kind == Activation::relu ? real(1) : real(4)});
}

TEST_CASE("bias and activation of strided rows", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    const bool with_bias = GENERATE(false, true);
    on_every_target([&] {
        for (const std::int64_t width : {1, 3, 16, 33, 70}) {
            const std::int64_t rows = 5, stride = width + 4, n = (rows - 1) * stride + width;
            CAPTURE(static_cast<int>(kind), with_bias, width);
            const Reals x = random_reals(n, 1), bias = random_reals(width, 2), untouched = random_reals(n, 3);
            Reals sums = untouched, expected = untouched;
            for (std::int64_t row = 0; row < rows; ++row)
                for (std::int64_t i = 0; i < width; ++i)
                    sums[index(row * stride + i)] = x[index(row * stride + i)] + (with_bias ? bias[index(i)] : real(0));
            for (std::int64_t row = 0; row < rows; ++row)
                activation_forward_range(kind, expected.data() + row * stride, sums.data() + row * stride, width);
            const Reals expected_pre = kind == Activation::identity ? untouched : sums;
            const real* const b = with_bias ? bias.data() : nullptr;

            Reals y = untouched, pre = untouched;
            bias_activation_rows(kind, y.data(), pre.data(), x.data(), b, rows, width, stride);
            CHECK(same_bits(y, expected));
            CHECK(same_bits(pre, expected_pre));

            // The input may be the output or the place for the sums.
            const auto mixed = [&](const Reals& inside) {
                Reals result = x; // between the rows x stays
                for (std::int64_t row = 0; row < rows; ++row)
                    std::copy_n(inside.begin() + row * stride, width, result.begin() + row * stride);
                return result;
            };
            Reals x_and_y = x;
            bias_activation_rows(kind, x_and_y.data(), pre.data(), x_and_y.data(), b, rows, width, stride);
            CHECK(same_bits(x_and_y, mixed(expected)));
            CHECK(same_bits(pre, expected_pre));
            Reals x_and_pre = x;
            y = untouched;
            bias_activation_rows(kind, y.data(), x_and_pre.data(), x_and_pre.data(), b, rows, width, stride);
            CHECK(same_bits(y, expected));
            CHECK(same_bits(x_and_pre, kind == Activation::identity ? x : mixed(sums)));
        }
    });
}

TEST_CASE("gated linear units", "[kernels][activation]") {
    const Activation kind = GENERATE(from_range(std::begin(kAll), std::end(kAll)));
    on_every_target([&] {
        for (const auto& [rows, width] : {std::pair{1, 1}, {3, 7}, {5, 16}, {2, 33}, {300, 130}}) {
            CAPTURE(static_cast<int>(kind), rows, width);
            const std::int64_t n = rows * width;
            const Reals gate = inputs(n, 1), up = random_reals(n, 2), dy = random_reals(n, 3);
            Reals x(index(2 * n)), f(index(n)), f_slope(index(n));
            for (std::int64_t row = 0; row < rows; ++row) {
                std::copy_n(gate.begin() + row * width, width, x.begin() + 2 * row * width);
                std::copy_n(up.begin() + row * width, width, x.begin() + (2 * row + 1) * width);
            }
            activation_forward(kind, f.data(), gate.data(), n);
            activation_backward(kind, {f_slope.data(), false}, Reals(index(n), 1).data(), gate.data(), n);
            const Reals before = random_reals(2 * n, 4);
            Doubles expected, dx, added, dx_scale, added_scale;
            for (std::int64_t row = 0; row < rows; ++row) {
                for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
                    expected.push_back(static_cast<double>(f[index(i)]) * up[index(i)]);
                    dx.push_back(static_cast<double>(dy[index(i)]) * up[index(i)] * f_slope[index(i)]);
                }
                for (std::int64_t i = row * width; i < (row + 1) * width; ++i)
                    dx.push_back(static_cast<double>(dy[index(i)]) * f[index(i)]);
            }
            for (std::size_t i = 0; i < dx.size(); ++i) {
                added.push_back(dx[i] + before[i]);
                dx_scale.push_back(std::abs(dx[i]) + 1e-37);
                added_scale.push_back(std::abs(dx[i]) + std::abs(before[i]));
            }
            Reals y(index(n), kNaN), actual(index(2 * n), kNaN), actual_added = before;
            glu_forward(kind, y.data(), x.data(), rows, width);
            CHECK(worst_error(y, expected) < 1);
            glu_backward(kind, {actual.data(), false}, dy.data(), x.data(), rows, width);
            CHECK(worst_error(actual, dx, dx_scale) < 2);
            glu_backward(kind, {actual_added.data(), true}, dy.data(), x.data(), rows, width);
            CHECK(worst_error(actual_added, added, added_scale) < 2);
        }
    });
}

TEST_CASE("activations give the same bits at any thread count", "[kernels][activation]") {
    const Activation kind = GENERATE(Activation::gelu, Activation::silu);
    const std::int64_t rows = 301, width = 257;
    const Reals x = random_reals(rows * 2 * width, 1), dy = random_reals(rows * 2 * width, 2);
    check_same_bits_at_any_thread_count([&] {
        Reals y(x.size()), dx(x.size()), gated(index(rows * width)), gated_dx(x.size());
        activation_forward(kind, y.data(), x.data(), rows * 2 * width);
        activation_backward(kind, {dx.data(), false}, dy.data(), x.data(), rows * 2 * width);
        glu_forward(kind, gated.data(), x.data(), rows, width);
        glu_backward(kind, {gated_dx.data(), false}, dy.data(), x.data(), rows, width);
        return std::vector<Reals>{y, dx, gated, gated_dx};
    });
}

TEST_CASE("soft-capping and its slope", "[kernels][activation]") {
    const double cap = GENERATE(0.5, 30.0);
    const auto capped = [cap](double v) { return cap * std::tanh(v / cap); };
    on_every_target([&] {
        CAPTURE(cap);
        const auto limit = static_cast<real>(cap);
        Reals x = random_reals(1003, 1, 2 * cap), dy = random_reals(1003, 2);
        for (const real v : {real(0), kTiny, kHuge, -kHuge, kInfinity, -kInfinity, kNaN}) {
            x.push_back(v);
            dy.push_back(1);
        }
        const auto n = static_cast<std::int64_t>(x.size());
        Doubles y, scale, dx, dx_scale;
        for (std::size_t i = 0; i < x.size(); ++i) {
            y.push_back(capped(static_cast<double>(x[i])));
            // Dividing by the cap rounds, which counts as much as the slope lets it.
            scale.push_back(std::isfinite(y[i]) ? std::abs(y[i]) + 1e-300 : 1);
            const double u = std::abs(static_cast<double>(x[i])) / cap, e = std::exp(-2 * u);
            dx.push_back(static_cast<double>(dy[i]) * 4 * e / ((1 + e) * (1 + e)));
            dx_scale.push_back(std::abs(static_cast<double>(dy[i])));
        }
        Reals actual(x.size(), kNaN), in_place = x, gradient(x.size(), kNaN), added(x.size(), real(1));
        softcap_forward(actual.data(), x.data(), limit, n);
        softcap_forward(in_place.data(), in_place.data(), limit, n);
        CHECK(worst_error(actual, y, scale) < 5);
        CHECK(same_bits(actual, in_place));
        softcap_backward({gradient.data(), false}, dy.data(), x.data(), limit, n);
        CHECK(worst_error(gradient, dx, dx_scale) < 5);
        softcap_backward({added.data(), true}, dy.data(), x.data(), limit, n);
        for (double& v : dx)
            v += 1;
        for (double& v : dx_scale)
            v += 1;
        CHECK(worst_error(added, dx, dx_scale) < 5);
    });
}
