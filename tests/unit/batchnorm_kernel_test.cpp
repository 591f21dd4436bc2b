// Batch normalization against the definition in long double, evaluated on the same inputs.

#include "ballast/kernels/batchnorm.h"

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Shape {
    std::int64_t rows;
    std::int64_t width;
};

// Below, at and above the sizes of vectors, of blocks of rows and columns and of groups of rows; long rows are taken
// side by side and alone.
const Shape kShapes[] = {{1, 1},   {2, 3},    {5, 7},    {16, 8},   {17, 16},  {33, 33},
                         {3, 257}, {70, 300}, {5000, 3}, {700, 40}, {6, 2101}, {53, 2101}};

/// One column by the definition, as differences from its first element: a large mean costs no digits. The squares of
/// every real are in the range of long double.
struct Column {
    long double mean = 0;
    double deviation = 0;
    double rstd = 0;
    Doubles xhat;

    Column(const Reals& x, std::int64_t column, Shape shape, double eps) {
        const auto n = static_cast<long double>(shape.rows);
        const auto value = [&](std::int64_t row) {
            return static_cast<long double>(x[index(row * shape.width + column)]) -
                   static_cast<long double>(x[index(column)]);
        };
        long double center = 0, squares = 0;
        for (std::int64_t row = 0; row < shape.rows; ++row)
            center += value(row) / n;
        for (std::int64_t row = 0; row < shape.rows; ++row)
            squares += (value(row) - center) * (value(row) - center) / n;
        mean = center + static_cast<long double>(x[index(column)]);
        deviation = static_cast<double>(std::sqrt(squares));
        rstd = 1 / std::hypot(deviation, std::sqrt(eps));
        for (std::int64_t row = 0; row < shape.rows; ++row)
            xhat.push_back(static_cast<double>((value(row) - center) * static_cast<long double>(rstd)));
    }
};

struct Forward {
    Reals stats;
    Reals y;

    Forward(const Reals& x, const Reals& gain, const Reals& bias, Shape shape, real eps)
        : stats(index(kBatchNormStats * shape.width), kNaN), y(x.size(), kNaN) {
        Arena scratch;
        batchnorm_statistics(stats.data(), x.data(), shape.rows, shape.width, eps, scratch);
        batchnorm_forward(y.data(), x.data(), stats.data(), gain.data(), bias.data(), shape.rows, shape.width);
    }
};

/// Largest errors of y, of the mean in deviations, and of the variance relative to variance + eps, in kEpsilon.
struct Errors {
    double y = 0, mean = 0, variance = 0;
};

Errors errors_of(const Reals& x, Shape shape, real eps) {
    const Reals gain = random_reals(shape.width, 2), bias = random_reals(shape.width, 3);
    const Forward forward(x, gain, bias, shape, eps);
    Doubles expected(x.size());
    Errors errors;
    for (std::int64_t i = 0; i < shape.width; ++i) {
        const Column c(x, i, shape, static_cast<double>(eps));
        for (std::int64_t row = 0; row < shape.rows; ++row)
            expected[index(row * shape.width + i)] = c.xhat[index(row)] * gain[index(i)] + bias[index(i)];
        const long double mean = static_cast<long double>(forward.stats[index(i)]) +
                                 static_cast<long double>(forward.stats[index(2 * shape.width + i)]);
        errors.mean = std::max(errors.mean, std::abs(static_cast<double>(mean - c.mean)) * c.rstd / kEpsilon);
        const double ratio = std::sqrt(static_cast<double>(forward.stats[index(shape.width + i)])) * c.rstd;
        errors.variance = std::max(errors.variance, std::abs(ratio - c.deviation * c.rstd) / kEpsilon);
    }
    errors.y = worst_error(forward.y, expected);
    return errors;
}

} // namespace

TEST_CASE("batch norm equals its definition", "[kernels][norm]") {
    on_every_target([] {
        for (const Shape shape : kShapes) {
            CAPTURE(shape.rows, shape.width);
            const Errors errors = errors_of(random_reals(shape.rows * shape.width, 1, 2, 0.5), shape, real(1e-5));
            CHECK(errors.y < 8);
            CHECK(errors.mean < 4);
            CHECK(errors.variance < 4);
        }
    });
}

