// The forms of RMS norm - partial, with an offset gain, with a scalar gain (ScaleNorm) - against their definitions in
// double precision, evaluated on the same inputs.

#include "ballast/kernels/norm.h"

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Shape {
    std::int64_t rows;
    std::int64_t width;
};

const Shape kShapes[] = {{1, 1}, {2, 3}, {5, 7}, {3, 16}, {9, 33}, {70, 515}, {700, 40}};

/// Root mean square of n numbers, scaled so that no square leaves the range of the format.
double rms(const real* x, std::int64_t n) {
    double scale = 0, squares = 0;
    for (std::int64_t i = 0; i < n; ++i)
        scale = std::max(scale, std::abs(static_cast<double>(x[i])));
    for (std::int64_t i = 0; i < n && scale > 0; ++i)
        squares += std::pow(static_cast<double>(x[i]) / scale, 2);
    return scale * std::sqrt(squares / static_cast<double>(n));
}

/// A gradient, to be added to `start` or (where that is all NaN) written: its values and the sizes of their terms.
struct Expected {
    Doubles value;
    Doubles scale;

    explicit Expected(const Reals& start) {
        for (const real v : start) {
            value.push_back(std::isnan(v) ? 0 : static_cast<double>(v));
            scale.push_back(std::abs(value.back()));
        }
    }
    void add(std::size_t i, double term, double size) {
        value[i] += term;
        scale[i] += size;
    }
};

Reals start_values(std::int64_t n, std::uint64_t seed, bool add) {
    return add ? random_reals(n, seed) : Reals(index(n), kNaN);
}

} // namespace

TEST_CASE("the features of a partial RMS norm", "[kernels][norm]") {
    CHECK(rms_features(1, 768) == 768);
    CHECK(rms_features(0.0625, 768) == 48);
    CHECK(rms_features(0.5, 7) == 4);
    CHECK(rms_features(1e-9, 10) == 1);
    CHECK(rms_features(0.3, 1) == 1);
    // 0.07 * 100 is 7.000000000000001 in double.
    for (std::int64_t percent = 1; percent <= 100; ++percent)
        CHECK(rms_features(static_cast<double>(percent) / 100, 100) == percent);
}

TEST_CASE("partial and offset RMS norm equal their definitions", "[kernels][norm]") {
    const RmsNormOptions options =
        GENERATE(RmsNormOptions{true, 1}, RmsNormOptions{false, 0.25}, RmsNormOptions{true, 0.5});
    const bool with_gain = GENERATE(false, true);
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(options.unit_offset, options.partial, with_gain, add, shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            const std::int64_t features = rms_features(options.partial, shape.width);
            const Reals x = random_reals(n, 1, 2, 0.5), dy = random_reals(n, 4), gain = random_reals(shape.width, 2);
            const real eps = real(1e-3);
            const auto factor = [&](std::size_t i) {
                return with_gain ? static_cast<double>(gain[i]) + (options.unit_offset ? 1 : 0) : 1;
            };
            Doubles y, y_scale;
            Reals dx_actual = start_values(n, 8, add), dgain_actual = start_values(shape.width, 9, add);
            Expected dx(dx_actual), dgain(dgain_actual);
            for (std::int64_t row = 0; row < shape.rows; ++row) {
                const std::size_t begin = index(row * shape.width);
                const double rstd =
                    1 / std::hypot(rms(x.data() + begin, features), std::sqrt(static_cast<double>(eps)));
                double mean = 0, size = 0;
                for (std::size_t i = 0; i < gain.size(); ++i) {
                    const double xhat = static_cast<double>(x[begin + i]) * rstd,
                                 v = static_cast<double>(dy[begin + i]);
                    y.push_back(xhat * factor(i));
                    y_scale.push_back(std::abs(xhat) * (1 + std::abs(factor(i))));
                    dgain.add(i, v * xhat, std::abs(v * xhat));
                    mean += v * factor(i) * xhat / static_cast<double>(features);
                    size += std::abs(v * xhat) * (1 + std::abs(factor(i))) / static_cast<double>(features);
                }
                for (std::size_t i = 0; i < gain.size(); ++i) {
                    const double xhat = static_cast<double>(x[begin + i]) * rstd,
                                 v = static_cast<double>(dy[begin + i]);
                    const bool counted = static_cast<std::int64_t>(i) < features;
                    dx.add(begin + i, rstd * (v * factor(i) - (counted ? xhat * mean : 0)),
                           rstd * (std::abs(v) * (1 + std::abs(factor(i))) + (counted ? std::abs(xhat) * size : 0)));
                }
            }
            const real* const g = with_gain ? gain.data() : nullptr;
            Reals actual(x.size(), kNaN), rstd(index(shape.rows), kNaN);
            rmsnorm_forward(actual.data(), rstd.data(), x.data(), g, shape.rows, shape.width, eps, options);
            CHECK(worst_error(actual, y, y_scale) < 6);

            Arena scratch;
            rmsnorm_backward({dx_actual.data(), add}, {dgain_actual.data(), add}, dy.data(), x.data(), g, rstd.data(),
                             shape.rows, shape.width, scratch, options);
            CHECK(worst_error(dx_actual, dx.value, dx.scale) < 8);
            CHECK(worst_error(dgain_actual, dgain.value, dgain.scale) < 8);
        }
    });
}

