// Layer and RMS normalization against the definition in double precision, evaluated on the same inputs.

#include "ballast/kernels/norm.h"

#include <iterator>
#include <vector>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Shape {
    std::int64_t rows;
    std::int64_t width;
};

// Below, at and above the widths of vectors, and long rows, which are taken side by side and alone; the last two make
// several tasks, the last one several groups of rows.
const Shape kShapes[] = {{1, 1},  {2, 3},   {5, 7},    {3, 8},    {4, 16},   {9, 33},
                         {2, 64}, {1, 129}, {3, 1000}, {6, 2101}, {70, 515}, {700, 40}};

enum class Kind { layer, rms };

/// One row by the definition; the sums are taken of x / scale, so that no square leaves the range of the format.
struct Row {
    double mean = 0;
    double rstd = 0;
    Doubles xhat;

    Row(Kind kind, const double* x, std::int64_t n, double eps) {
        double scale = 0;
        for (std::int64_t i = 0; i < n; ++i)
            scale = std::max(scale, std::abs(x[i]));
        if (scale == 0) scale = 1;
        // The second round adds what the rounding of the first left out.
        long double center = 0;
        for (int round = 0; kind == Kind::layer && round < 2; ++round) {
            long double sum = 0;
            for (std::int64_t i = 0; i < n; ++i)
                sum += x[i] / static_cast<long double>(scale) - center;
            center += sum / static_cast<long double>(n);
        }
        long double squares = 0;
        for (std::int64_t i = 0; i < n; ++i) {
            const long double deviation = x[i] / static_cast<long double>(scale) - center;
            squares += deviation * deviation;
        }
        const double deviation = scale * static_cast<double>(std::sqrt(squares / static_cast<long double>(n)));
        mean = scale * static_cast<double>(center);
        rstd = 1 / std::hypot(deviation, std::sqrt(eps));
        for (std::int64_t i = 0; i < n; ++i)
            xhat.push_back(static_cast<double>((x[i] - center * scale) * rstd));
    }
};

double at(const Doubles& optional, std::int64_t i, double otherwise) {
    return optional.empty() ? otherwise : optional[index(i)];
}

Doubles reference_forward(Kind kind, const Doubles& x, const Doubles& gain, const Doubles& bias, Shape shape,
                          double eps) {
    Doubles y;
    for (std::int64_t row = 0; row < shape.rows; ++row) {
        const Row r(kind, x.data() + row * shape.width, shape.width, eps);
        for (std::int64_t i = 0; i < shape.width; ++i)
            y.push_back(r.xhat[index(i)] * at(gain, i, 1) + at(bias, i, 0));
    }
    return y;
}

/// Gradients of sum(dy * y), and for each the sum of the sizes of its terms.
struct ReferenceGradients {
    Doubles dx, dgain, dbias;
    Doubles dx_scale, dgain_scale, dbias_scale;
};

ReferenceGradients reference_backward(Kind kind, const Doubles& dy, const Doubles& x, const Doubles& gain, Shape shape,
                                      double eps) {
    ReferenceGradients g;
    const auto n = static_cast<double>(shape.width);
    for (Doubles* sums : {&g.dgain, &g.dbias, &g.dgain_scale, &g.dbias_scale})
        sums->assign(index(shape.width), 0);
    for (std::int64_t row = 0; row < shape.rows; ++row) {
        const Row r(kind, x.data() + row * shape.width, shape.width, eps);
        double mean = 0, mean_xhat = 0, size = 0;
        for (std::int64_t i = 0; i < shape.width; ++i) {
            const double v = dy[index(row * shape.width + i)], xhat = r.xhat[index(i)], d = v * at(gain, i, 1);
            mean += kind == Kind::layer ? d / n : 0;
            mean_xhat += d * xhat / n;
            size += std::abs(d) * (1 + std::abs(xhat)) / n;
            g.dgain[index(i)] += v * xhat;
            g.dbias[index(i)] += v;
            g.dgain_scale[index(i)] += std::abs(v) * (1 + std::abs(xhat));
            g.dbias_scale[index(i)] += std::abs(v);
        }
        for (std::int64_t i = 0; i < shape.width; ++i) {
            const double d = dy[index(row * shape.width + i)] * at(gain, i, 1), xhat = r.xhat[index(i)];
            g.dx.push_back(r.rstd * (d - mean - xhat * mean_xhat));
            g.dx_scale.push_back(r.rstd * (std::abs(d) + size * (1 + std::abs(xhat))));
        }
    }
    return g;
}