TEST_CASE("batch norm of columns at the edges of the number format", "[kernels][norm]") {
    on_every_target([] {
        for (const Shape shape : {Shape{40, 5}, Shape{300, 33}}) {
            CAPTURE(shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            // A small deviation on a large mean, which naive sums lose altogether.
            CHECK(errors_of(random_reals(n, 5, 1e-2, 1e4), shape, real(1e-8)).y < 20);
            CHECK(errors_of(random_reals(n, 5, 1e-2, -1e4), shape, real(1e-8)).variance < 20);
            // Squares that underflow, and that overflow: the variance itself may, too, but not what is made of it.
            CHECK(errors_of(random_reals(n, 5, kTiny), shape, 0).y < 8);
            CHECK(errors_of(random_reals(n, 5, kTiny), shape, real(1e-5)).y < 8);
            CHECK(errors_of(random_reals(n, 5, kHuge), shape, real(1e-5)).y < 8);
            // A drift from row to row, far larger than what lies between neighbours.
            Reals drift = random_reals(n, 6);
            for (std::size_t i = 0; i < drift.size(); ++i)
                drift[i] += static_cast<real>(i);
            CHECK(errors_of(drift, shape, real(1e-5)).y < 8);
        }
    });
}

TEST_CASE("batch norm of constant columns, and of one row, is the bias", "[kernels][norm]") {
    on_every_target([] {
        for (const Shape shape : {Shape{1, 37}, Shape{40, 37}})
            for (const real value : {real(0), real(0.1), real(1e4 / 3), kHuge / 3}) {
                CAPTURE(shape.rows, value);
                const Reals bias = random_reals(shape.width, 3);
                const Forward forward(Reals(index(shape.rows * shape.width), value), random_reals(shape.width, 2), bias,
                                      shape, real(1e-5));
                Doubles expected;
                for (std::int64_t row = 0; row < shape.rows; ++row)
                    expected.insert(expected.end(), bias.begin(), bias.end());
                CHECK(worst_error(forward.y, expected) < 1);
            }
    });
}

TEST_CASE("a NaN or infinity makes its column NaN and no other", "[kernels][norm]") {
    const real poison = GENERATE(as<real>{}, kNaN, kInfinity, -kInfinity);
    on_every_target([&] {
        const Shape shape{70, 37};
        const Reals gain = random_reals(shape.width, 2), bias = random_reals(shape.width, 3);
        const Reals x = random_reals(shape.rows * shape.width, 1);
        const Forward clean(x, gain, bias, shape, real(1e-5));
        for (const std::int64_t column : {0, 20, 36}) {
            Reals poisoned = x;
            poisoned[index(33 * shape.width + column)] = poison;
            const Forward forward(poisoned, gain, bias, shape, real(1e-5));
            bool right = true;
            for (std::int64_t i = 0; i < shape.rows * shape.width; ++i)
                right = right && (i % shape.width == column ? std::isnan(forward.y[index(i)])
                                                            : forward.y[index(i)] == clean.y[index(i)]);
            CHECK(right);
        }
    });
}

TEST_CASE("batch norm with given statistics", "[kernels][norm]") {
    on_every_target([] {
        const Shape shape{5, 37};
        const real eps = real(1e-3);
        const Reals x = random_reals(shape.rows * shape.width, 1, 2, 0.5), mean = random_reals(shape.width, 4);
        Reals variance = random_reals(shape.width, 5), stats(index(kBatchNormStats * shape.width)), y(x.size());
        for (real& v : variance)
            v = std::abs(v);
        batchnorm_given_statistics(stats.data(), mean.data(), variance.data(), shape.width, eps);
        batchnorm_forward(y.data(), x.data(), stats.data(), nullptr, nullptr, shape.rows, shape.width);
        Doubles expected, scale;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const std::size_t column = i % index(shape.width);
            const double rstd = 1 / std::sqrt(static_cast<double>(variance[column]) + static_cast<double>(eps));
            expected.push_back((static_cast<double>(x[i]) - static_cast<double>(mean[column])) * rstd);
            scale.push_back((std::abs(static_cast<double>(x[i])) + std::abs(static_cast<double>(mean[column]))) * rstd);
        }
        CHECK(worst_error(y, expected, scale) < 2);
    });
}

