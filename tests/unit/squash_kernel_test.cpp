// DyT and Derf against their definitions in double precision, evaluated on the same inputs.

#include "ballast/kernels/squash.h"

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Shape {
    std::int64_t rows;
    std::int64_t width;
};

const Shape kShapes[] = {{1, 1}, {2, 3}, {5, 7}, {3, 16}, {45, 32}, {9, 33}, {70, 515}, {700, 40}};

double value(Squash kind, double u) { return kind == Squash::tanh ? std::tanh(u) : std::erf(u); }

double slope_at(Squash kind, double u) {
    if (kind == Squash::erf) return 1.12837916709551257390 * std::exp(-u * u);
    const double e = std::exp(-2 * std::abs(u));
    return 4 * e / ((1 + e) * (1 + e));
}

/// alpha x + shift, and the size of its terms: what its rounding is relative to, with or without fused multiply-adds.
struct Argument {
    double u;
    double size;

    Argument(real alpha, real x, real shift)
        : u(static_cast<double>(alpha) * static_cast<double>(x) + static_cast<double>(shift)),
          size(std::abs(static_cast<double>(alpha) * static_cast<double>(x)) + std::abs(static_cast<double>(shift))) {}
};

} // namespace

TEST_CASE("DyT and Derf equal their definitions", "[kernels][norm]") {
    const Squash kind = GENERATE(Squash::tanh, Squash::erf);
    const bool affine = GENERATE(false, true);
    const real alpha = real(0.7), shift = kind == Squash::tanh ? real(0) : real(0.3);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(static_cast<int>(kind), affine, shape.rows, shape.width);
            const Reals x = random_reals(shape.rows * shape.width, 1, 2);
            const Reals gain = random_reals(shape.width, 2), bias = random_reals(shape.width, 3);
            Reals y(x.size(), kNaN);
            squash_forward(kind, y.data(), x.data(), alpha, shift, affine ? gain.data() : nullptr,
                           affine ? bias.data() : nullptr, shape.rows, shape.width);
            Doubles expected, scale;
            for (std::size_t i = 0; i < x.size(); ++i) {
                const std::size_t column = i % index(shape.width);
                const Argument in(alpha, x[i], shift);
                const double f = value(kind, in.u);
                const double g = affine ? static_cast<double>(gain[column]) : 1;
                const double b = affine ? static_cast<double>(bias[column]) : 0;
                expected.push_back(f * g + b);
                scale.push_back(std::abs(g) * (std::abs(f) + slope_at(kind, in.u) * in.size) + std::abs(b));
            }
            CHECK(worst_error(y, expected, scale) < 4);
        }
    });
}

TEST_CASE("DyT and Derf at the ends of the number format", "[kernels][norm]") {
    const Squash kind = GENERATE(Squash::tanh, Squash::erf);
    on_every_target([&] {
        real all_bits = kNaN; // a NaN, too, and what is added to its bits may make it a number
        std::memset(&all_bits, 0xFF, sizeof(all_bits));
        const Reals x{0, kTiny, -kTiny, kHuge, -kHuge, kInfinity, -kInfinity, kNaN, real(1e4), real(-1e4), 1, all_bits};
        const auto n = static_cast<std::int64_t>(x.size());
        Reals y(x.size());
        squash_forward(kind, y.data(), x.data(), real(0.5), 0, nullptr, nullptr, 1, n);
        Doubles expected;
        for (const real v : x)
            expected.push_back(value(kind, 0.5 * static_cast<double>(v)));
        CHECK(worst_error(y, expected) < 3);
        CHECK(y[1] != 0); // relative accuracy near 0

        // No gradient of a finite input is NaN, and a NaN stays in its element of dx.
        Reals dx(x.size(), kNaN);
        Arena scratch;
        const Reals dy(x.size(), 1);
        squash_backward(kind, {{dx.data(), false}, {}, {}, {}, {}}, dy.data(), x.data(), real(0.5), 0, nullptr, 1, n,
                        scratch);
        for (std::size_t i = 0; i < x.size(); ++i)
            CHECK(std::isnan(dx[i]) == std::isnan(x[i]));
        const Reals finite(x.begin(), x.begin() + 5);
        Reals dalpha{kNaN}, dshift{kNaN};
        squash_backward(kind, {{}, {}, {}, {dalpha.data(), false}, {dshift.data(), false}}, dy.data(), finite.data(),
                        real(0.5), 0, nullptr, 1, 5, scratch);
        CHECK(std::isfinite(dalpha[0]));
        CHECK(std::isfinite(dshift[0]));
    });
}