struct Forward {
    Reals y;
    Reals stats; ///< 3 or 1 a row

    Forward(Kind kind, const Reals& x, const Reals& gain, const Reals& bias, Shape shape, real eps)
        : y(x.size(), kNaN), stats(index(shape.rows * (kind == Kind::layer ? kLayerNormStats : 1)), kNaN) {
        const real* const g = gain.empty() ? nullptr : gain.data();
        const real* const b = bias.empty() ? nullptr : bias.data();
        if (kind == Kind::layer)
            layernorm_forward(y.data(), stats.data(), x.data(), g, b, shape.rows, shape.width, eps);
        else
            rmsnorm_forward(y.data(), stats.data(), x.data(), g, shape.rows, shape.width, eps);
    }
};

void backward(Kind kind, Grad dx, Grad dgain, Grad dbias, const Reals& dy, const Reals& x, const Reals& gain,
              const Forward& forward, Shape shape) {
    Arena scratch;
    const real* const g = gain.empty() ? nullptr : gain.data();
    if (kind == Kind::layer)
        layernorm_backward(dx, dgain, dbias, dy.data(), x.data(), g, forward.stats.data(), shape.rows, shape.width,
                           scratch);
    else
        rmsnorm_backward(dx, dgain, dy.data(), x.data(), g, forward.stats.data(), shape.rows, shape.width, scratch);
}

} // namespace

TEST_CASE("norms equal their definition", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const bool with_gain = GENERATE(false, true);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(static_cast<int>(kind), with_gain, shape.rows, shape.width);
            const Reals x = random_reals(shape.rows * shape.width, 1, 2, 0.5);
            const Reals gain = with_gain ? random_reals(shape.width, 2) : Reals();
            const Reals bias = with_gain && kind == Kind::layer ? random_reals(shape.width, 3) : Reals();
            const real eps = real(1e-5);
            const Forward forward(kind, x, gain, bias, shape, eps);
            const Doubles expected =
                reference_forward(kind, to_doubles(x), to_doubles(gain), to_doubles(bias), shape, eps);
            // Three roundings in the output, some in the mean and the variance.
            CHECK(worst_error(forward.y, expected) < 6);

            Doubles mean_error, rstd;
            Reals actual_rstd;
            for (std::int64_t row = 0; row < shape.rows; ++row) {
                const Doubles values = to_doubles(x);
                const Row r(kind, values.data() + row * shape.width, shape.width, eps);
                rstd.push_back(r.rstd);
                if (kind == Kind::layer) {
                    const real* const stats = forward.stats.data() + row * kLayerNormStats;
                    const double mean = static_cast<double>(stats[0]) + static_cast<double>(stats[1]);
                    mean_error.push_back((mean - r.mean) * r.rstd);
                    actual_rstd.push_back(stats[2]);
                } else {
                    actual_rstd.push_back(forward.stats[index(row)]);
                }
            }
            CHECK(worst_error(actual_rstd, rstd, rstd) < 4);
            // The mean is held in two reals: its error is that of a mean of deviations.
            for (const double error : mean_error)
                CHECK(std::abs(error) < 4 * kEpsilon);
        }
    });
}

