// Softmax pieces and cross-entropy against their definitions in double precision.

#include "ballast/kernels/softmax.h"

#include <numeric>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

const std::int64_t kSizes[] = {1, 2, 3, 7, 16, 17, 33, 64, 65, 300, 1001};

double log_sum_exp(const double* x, std::int64_t n) {
    const double max = *std::max_element(x, x + n);
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i)
        sum += std::exp(x[i] - max);
    return max + std::log(sum);
}

struct Loss {
    Reals log_z, nll, max_logit;

    Loss(const Reals& logits, const std::vector<std::int32_t>& targets, std::int64_t classes)
        : log_z(targets.size(), kNaN), nll(targets.size(), kNaN), max_logit(targets.size(), kNaN) {
        cross_entropy_forward(log_z.data(), nll.data(), max_logit.data(), logits.data(), targets.data(),
                              static_cast<std::int64_t>(targets.size()), classes);
    }
};

/// Any class, and every third row without a target.
std::vector<std::int32_t> random_targets(std::int64_t rows, std::int64_t classes) {
    const RandomStream stream(7, "targets");
    std::vector<std::int32_t> targets;
    for (std::int64_t row = 0; row < rows; ++row) {
        const auto any = stream.below(static_cast<std::uint64_t>(row), static_cast<std::uint64_t>(classes));
        targets.push_back(row % 3 == 1 ? kIgnoredTarget : static_cast<std::int32_t>(any));
    }
    return targets;
}

} // namespace

TEST_CASE("exp of a row", "[kernels][softmax]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            const Reals x = random_reals(n, 1, 5, 1000);
            const real largest = *std::max_element(x.begin(), x.end());
            Doubles expected; // of the differences as rounded: that rounding is the inputs' business
            for (const real v : x)
                expected.push_back(std::exp(static_cast<double>(v - largest)));
            Reals row = x;
            real max = kNaN;
            const real sum = exp_row(row.data(), n, max);
            CHECK(max == largest);
            CHECK(worst_error(row, expected, expected) < 2);
            const double total = std::accumulate(expected.begin(), expected.end(), 0.0);
            CHECK(std::abs(sum - total) < 3 * kEpsilon * total);

            Reals shifted = x;
            exp_shifted_row(shifted.data(), n, largest);
            CHECK(same_bits(shifted, row));
        }
    });
}

TEST_CASE("masked scores vanish, NaNs do not", "[kernels][softmax]") {
    const real mask = GENERATE(real(-1e30), -kInfinity);
    on_every_target([&] {
        for (const std::int64_t n : kSizes) {
            for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
                CAPTURE(mask, n, at);
                Reals row(index(n), mask);
                row[index(at)] = real(3);
                real max = kNaN;
                CHECK(exp_row(row.data(), n, max) == 1);
                CHECK(max == 3);
                Reals expected(index(n), 0);
                expected[index(at)] = 1;
                CHECK(same_bits(row, expected));

                row = random_reals(n, 1);
                row[index(at)] = kNaN;
                CHECK(std::isnan(exp_row(row.data(), n, max)));
                CHECK(std::isnan(row[index(at)]));
                row.assign(index(n), mask);
                row[index(at)] = kNaN;
                CHECK(std::isnan(exp_row(row.data(), n, max)));
                row = random_reals(n, 1);
                row[index(at)] = kInfinity;
                CHECK(std::isnan(exp_row(row.data(), n, max)));
            }
        }
    });
}

