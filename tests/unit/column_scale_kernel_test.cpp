// Learned factors of columns against the definition in double precision.

#include "ballast/kernels/column_scale.h"

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Case {
    std::int64_t rows;
    std::int64_t width;
    std::int64_t factors;
};

const Case kCases[] = {{1, 1, 1},  {3, 7, 1},      {5, 7, 7},    {4, 33, 11},
                       {9, 64, 4}, {70, 515, 515}, {700, 40, 8}, {3000, 6, 1}};

} // namespace

TEST_CASE("column factors equal their definition, with and without a skip", "[kernels]") {
    const bool skip = GENERATE(false, true);
    on_every_target([&] {
        for (const Case c : kCases) {
            CAPTURE(skip, c.rows, c.width, c.factors);
            const Reals x = random_reals(c.rows * c.width, 1), branch = random_reals(c.rows * c.width, 2);
            const Reals scale = random_reals(c.factors, 3);
            const real a = real(1.5), b = real(-0.7);
            Reals y(x.size(), kNaN);
            Arena scratch;
            column_scale_forward(y.data(), a, skip ? x.data() : nullptr, b, branch.data(), scale.data(), c.factors,
                                 c.rows, c.width, scratch);
            Doubles expected, size;
            for (std::size_t i = 0; i < x.size(); ++i) {
                const std::size_t factor = i % index(c.width) / index(c.width / c.factors);
                const double left = skip ? static_cast<double>(a) * static_cast<double>(x[i]) : 0;
                const double right =
                    static_cast<double>(b) * static_cast<double>(scale[factor]) * static_cast<double>(branch[i]);
                expected.push_back(left + right);
                size.push_back(std::abs(left) + std::abs(right));
            }
            CHECK(worst_error(y, expected, size) < 2);
        }
    });
}

TEST_CASE("column factors backward equals its definition, written or added", "[kernels]") {
    const bool add = GENERATE(false, true);
    on_every_target([&] {
        for (const Case c : kCases) {
            CAPTURE(add, c.rows, c.width, c.factors);
            const std::int64_t n = c.rows * c.width;
            const Reals branch = random_reals(n, 2), dy = random_reals(n, 4), scale = random_reals(c.factors, 3);
            const real b = real(-0.7);
            Reals dbranch = add ? random_reals(n, 5) : Reals(index(n), kNaN);
            Reals dfactors = add ? random_reals(c.factors, 6) : Reals(index(c.factors), kNaN);
            Doubles branch_expected, branch_terms, factor_expected, factor_terms;
            for (const real v : dfactors) {
                factor_expected.push_back(add ? static_cast<double>(v) : 0);
                factor_terms.push_back(std::abs(factor_expected.back()));
            }
            for (std::size_t i = 0; i < branch.size(); ++i) {
                const std::size_t factor = i % index(c.width) / index(c.width / c.factors);
                const double v = static_cast<double>(b) * static_cast<double>(dy[i]);
                const double before = add ? static_cast<double>(dbranch[i]) : 0;
                branch_expected.push_back(before + v * static_cast<double>(scale[factor]));
                branch_terms.push_back(std::abs(before) + std::abs(v * static_cast<double>(scale[factor])));
                factor_expected[factor] += v * static_cast<double>(branch[i]);
                factor_terms[factor] += std::abs(v * static_cast<double>(branch[i]));
            }
            Arena scratch;
            column_scale_backward({dbranch.data(), add}, {dfactors.data(), add}, dy.data(), b, branch.data(),
                                  scale.data(), c.factors, c.rows, c.width, scratch);
            CHECK(worst_error(dbranch, branch_expected, branch_terms) < 3);
            CHECK(worst_error(dfactors, factor_expected, factor_terms) < 4);
        }
    });
}

TEST_CASE("column factors give the same bits at any thread count", "[kernels]") {
    const Case c = GENERATE(Case{700, 64, 4}, Case{40, 3000, 1}, Case{3000, 5, 5});
    const Reals branch = random_reals(c.rows * c.width, 1), dy = random_reals(c.rows * c.width, 2);
    const Reals scale = random_reals(c.factors, 3);
    check_same_bits_at_any_thread_count([&] {
        Reals dbranch(branch.size()), dfactors(scale.size());
        Arena scratch;
        column_scale_backward({dbranch.data(), false}, {dfactors.data(), false}, dy.data(), 1, branch.data(),
                              scale.data(), c.factors, c.rows, c.width, scratch);
        return std::vector<Reals>{dbranch, dfactors};
    });
}