TEST_CASE("DyT and Derf backward equal their definitions, written or added", "[kernels][norm]") {
    const Squash kind = GENERATE(Squash::tanh, Squash::erf);
    const bool add = GENERATE(false, true);
    const real alpha = real(0.7), shift = kind == Squash::tanh ? real(0) : real(0.3);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(static_cast<int>(kind), add, shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            const Reals x = random_reals(n, 1, 2), dy = random_reals(n, 4), gain = random_reals(shape.width, 2);
            const Reals start = random_reals(std::max(n, shape.width), 9);
            const auto before = [&](std::size_t i) { return add ? static_cast<double>(start[i]) : 0; };
            // Gradients, and for each the sum of the sizes of its terms: of dgain, dbias, dalpha, dshift, dx.
            Doubles sums[5], scales[5];
            for (int k = 0; k < 4; ++k)
                for (std::size_t i = 0; i < (k < 2 ? index(shape.width) : 1); ++i) {
                    sums[k].push_back(before(i));
                    scales[k].push_back(std::abs(before(i)));
                }
            const auto term = [&](int k, std::size_t i, double v, double size) {
                sums[k][i] += v;
                scales[k][i] += size;
            };
            for (std::size_t i = 0; i < x.size(); ++i) {
                const std::size_t column = i % index(shape.width);
                const auto v = static_cast<double>(dy[i]);
                const Argument in(alpha, x[i], shift);
                const double f = value(kind, in.u), slope = slope_at(kind, in.u);
                const double g = static_cast<double>(gain[column]), du = v * g * slope;
                // The slope is at most 1.13, and so is its own slope.
                const double du_size = std::abs(v * g) * (slope + std::min(in.size, 1.0));
                term(0, column, v * f, std::abs(v) * (std::abs(f) + slope * in.size));
                term(1, column, v, std::abs(v));
                term(2, 0, du * static_cast<double>(x[i]), du_size * std::abs(static_cast<double>(x[i])));
                term(3, 0, du, du_size);
                sums[4].push_back(before(i) + static_cast<double>(alpha) * du);
                scales[4].push_back(std::abs(before(i)) + du_size);
            }
            Reals results[5];
            Grad grads[5];
            for (int k = 0; k < 5; ++k) {
                results[k] = add ? Reals(start.begin(), start.begin() + static_cast<std::ptrdiff_t>(sums[k].size()))
                                 : Reals(sums[k].size(), kNaN);
                grads[k] = {results[k].data(), add};
            }
            Arena scratch;
            const auto backward = [&](const SquashGrads& to) {
                squash_backward(kind, to, dy.data(), x.data(), alpha, shift, gain.data(), shape.rows, shape.width,
                                scratch);
            };
            backward({grads[4], grads[0], grads[1], grads[2], grads[3]});
            for (int k = 0; k < 5; ++k) {
                CAPTURE(k);
                CHECK(worst_error(results[k], sums[k], scales[k]) < 6);
            }
            if (!add) {
                Reals dx(x.size()), dalpha(1);
                backward({{dx.data(), false}, {}, {}, {}, {}});
                backward({{}, {}, {}, {dalpha.data(), false}, {}});
                CHECK(same_bits(dx, results[4]));
                CHECK(same_bits(dalpha, results[2]));
            }
        }
    });
}

TEST_CASE("DyT and Derf give the same bits at any thread count", "[kernels][norm]") {
    const Squash kind = GENERATE(Squash::tanh, Squash::erf);
    const Shape shape = GENERATE(Shape{700, 65}, Shape{40, 3000}, Shape{3000, 5});
    const Reals x = random_reals(shape.rows * shape.width, 1), dy = random_reals(shape.rows * shape.width, 2);
    const Reals gain = random_reals(shape.width, 3);
    check_same_bits_at_any_thread_count([&] {
        Reals y(x.size()), dx(x.size()), dgain(gain.size()), dbias(gain.size()), scalars(2);
        squash_forward(kind, y.data(), x.data(), real(0.5), 0, gain.data(), gain.data(), shape.rows, shape.width);
        Arena scratch;
        squash_backward(kind,
                        {{dx.data(), false},
                         {dgain.data(), false},
                         {dbias.data(), false},
                         {scalars.data(), false},
                         {scalars.data() + 1, false}},
                        dy.data(), x.data(), real(0.5), 0, gain.data(), shape.rows, shape.width, scratch);
        return std::vector<Reals>{y, dx, dgain, dbias, scalars};
    });
}
