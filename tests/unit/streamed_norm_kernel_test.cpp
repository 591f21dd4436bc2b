// Norms, and sums, of matrices so large that their results are written past the caches: the same bits as for each part
// of them.

#include "ballast/kernels/batchnorm.h"
#include "ballast/kernels/elementwise.h"
#include "ballast/kernels/norm.h"
#include "ballast/kernels/squash.h"

#include <array>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

constexpr std::int64_t kWidth = 512;
constexpr std::int64_t kShortWidth = 32;             // so many rows a block that their statistics are whole vectors
constexpr std::int64_t kLongWidths[] = {1024, 2048}; // of rows that are taken in blocks here, but not in a part
constexpr std::int64_t kPartElements = 64 * kWidth;
constexpr std::int64_t kElements =
    (std::int64_t{32} << 20) / sizeof(real); // of the smallest matrix written in this way

/// A kind's forward and gradient of x: called as (y, dx, x, dy, rows).
template <class Norm>
void check_parts(Norm&& norm, std::int64_t width = kWidth) {
    const Reals x_part = random_reals(kPartElements, 1, 2, 0.5), dy_part = random_reals(kPartElements, 2);
    Reals y_part(x_part.size()), dx_part(x_part.size());
    norm(y_part.data(), dx_part.data(), x_part.data(), dy_part.data(), kPartElements / width);
    Arena memory; // aligned, as the tape's is
    real* arrays[4];
    for (real*& array : arrays)
        array = memory.allocate<real>(kElements);
    for (std::int64_t begin = 0; begin < kElements; begin += kPartElements) {
        std::copy(x_part.begin(), x_part.end(), arrays[2] + begin);
        std::copy(dy_part.begin(), dy_part.end(), arrays[3] + begin);
    }
    norm(arrays[0], arrays[1], arrays[2], arrays[3], kElements / width);
    bool same = true;
    for (std::int64_t begin = 0; begin < kElements; begin += kPartElements)
        same = same && std::equal(y_part.begin(), y_part.end(), arrays[0] + begin) &&
               std::equal(dx_part.begin(), dx_part.end(), arrays[1] + begin);
    CHECK(same);
}

} // namespace

TEST_CASE("a norm, or a sum, of very many rows is that of each of them", "[kernels][norm]") {
    const Reals gain = random_reals(kLongWidths[1], 3), bias = random_reals(kLongWidths[1], 4);
    const real eps = real(1e-5);
    on_every_target([&] {
        Arena scratch;
        real* const stats = scratch.allocate<real>(kElements / kShortWidth * kLayerNormStats);
        for (const std::int64_t width : {kWidth, kShortWidth, 2 * kShortWidth, kLongWidths[0], kLongWidths[1]}) {
            check_parts(
                [&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
                    layernorm_forward(y, stats, x, gain.data(), bias.data(), rows, width, eps);
                    layernorm_backward({dx, false}, {}, {}, dy, x, gain.data(), stats, rows, width, scratch);
                },
                width);
            check_parts(
                [&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
                    rmsnorm_forward(y, stats, x, gain.data(), rows, width, eps);
                    rmsnorm_backward({dx, false}, {}, dy, x, gain.data(), stats, rows, width, scratch);
                },
                width);
        }
        check_parts([&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
            scalenorm_forward(y, stats, x, 2, rows, kWidth, eps);
            scalenorm_backward({dx, false}, {}, dy, x, 2, stats, rows, kWidth, eps, scratch);
        });
        check_parts([&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
            axpby(y, real(0.5), x, real(2), dy, rows * kWidth);
            axpby(dx, real(1), x, real(-1), dy, rows * kWidth);
        });
        for (const Squash kind : {Squash::tanh, Squash::erf})
            for (const std::int64_t width : {kShortWidth, kLongWidths[1]})
                check_parts(
                    [&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
                        squash_forward(kind, y, x, real(0.7), real(0.1), gain.data(), bias.data(), rows, width);
                        squash_backward(kind, {{dx, false}, {}, {}, {}, {}}, dy, x, real(0.7), real(0.1), gain.data(),
                                        rows, width, scratch);
                    },
                    width);
        // With given statistics: those of the rows would be another matrix's.
        for (const std::int64_t width : {kWidth, kLongWidths[1]}) {
            Reals variance(index(width), real(2)), columns(index(kBatchNormStats * width));
            batchnorm_given_statistics(columns.data(), bias.data(), variance.data(), width, eps);
            check_parts(
                [&](real* y, real* dx, const real* x, const real* dy, std::int64_t rows) {
                    batchnorm_forward(y, x, columns.data(), gain.data(), bias.data(), rows, width);
                    batchnorm_backward({dx, false}, {}, {}, dy, x, gain.data(), columns.data(), true, rows, width,
                                       scratch);
                },
                width);
        }
    });
}