TEST_CASE("scaled rows, dot products, softmax backward", "[kernels][softmax]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            const Reals a = random_reals(n, 1), b = random_reals(n, 2);
            const real delta = real(0.3), scale = real(0.125);
            Doubles scaled, ds, ds_scale;
            double dot = 0, dot_scale = 0;
            for (std::size_t i = 0; i < a.size(); ++i) {
                const double x = a[i], y = b[i];
                scaled.push_back(x * scale);
                ds.push_back(x * (y - delta) * scale);
                ds_scale.push_back(std::abs(x * scale) * (std::abs(y) + 0.3));
                dot += x * y;
                dot_scale += std::abs(x * y);
            }
            Reals y(index(n), kNaN), y_in_place = a;
            scale_row(y.data(), a.data(), scale, n);
            CHECK(worst_error(y, scaled) == 0); // a power of 2
            scale_row(y_in_place.data(), y_in_place.data(), scale, n);
            CHECK(same_bits(y_in_place, y));

            // Eight lanes of partial sums and a tree: few roundings.
            CHECK(std::abs(dot_row(a.data(), b.data(), n) - dot) <= 8 * kEpsilon * dot_scale);

            Reals actual(index(n), kNaN), in_place = b;
            softmax_backward_row(actual.data(), a.data(), b.data(), delta, scale, n);
            CHECK(worst_error(actual, ds, ds_scale) < 2);
            softmax_backward_row(in_place.data(), a.data(), in_place.data(), delta, scale, n);
            CHECK(same_bits(in_place, actual));
        }
    });
}

TEST_CASE("cross-entropy equals its definition", "[kernels][softmax]") {
    const double deviation = GENERATE(0.1, 3.0, 1e4);
    on_every_target([&] {
        for (const auto& [rows, classes] :
             {std::pair{1, 1}, {5, 2}, {4, 3}, {7, 17}, {3, 65}, {600, 65}, {3, 2048}, {2, 2049}, {5, 9001}}) {
            CAPTURE(deviation, rows, classes);
            const Reals logits = random_reals(rows * classes, 1, deviation, deviation);
            const Doubles x = to_doubles(logits);
            const std::vector<std::int32_t> targets = random_targets(rows, classes);
            Doubles log_z, nll, nll_scale, max_logit;
            for (std::int64_t row = 0; row < rows; ++row) {
                const double* const first = x.data() + row * classes;
                log_z.push_back(log_sum_exp(first, classes));
                const std::int32_t target = targets[index(row)];
                nll.push_back(target == kIgnoredTarget ? 0 : log_z.back() - first[target]);
                nll_scale.push_back(1 + nll.back());
                max_logit.push_back(0);
                for (std::int64_t i = 0; i < classes; ++i)
                    max_logit.back() = std::max(max_logit.back(), std::abs(first[i]));
            }
            const Loss loss(logits, targets, classes);
            CHECK(worst_error(loss.log_z, log_z) < 2);
            CHECK(worst_error(loss.nll, nll, nll_scale) < 2);
            CHECK(worst_error(loss.max_logit, max_logit) == 0);
        }
    });
}

TEST_CASE("cross-entropy of masked, NaN and infinite logits", "[kernels][softmax]") {
    on_every_target([] {
        for (const std::int64_t classes : {3, 40, 2048, 5000}) {
            // All -inf but the last: whole pieces of the row are masked before a finite logit comes.
            Reals logits(index(classes), -kInfinity);
            logits.back() = real(2);
            const std::vector<std::int32_t> target{static_cast<std::int32_t>(classes - 1)};
            const Loss masked(logits, target, classes);
            CHECK(masked.log_z[0] == 2);
            CHECK(masked.nll[0] == 0);
            CHECK(masked.max_logit[0] == kInfinity);

            for (const std::int64_t at : {std::int64_t{0}, classes / 2, classes - 1}) {
                for (const real poison : {kNaN, kInfinity}) {
                    for (const bool rest_masked : {false, true}) {
                        CAPTURE(classes, at, poison, rest_masked);
                        logits = rest_masked ? Reals(index(classes), -kInfinity) : random_reals(classes, 1);
                        logits[index(at)] = poison;
                        const Loss loss(logits, target, classes);
                        CHECK(std::isnan(loss.log_z[0]));
                        CHECK(std::isnan(loss.nll[0]));
                        CHECK(std::isnan(loss.max_logit[0]));
                    }
                }
            }
        }
    });
}