TEST_CASE("scale norm equals its definition", "[kernels][norm]") {
    const real eps = GENERATE(as<real>{}, 1e-5, 3);
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        for (const Shape shape : kShapes) {
            CAPTURE(eps, add, shape.rows, shape.width);
            const std::int64_t n = shape.rows * shape.width;
            const Reals x = random_reals(n, 1), dy = random_reals(n, 4);
            const auto gain = real(1.7);
            Reals dx_actual = start_values(n, 8, add), dgain_actual = start_values(1, 9, add);
            Expected dx(dx_actual), dgain(dgain_actual);
            Doubles y;
            for (std::int64_t row = 0; row < shape.rows; ++row) {
                const std::size_t begin = index(row * shape.width), end = index((row + 1) * shape.width);
                const double length = rms(x.data() + begin, shape.width) * std::sqrt(static_cast<double>(shape.width));
                const double scale = 1 / std::max(length, static_cast<double>(eps));
                double sum = 0, size = 0;
                for (std::size_t i = begin; i < end; ++i) {
                    const double unit = static_cast<double>(x[i]) * scale;
                    y.push_back(static_cast<double>(gain) * unit);
                    sum += static_cast<double>(dy[i]) * unit;
                    size += std::abs(static_cast<double>(dy[i]) * unit);
                }
                dgain.add(0, sum, size);
                const double projection = length > static_cast<double>(eps) ? 1 : 0;
                for (std::size_t i = begin; i < end; ++i) {
                    const double unit = static_cast<double>(x[i]) * scale, v = static_cast<double>(dy[i]);
                    const double factor = static_cast<double>(gain) * scale;
                    dx.add(i, factor * (v - projection * unit * sum), factor * (std::abs(v) + std::abs(unit) * size));
                }
            }
            Reals actual(x.size(), kNaN), rstd(index(shape.rows), kNaN);
            scalenorm_forward(actual.data(), rstd.data(), x.data(), gain, shape.rows, shape.width, eps);
            CHECK(worst_error(actual, y) < 6);
            Arena scratch;
            scalenorm_backward({dx_actual.data(), add}, {dgain_actual.data(), add}, dy.data(), x.data(), gain,
                               rstd.data(), shape.rows, shape.width, eps, scratch);
            CHECK(worst_error(dx_actual, dx.value, dx.scale) < 8);
            CHECK(worst_error(dgain_actual, dgain.value, dgain.scale) < 8);
        }
    });
}

TEST_CASE("partial RMS norm and scale norm at the edges of the number format", "[kernels][norm]") {
    const std::int64_t width = GENERATE(1, 3, 33, 200);
    on_every_target([&] {
        const auto check = [&](const Reals& x, real eps) {
            CAPTURE(width, eps, x[0]);
            const double root = std::sqrt(static_cast<double>(width)), least = static_cast<double>(eps);
            const std::int64_t features = rms_features(0.5, width);
            const double scale = 1 / std::max(rms(x.data(), width), least / root); // the length itself may overflow
            const double rstd = 1 / std::hypot(rms(x.data(), features), std::sqrt(least));
            Doubles scaled, partial, partial_scale;
            for (const real v : x) {
                scaled.push_back(static_cast<double>(v) * scale);
                partial.push_back(static_cast<double>(v) * rstd);
                partial_scale.push_back(std::abs(partial.back()));
            }
            Reals y(x.size(), kNaN), saved(1);
            scalenorm_forward(y.data(), saved.data(), x.data(), static_cast<real>(root), 1, width, eps);
            CHECK(worst_error(y, scaled) < 6);
            rmsnorm_forward(y.data(), saved.data(), x.data(), nullptr, 1, width, eps, {false, 0.5});
            CHECK(worst_error(y, partial, partial_scale) < 6);
        };
        check(random_reals(width, 5, kHuge), real(1e-5));
        check(Reals(index(width), std::numeric_limits<real>::max() / 2), real(1e-5));
        check(random_reals(width, 5, kTiny), 0);
        check(random_reals(width, 5, kTiny), real(1e-5));
        check(random_reals(width, 5, 1e-2, 1e4), real(1e-5));
        check(Reals(index(width), 0), real(1e-5));
    });
}