TEST_CASE("norms of rows at the edges of the number format", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const std::int64_t width = GENERATE(1, 3, 7, 33, 200);
    on_every_target([&] {
        CAPTURE(static_cast<int>(kind), width);
        const Reals gain = random_reals(width, 2);
        const Reals bias = kind == Kind::layer ? random_reals(width, 3) : Reals();
        const auto check = [&](const Reals& x, real eps, double tolerance) {
            const Shape shape{1, width};
            const Forward forward(kind, x, gain, bias, shape, eps);
            const Doubles expected =
                reference_forward(kind, to_doubles(x), to_doubles(gain), to_doubles(bias), shape, eps);
            CHECK(worst_error(forward.y, expected) < tolerance);
        };
        // The squares overflow; so does the sum.
        check(random_reals(width, 5, kHuge), real(1e-5), 6);
        check(Reals(index(width), std::numeric_limits<real>::max() / 2), real(1e-5), 6);
        // The squares underflow. A single element has no variance, and without eps no value.
        if (width > 1 || kind == Kind::rms) check(random_reals(width, 5, kTiny), 0, 6);
        check(random_reals(width, 5, kTiny), real(1e-5), 6);
        // A small deviation on a large mean: few digits are left in the inputs, but all in what is made of them.
        check(random_reals(width, 5, 1e-2, 1e4), real(1e-5), 20);
        check(random_reals(width, 5, 1e-2, -1e4), real(1e-8), 20);
        check(Reals(index(width), 0), real(1e-5), 1);
    });
}

TEST_CASE("layer norm of a constant row is the bias, exactly", "[kernels][norm]") {
    on_every_target([] {
        for (const std::int64_t width : {1, 3, 7, 33, 127, 768, 5000}) {
            for (const real value : {real(0.1), real(1e4 / 3), real(-7e-4), kHuge / 3}) {
                CAPTURE(width, value);
                const Reals bias = random_reals(width, 3);
                const Forward forward(Kind::layer, Reals(index(width), value), random_reals(width, 2), bias, {1, width},
                                      real(1e-5));
                CHECK(same_bits(forward.y, bias));
            }
        }
    });
}

TEST_CASE("a NaN or infinity in a row makes that row NaN and no other", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const real poison = GENERATE(as<real>{}, kNaN, kInfinity, -kInfinity);
    on_every_target([&] {
        const Shape shape{5, 37};
        Reals x = random_reals(shape.rows * shape.width, 1);
        const Forward clean(kind, x, {}, {}, shape, real(1e-5));
        for (const std::int64_t position : {0, 20, 36}) {
            Reals poisoned = x;
            poisoned[index(2 * shape.width + position)] = poison;
            Forward forward(kind, poisoned, {}, {}, shape, real(1e-5));
            CHECK(all_nan(forward.y.data() + 2 * shape.width, shape.width));
            std::copy_n(clean.y.begin() + 2 * shape.width, shape.width, forward.y.begin() + 2 * shape.width);
            CHECK(same_bits(forward.y, clean.y));
        }
    });
}

TEST_CASE("the reference backward of the norms is the derivative of the reference forward", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const Shape shape = GENERATE(Shape{2, 3}, Shape{3, 7}, Shape{2, 33});
    const double eps = 1e-2;
    const std::int64_t n = shape.rows * shape.width;
    Doubles x = to_doubles(random_reals(n, 1)), gain = to_doubles(random_reals(shape.width, 2)),
            bias = to_doubles(random_reals(shape.width, 3));
    const Doubles dy = to_doubles(random_reals(n, 4));
    const ReferenceGradients gradients = reference_backward(kind, dy, x, gain, shape, eps);
    const auto check = [&](Doubles& variable, const Doubles& gradient) {
        for (std::size_t i = 0; i < variable.size(); ++i) {
            const double here = variable[i];
            const double numeric = slope(
                [&](double value) {
                    variable[i] = value;
                    const Doubles y = reference_forward(kind, x, gain, bias, shape, eps);
                    double sum = 0;
                    for (std::size_t k = 0; k < y.size(); ++k)
                        sum += dy[k] * y[k];
                    return sum;
                },
                here);
            variable[i] = here;
            CHECK(gradient[i] == Approx(numeric).epsilon(1e-7).margin(1e-7));
        }
    };
    check(x, gradients.dx);
    check(gain, gradients.dgain);
    if (kind == Kind::layer) check(bias, gradients.dbias);
}