TEST_CASE("cross-entropy backward is the derivative, written, added or in place", "[kernels][softmax]") {
    const double z_loss = GENERATE(0.0, 1e-2);
    on_every_target([&] {
        for (const auto& shape : {std::pair{1, 1}, {5, 2}, {4, 3}, {7, 17}, {4, 130}}) {
            const std::int64_t rows = shape.first, classes = shape.second; // lambdas below use them: no binding
            CAPTURE(z_loss, rows, classes);
            const Reals logits = random_reals(rows * classes, 1, 2);
            const std::vector<std::int32_t> targets = random_targets(rows, classes);
            const Loss loss(logits, targets, classes);
            const double scale = 0.25;
            Doubles x = to_doubles(logits), expected;
            for (std::int64_t row = 0; row < rows; ++row) {
                double* const first = x.data() + row * classes;
                const std::int32_t target = targets[index(row)];
                for (std::int64_t i = 0; i < classes; ++i) {
                    const double here = first[i];
                    const auto row_loss = [&](double v) {
                        first[i] = v;
                        const double z = log_sum_exp(first, classes);
                        return scale * (z - first[target] + z_loss * z * z);
                    };
                    expected.push_back(target == kIgnoredTarget ? 0 : slope(row_loss, here));
                    first[i] = here;
                }
            }
            const Reals before = random_reals(rows * classes, 4);
            Doubles sum;
            for (std::size_t i = 0; i < before.size(); ++i)
                sum.push_back(before[i] + expected[i]);
            // p = exp(x - log_z) has the rounding of log_z, about 5 here; central differences are good to 1e-10.
            const double tolerance = 4 + 1e-9 / kEpsilon;
            const auto backward = [&](Grad target, const real* from) {
                cross_entropy_backward(target, from, loss.log_z.data(), targets.data(), rows, classes,
                                       static_cast<real>(scale), static_cast<real>(z_loss));
            };
            Reals written(before.size(), kNaN), added = before, in_place = logits;
            backward({written.data(), false}, logits.data());
            CHECK(worst_error(written, expected) < tolerance);
            backward({added.data(), true}, logits.data());
            CHECK(worst_error(added, sum) < tolerance);
            backward({in_place.data(), false}, in_place.data());
            CHECK(same_bits(in_place, written));
        }
    });
}

TEST_CASE("rows without a target get no gradient, whatever is in them", "[kernels][softmax]") {
    on_every_target([] {
        const std::int64_t classes = 37;
        const Reals logits(index(classes), kNaN), before = random_reals(classes, 1);
        const std::int32_t none = kIgnoredTarget;
        const real log_z = kNaN;
        Reals written = before, added = before;
        cross_entropy_backward({written.data(), false}, logits.data(), &log_z, &none, 1, classes, 1, 1);
        CHECK(written == Reals(index(classes), 0));
        cross_entropy_backward({added.data(), true}, logits.data(), &log_z, &none, 1, classes, 1, 1);
        CHECK(same_bits(added, before));
        CHECK(Loss(logits, {none}, classes).nll[0] == 0);
        CHECK(std::isnan(Loss(logits, {none}, classes).log_z[0]));
    });
}

TEST_CASE("cross-entropy gives the same bits at any thread count", "[kernels][softmax]") {
    const std::int64_t classes = GENERATE(65, 3000), rows = 400;
    const Reals logits = random_reals(rows * classes, 1);
    const std::vector<std::int32_t> targets = random_targets(rows, classes);
    check_same_bits_at_any_thread_count([&] {
        const Loss loss(logits, targets, classes);
        Reals dlogits(logits.size());
        cross_entropy_backward({dlogits.data(), false}, logits.data(), loss.log_z.data(), targets.data(), rows, classes,
                               real(0.01), real(1e-4));
        return std::vector<Reals>{loss.log_z, loss.nll, loss.max_logit, dlogits};
    });
}