TEST_CASE("scale norm of a row of zeros is 0, and has finite gradients, with the least eps there is",
          "[kernels][norm]") {
    on_every_target([] {
        for (const std::int64_t width : {1, 33, 5000}) {
            CAPTURE(width);
            // As small as a config may have it, and as small as the format.
            for (const real eps : {real(1e-37), std::numeric_limits<real>::min()}) {
                const Reals x(index(width), 0), dy = random_reals(width, 4);
                Reals y(x.size(), kNaN), dx(x.size(), kNaN), rstd{kNaN}, dgain{kNaN};
                scalenorm_forward(y.data(), rstd.data(), x.data(), 1, 1, width, eps);
                Arena scratch;
                scalenorm_backward({dx.data(), false}, {dgain.data(), false}, dy.data(), x.data(), 1, rstd.data(), 1,
                                   width, eps, scratch);
                CHECK(std::all_of(y.begin(), y.end(), [](real v) { return v == 0; }));
                CHECK(std::all_of(dx.begin(), dx.end(), [](real v) { return std::isfinite(v); }));
                CHECK(dgain[0] == 0);
            }
        }
    });
}

TEST_CASE("a NaN or infinity in a row makes that row of scale norm NaN and no other", "[kernels][norm]") {
    const real poison = GENERATE(as<real>{}, kNaN, kInfinity, -kInfinity);
    on_every_target([&] {
        const Shape shape{5, 37};
        const Reals x = random_reals(shape.rows * shape.width, 1);
        Reals clean(x.size()), y(x.size()), rstd(index(shape.rows));
        scalenorm_forward(clean.data(), rstd.data(), x.data(), 1, shape.rows, shape.width, real(1e-5));
        for (const std::int64_t position : {0, 20, 36}) {
            Reals poisoned = x;
            poisoned[index(2 * shape.width + position)] = poison;
            scalenorm_forward(y.data(), rstd.data(), poisoned.data(), 1, shape.rows, shape.width, real(1e-5));
            CHECK(all_nan(y.data() + 2 * shape.width, shape.width));
            std::copy_n(clean.begin() + 2 * shape.width, shape.width, y.begin() + 2 * shape.width);
            CHECK(same_bits(y, clean));
        }
    });
}

TEST_CASE("the forms of RMS norm give the same bits at any thread count", "[kernels][norm]") {
    const Shape shape = GENERATE(Shape{700, 65}, Shape{40, 3000}, Shape{3000, 5});
    const Reals x = random_reals(shape.rows * shape.width, 1), dy = random_reals(shape.rows * shape.width, 2);
    const Reals gain = random_reals(shape.width, 3);
    const RmsNormOptions options{true, 0.5};
    check_same_bits_at_any_thread_count([&] {
        Reals y(x.size()), rstd(index(shape.rows)), dx(x.size()), dgain(gain.size());
        Reals scaled(x.size()), scaled_rstd(rstd.size()), scaled_dx(x.size()), scaled_dgain(1);
        Arena scratch;
        rmsnorm_forward(y.data(), rstd.data(), x.data(), gain.data(), shape.rows, shape.width, real(1e-5), options);
        rmsnorm_backward({dx.data(), false}, {dgain.data(), false}, dy.data(), x.data(), gain.data(), rstd.data(),
                         shape.rows, shape.width, scratch, options);
        scalenorm_forward(scaled.data(), scaled_rstd.data(), x.data(), 2, shape.rows, shape.width, real(1e-5));
        scalenorm_backward({scaled_dx.data(), false}, {scaled_dgain.data(), false}, dy.data(), x.data(), 2,
                           scaled_rstd.data(), shape.rows, shape.width, real(1e-5), scratch);
        return std::vector<Reals>{y, rstd, dx, dgain, scaled, scaled_rstd, scaled_dx, scaled_dgain};
    });
}