TEST_CASE("batch norm backward equals its definition, written or added", "[kernels][norm]") {
    const bool constant = GENERATE(false, true);
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(constant, add, shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            const real eps = real(1e-3);
            const Reals x = random_reals(n, 1, 2, 0.5), dy = random_reals(n, 4), gain = random_reals(shape.width, 2);
            const Forward forward(x, gain, Reals(gain.size()), shape, eps);
            const Reals start = random_reals(std::max(n, shape.width), 9);
            Doubles dx(x.size()), dx_scale(x.size()), dgain, dbias, scale;
            for (std::int64_t i = 0; i < shape.width; ++i) {
                const Column c(x, i, shape, static_cast<double>(eps));
                double sum = 0, products = 0, size = 0;
                for (std::int64_t row = 0; row < shape.rows; ++row) {
                    const double v = dy[index(row * shape.width + i)], xhat = c.xhat[index(row)];
                    sum += v;
                    products += v * xhat;
                    size += std::abs(v) * (1 + std::abs(xhat));
                }
                const double share = constant ? 0 : 1 / static_cast<double>(shape.rows);
                const double before = add ? static_cast<double>(start[index(i)]) : 0;
                dgain.push_back(before + products);
                dbias.push_back(before + sum);
                scale.push_back(std::abs(before) + size);
                for (std::int64_t row = 0; row < shape.rows; ++row) {
                    const std::size_t k = index(row * shape.width + i);
                    const double factor = c.rstd * static_cast<double>(gain[index(i)]), xhat = c.xhat[index(row)];
                    const double old = add ? static_cast<double>(start[k]) : 0;
                    dx[k] = old + factor * (static_cast<double>(dy[k]) - share * (sum + xhat * products));
                    dx_scale[k] = std::abs(old) + std::abs(factor) * (std::abs(static_cast<double>(dy[k])) +
                                                                      share * size * (1 + std::abs(xhat)));
                }
            }
            const auto target = [&](std::int64_t size) {
                return add ? Reals(start.begin(), start.begin() + size) : Reals(index(size), kNaN);
            };
            Reals dx_actual = target(n), dgain_actual = target(shape.width), dbias_actual = target(shape.width);
            Arena scratch;
            const auto backward = [&](Grad to_x, Grad to_gain, Grad to_bias) {
                batchnorm_backward(to_x, to_gain, to_bias, dy.data(), x.data(), gain.data(), forward.stats.data(),
                                   constant, shape.rows, shape.width, scratch);
            };
            backward({dx_actual.data(), add}, {dgain_actual.data(), add}, {dbias_actual.data(), add});
            CHECK(worst_error(dx_actual, dx, dx_scale) < 8);
            CHECK(worst_error(dgain_actual, dgain, scale) < 8);
            CHECK(worst_error(dbias_actual, dbias, scale) < 8);

            Reals alone = target(n);
            backward({alone.data(), add}, {}, {});
            CHECK(same_bits(alone, dx_actual));
        }
    });
}

TEST_CASE("batch norm gives the same bits at any thread count", "[kernels][norm]") {
    const Shape shape = GENERATE(Shape{700, 65}, Shape{40, 3000}, Shape{3000, 5});
    const Reals x = random_reals(shape.rows * shape.width, 1), dy = random_reals(shape.rows * shape.width, 2);
    const Reals gain = random_reals(shape.width, 3);
    check_same_bits_at_any_thread_count([&] {
        const Forward forward(x, gain, gain, shape, real(1e-5));
        Reals dx(x.size()), dgain(gain.size()), dbias(gain.size());
        Arena scratch;
        batchnorm_backward({dx.data(), false}, {dgain.data(), false}, {dbias.data(), false}, dy.data(), x.data(),
                           gain.data(), forward.stats.data(), false, shape.rows, shape.width, scratch);
        return std::vector<Reals>{forward.y, forward.stats, dx, dgain, dbias};
    });
}