TEST_CASE("norm backward equals its definition, written or added", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const bool with_gain = GENERATE(false, true);
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        std::vector<Shape> shapes(std::begin(kShapes), std::end(kShapes));
        shapes.push_back({9, 4101}); // several blocks of rows, for either kind
        for (const Shape shape : shapes) {
            CAPTURE(static_cast<int>(kind), with_gain, add, shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            const Reals x = random_reals(n, 1, 2, 0.5), dy = random_reals(n, 4);
            const Reals gain = with_gain ? random_reals(shape.width, 2) : Reals();
            const real eps = real(1e-3);
            const Forward forward(kind, x, gain, {}, shape, eps);
            ReferenceGradients expected =
                reference_backward(kind, to_doubles(dy), to_doubles(x), to_doubles(gain), shape, eps);
            // What is only written must not be read: it holds NaNs.
            const auto target = [&](std::int64_t size, Doubles& gradient, Doubles& scale) {
                if (!add) return Reals(index(size), kNaN);
                Reals before = random_reals(size, 6);
                for (std::size_t i = 0; i < before.size(); ++i) {
                    gradient[i] += before[i];
                    scale[i] += std::abs(before[i]);
                }
                return before;
            };
            Reals dx = target(n, expected.dx, expected.dx_scale);
            Reals dgain = target(shape.width, expected.dgain, expected.dgain_scale);
            Reals dbias = target(shape.width, expected.dbias, expected.dbias_scale);
            backward(kind, {dx.data(), add}, {dgain.data(), add}, {dbias.data(), add}, dy, x, gain, forward, shape);
            CHECK(worst_error(dx, expected.dx, expected.dx_scale) < 8);
            CHECK(worst_error(dgain, expected.dgain, expected.dgain_scale) < 8);
            if (kind == Kind::layer) CHECK(worst_error(dbias, expected.dbias, expected.dbias_scale) < 8);

            // Gradients that nobody wants do not change the others.
            Reals dx_alone(index(n)), dgain_alone(index(shape.width));
            if (!add) {
                backward(kind, {dx_alone.data(), false}, {}, {}, dy, x, gain, forward, shape);
                backward(kind, {}, {dgain_alone.data(), false}, {}, dy, x, gain, forward, shape);
                CHECK(same_bits(dx_alone, dx));
                CHECK(same_bits(dgain_alone, dgain));
            }
        }
    });
}

TEST_CASE("norm backward on huge, tiny and nearly constant rows", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    on_every_target([&] {
        const Shape shape{3, 33};
        const Reals dy = random_reals(shape.rows * shape.width, 4), gain = random_reals(shape.width, 2);
        const auto check = [&](const Reals& x, real eps, double tolerance) {
            const Forward forward(kind, x, gain, {}, shape, eps);
            const ReferenceGradients expected =
                reference_backward(kind, to_doubles(dy), to_doubles(x), to_doubles(gain), shape, eps);
            Reals dx(x.size()), dgain(gain.size());
            backward(kind, {dx.data(), false}, {dgain.data(), false}, {}, dy, x, gain, forward, shape);
            CHECK(worst_error(dx, expected.dx, expected.dx_scale) < tolerance);
            CHECK(worst_error(dgain, expected.dgain, expected.dgain_scale) < tolerance);
        };
        check(random_reals(shape.rows * shape.width, 5, kHuge), real(1e-5), 8);
        check(random_reals(shape.rows * shape.width, 5, kTiny), 0, 8);
        check(random_reals(shape.rows * shape.width, 5, 1e-2, 1e4), real(1e-6), 20);
    });
}

TEST_CASE("norms give the same bits at any thread count", "[kernels][norm]") {
    const Kind kind = GENERATE(Kind::layer, Kind::rms);
    const Shape shape = GENERATE(Shape{700, 65}, Shape{40, 3000}, Shape{3000, 5});
    const Reals x = random_reals(shape.rows * shape.width, 1), dy = random_reals(shape.rows * shape.width, 2);
    const Reals gain = random_reals(shape.width, 3);
    check_same_bits_at_any_thread_count([&] {
        const Forward forward(kind, x, gain, {}, shape, real(1e-5));
        Reals dx(x.size()), dgain(gain.size()), dbias(gain.size());
        backward(kind, {dx.data(), false}, {dgain.data(), false}, {dbias.data(), false}, dy, x, gain, forward, shape);
        return std::vector<Reals>{forward.y, forward.stats, dx, dgain, dbias};
    });
}
