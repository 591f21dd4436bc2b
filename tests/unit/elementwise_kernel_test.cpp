// Flat loops and sums.

#include "ballast/kernels/elementwise.h"

#include <array>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {
const std::int64_t kSizes[] = {0, 1, 3, 7, 16, 33, 1000, 16384, 16385, 100003};
} // namespace

TEST_CASE("axpby and add_scaled", "[kernels][elementwise]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            const Reals x = random_reals(n, 1), z = random_reals(n, 2);
            const real a = real(0.7), b = real(-1.3);
            Doubles sum, scaled, added, scale;
            for (std::size_t i = 0; i < x.size(); ++i) {
                sum.push_back(static_cast<double>(a) * x[i] + static_cast<double>(b) * z[i]);
                scaled.push_back(static_cast<double>(a) * x[i]);
                added.push_back(scaled.back() + z[i]);
                scale.push_back(2 * (std::abs(x[i]) + std::abs(z[i])));
            }
            Reals y(index(n), kNaN), over_x = x, over_z = z;
            axpby(y.data(), a, x.data(), b, z.data(), n);
            CHECK(worst_error(y, sum, scale) < 1);
            axpby(over_x.data(), a, over_x.data(), b, z.data(), n);
            CHECK(same_bits(over_x, y));
            axpby(over_z.data(), a, x.data(), b, over_z.data(), n);
            CHECK(same_bits(over_z, y));

            Reals written(index(n), kNaN), target = z;
            add_scaled({written.data(), false}, a, x.data(), n);
            CHECK(worst_error(written, scaled, scale) < 1);
            add_scaled({target.data(), true}, a, x.data(), n);
            CHECK(worst_error(target, added, scale) < 1);
        }
    });
}

TEST_CASE("column sums", "[kernels][elementwise]") {
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        // One strip or many, one group of rows or many, ends of both that do not fill a group.
        for (const auto& [rows, width] : {std::pair{0, 5},
                                          {1, 1},
                                          {5, 3},
                                          {3, 40},
                                          {4, 256},
                                          {6, 257},
                                          {2, 5000},
                                          {600, 33},
                                          {4096, 1},
                                          {10007, 17},
                                          {1500, 300},
                                          {1025, 700}}) {
            CAPTURE(add, rows, width);
            const Reals dy = random_reals(rows * width, 1, 1, 0.5), before = random_reals(width, 2);
            Doubles sums(index(width), 0), scale(index(width), 1e-30);
            for (std::int64_t i = 0; i < width; ++i) {
                for (std::int64_t row = 0; row < rows; ++row) {
                    sums[index(i)] += dy[index(row * width + i)];
                    scale[index(i)] += std::abs(dy[index(row * width + i)]);
                }
                if (add) {
                    sums[index(i)] += before[index(i)];
                    scale[index(i)] += std::abs(before[index(i)]);
                }
            }
            Reals dbias = add ? before : Reals(index(width), kNaN);
            column_sums({dbias.data(), add}, dy.data(), rows, width);
            // Up to some 2500 additions in a row; their roundings mostly cancel.
            CHECK(worst_error(dbias, sums, scale) < 16);
        }
    });
}

TEST_CASE("rows and column sums of a part of a wider matrix", "[kernels][elementwise]") {
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        for (const auto& [rows, width, stride] : {std::array{1, 1, 3}, {5, 7, 9}, {600, 33, 50}, {1025, 700, 705}}) {
            CAPTURE(add, rows, width, stride);
            const Reals x = random_reals(rows * stride, 1), before = random_reals(rows * (width + 2), 2);
            Reals target = before, sums(index(width), 0), expected = before, packed(index(rows * width));
            put_rows({target.data(), add}, width + 2, x.data(), stride, rows, width);
            for (std::int64_t row = 0; row < rows; ++row)
                for (std::int64_t i = 0; i < width; ++i) {
                    const real value = x[index(row * stride + i)];
                    real& to = expected[index(row * (width + 2) + i)];
                    to = add ? to + value : value;
                    packed[index(row * width + i)] = value;
                }
            CHECK(same_bits(target, expected));

            Reals packed_sums = sums;
            column_sums({sums.data(), add}, x.data(), rows, width, stride);
            column_sums({packed_sums.data(), add}, packed.data(), rows, width);
            CHECK(same_bits(sums, packed_sums));
        }
    });
}

TEST_CASE("column sums see every NaN", "[kernels][elementwise]") {
    on_every_target([] {
        const std::int64_t rows = 1030, width = 20;
        for (const std::int64_t row : {std::int64_t{0}, std::int64_t{600}, rows - 1}) {
            Reals dy = random_reals(rows * width, 1), dbias(index(width));
            dy[index(row * width + 19)] = kNaN;
            column_sums({dbias.data(), false}, dy.data(), rows, width);
            CHECK(std::isnan(dbias[19]));
            CHECK_FALSE(std::isnan(dbias[18]));
        }
    });
}

TEST_CASE("sum of squares in double", "[kernels][elementwise]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            for (const double deviation : {1.0, sizeof(real) == 4 ? 1e30 : 1e100, sizeof(real) == 4 ? 1e-30 : 1e-100}) {
                const Reals x = random_reals(n, 1, deviation);
                double expected = 0;
                for (const real v : x)
                    expected += static_cast<double>(v) * v;
                // Whatever real is: the sum is a double's.
                CHECK(sum_of_squares(x.data(), n) == Approx(expected).epsilon(1e-13).margin(0));
            }
            if (n == 0) continue;
            for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
                Reals x = random_reals(n, 1);
                x[index(at)] = kNaN;
                CHECK(std::isnan(sum_of_squares(x.data(), n)));
                x[index(at)] = -kInfinity;
                CHECK(std::isinf(sum_of_squares(x.data(), n)));
            }
        }
    });
}

TEST_CASE("all_finite sees one element of any number", "[kernels][elementwise]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            const std::vector<real> largest(index(n), std::numeric_limits<real>::max());
            CHECK(all_finite(largest.data(), n)); // their sum is not
            if (n == 0) continue;
            for (const std::int64_t at : {std::int64_t{0}, n / 3, n / 2, n - 1}) {
                for (const real poison : {kNaN, kInfinity, -kInfinity}) {
                    Reals x = random_reals(n, 1);
                    x[index(at)] = poison;
                    CHECK_FALSE(all_finite(x.data(), n));
                }
            }
        }
    });
}

TEST_CASE("flat loops and sums give the same bits at any thread count", "[kernels][elementwise]") {
    const std::int64_t rows = 3001, width = GENERATE(31, 300), n = rows * width;
    const Reals x = random_reals(n, 1), z = random_reals(n, 2);
    check_same_bits_at_any_thread_count([&] {
        Reals y(index(n)), target = z, sums(index(width));
        axpby(y.data(), real(0.3), x.data(), real(0.9), z.data(), n);
        add_scaled({target.data(), true}, real(0.7), x.data(), n);
        column_sums({sums.data(), false}, x.data(), rows, width);
        return std::vector<Reals>{y, target, sums, bits_of({sum_of_squares(x.data(), n)})};
    });
}