TEST_CASE("sums of DyT's and Derf's gradients over very many rows are those of the rows which they repeat",
          "[kernels][norm]") {
    constexpr std::int64_t kTimes = kElements / kPartElements;
    const Squash kind = GENERATE(Squash::tanh, Squash::erf);
    const std::int64_t width = GENERATE(kShortWidth, kLongWidths[1]);
    const Reals x_part = random_reals(kPartElements, 1, 2, 0.5), dy_part = random_reals(kPartElements, 2),
                gain = random_reals(width, 3);
    Reals x, dy;
    for (std::int64_t i = 0; i < kTimes; ++i) {
        x.insert(x.end(), x_part.begin(), x_part.end());
        dy.insert(dy.end(), dy_part.begin(), dy_part.end());
    }
    on_every_target([&] {
        CAPTURE(static_cast<int>(kind), width);
        Arena memory;
        real* const dx = memory.allocate<real>(kElements);
        const auto sums = [&](const Reals& rows_x, const Reals& rows_dy) {
            Reals of[] = {Reals(index(width)), Reals(index(width)), Reals(1), Reals(1)};
            squash_backward(kind,
                            {{dx, false},
                             {of[0].data(), false},
                             {of[1].data(), false},
                             {of[2].data(), false},
                             {of[3].data(), false}},
                            rows_dy.data(), rows_x.data(), real(0.7), real(0.1), gain.data(),
                            std::ssize(rows_x) / width, width, memory);
            return std::to_array(of);
        };
        const auto part = sums(x_part, dy_part), whole = sums(x, dy);
        for (std::size_t k = 0; k < part.size(); ++k) {
            CAPTURE(k);
            Doubles times;
            for (const real sum : part[k])
                times.push_back(static_cast<double>(kTimes) * static_cast<double>(sum));
            const std::int64_t terms = kElements / std::ssize(times);
            CHECK(worst_error(whole[k], times, Doubles(times.size(), static_cast<double>(terms))) < 4);
        }
    });
}

TEST_CASE("batch norm of very many long rows is that of those which they repeat", "[kernels][norm]") {
    constexpr std::int64_t kPartRows = 53, kLongWidth = 2048, kTimes = kElements / kLongWidth / kPartRows;
    const real eps = real(1e-5);
    const Reals x_part = random_reals(kPartRows * kLongWidth, 1, 2, 0.5),
                dy_part = random_reals(kPartRows * kLongWidth, 2);
    Reals x, dy;
    for (std::int64_t i = 0; i < kTimes; ++i) {
        x.insert(x.end(), x_part.begin(), x_part.end());
        dy.insert(dy.end(), dy_part.begin(), dy_part.end());
    }
    struct Results {
        Reals stats = Reals(index(kBatchNormStats * kLongWidth)), dgain = Reals(index(kLongWidth)), dbias = dgain;
    };
    on_every_target([&] {
        Arena scratch;
        const auto results = [&](const Reals& rows_x, const Reals& rows_dy) {
            Results of;
            const std::int64_t rows = std::ssize(rows_x) / kLongWidth;
            batchnorm_statistics(of.stats.data(), rows_x.data(), rows, kLongWidth, eps, scratch);
            batchnorm_backward({}, {of.dgain.data(), false}, {of.dbias.data(), false}, rows_dy.data(), rows_x.data(),
                               nullptr, of.stats.data(), false, rows, kLongWidth, scratch);
            return of;
        };
        const Results part = results(x_part, dy_part), whole = results(x, dy);
        Doubles expected;
        for (std::int64_t i = 0; i < 2 * kLongWidth; ++i) // means and variances
            expected.push_back(static_cast<double>(part.stats[index(i)]));
        CHECK(worst_error(Reals(whole.stats.begin(), whole.stats.begin() + 2 * kLongWidth), expected) < 4);
        for (const auto& [sums, sums_of_part] : {std::pair{&whole.dgain, &part.dgain}, {&whole.dbias, &part.dbias}}) {
            Doubles times;
            for (const real sum : *sums_of_part)
                times.push_back(static_cast<double>(kTimes) * static_cast<double>(sum));
            CHECK(worst_error(*sums, times, Doubles(times.size(), kTimes * std::sqrt(kPartRows))) < 8);
        }
    });
}
