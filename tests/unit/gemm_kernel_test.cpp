// Matrix products against sums in double, of every form and of shapes that are cut in every way.

#include "ballast/kernels/gemm.h"

#include <atomic>

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

struct Product {
    std::int64_t m, n, k;
};

/// One tile and several, odd edges, single rows, columns and terms, and inner extents that are cut. Inner extents of
/// whole cache lines, or not, and rows that are too few for a band, or for two.
const Product kProducts[] = {{1, 1, 1},       {3, 5, 7},      {17, 33, 65},    {1, 300, 40},   {300, 1, 40},
                             {130, 70, 1},    {600, 530, 20}, {65, 1000, 129}, {31, 33, 9001}, {5, 3, 300000},
                             {70, 66, 4097},  {11, 64, 16},   {12, 64, 16},    {13, 40, 48},   {37, 100, 80},
                             {25, 100, 1040}, {24, 96, 1050}};

/// A matrix in memory with a gap behind every row, as it is or transposed.
struct Matrix {
    std::int64_t stride;
    bool transposed;
    Reals data;

    Matrix(std::int64_t rows, std::int64_t columns, bool is_transposed, std::int64_t gap, std::uint64_t seed)
        : stride((is_transposed ? rows : columns) + gap), transposed(is_transposed),
          data(random_reals((is_transposed ? columns : rows) * stride, seed)) {}

    MatrixRef ref() const { return {data.data(), stride, transposed}; }
    double at(std::int64_t row, std::int64_t column) const {
        return data[index(transposed ? column * stride + row : row * stride + column)];
    }
};

constexpr std::int64_t kGap = 3;
constexpr real kMark = 77;

/// What lies between the rows of C is nobody's to write.
void check_gaps(const Reals& c, const Product& p) {
    for (std::int64_t row = 0; row < p.m; ++row)
        for (std::int64_t i = p.n; i < p.n + kGap; ++i)
            if (c[index(row * (p.n + kGap) + i)] != kMark) FAIL("wrote behind row " << row);
}

} // namespace

TEST_CASE("products equal sums in double, for all transposes, sizes, factors and sums", "[kernels][gemm]") {
    pin_blas();
    Arena scratch;
    for (const Product& p : kProducts)
        for (const bool a_transposed : {false, true})
            for (const bool b_transposed : {false, true}) {
                CAPTURE(p.m, p.n, p.k, a_transposed, b_transposed);
                const Matrix a(p.m, p.k, a_transposed, 2, 1), b(p.k, p.n, b_transposed, 1, 2);
                const std::int64_t stride = p.n + kGap;
                Doubles sums, sizes;
                for (std::int64_t row = 0; row < p.m; ++row)
                    for (std::int64_t column = 0; column < p.n; ++column) {
                        double sum = 0, squares = 0;
                        for (std::int64_t i = 0; i < p.k; ++i) {
                            const double term = a.at(row, i) * b.at(i, column);
                            sum += term;
                            squares += term * term;
                        }
                        sums.push_back(sum);
                        // Errors add up like a random walk whose steps grow with the partial sums.
                        sizes.push_back(1 + 16 * std::sqrt(squares));
                    }

                for (const bool add : {false, true})
                    for (const double alpha : {1.0, -0.5}) {
                        CAPTURE(add, alpha);
                        Reals c(index(p.m * stride), kMark);
                        const Reals before = random_reals(p.m * p.n, 3);
                        Doubles expected;
                        for (std::int64_t row = 0; row < p.m; ++row)
                            for (std::int64_t column = 0; column < p.n; ++column) {
                                const std::size_t i = index(row * p.n + column);
                                // Where nothing is added, nothing may be read.
                                c[index(row * stride + column)] = add ? before[i] : kNaN;
                                expected.push_back(alpha * sums[i] + (add ? double{before[i]} : 0));
                            }
                        gemm(p.m, p.n, p.k, static_cast<real>(alpha), a.ref(), b.ref(), {c.data(), add}, stride,
                             scratch);
                        check_gaps(c, p);
                        Reals actual;
                        for (std::int64_t row = 0; row < p.m; ++row)
                            actual.insert(actual.end(), c.begin() + row * stride, c.begin() + row * stride + p.n);
                        CHECK(worst_error(actual, expected, sizes) < 4);
                    }
                CHECK(scratch.used() == 0);
            }
}

TEST_CASE("an epilogue sees every element once, when it is final", "[kernels][gemm]") {
    pin_blas();
    Arena scratch;
    for (const int threads : {1, 3})
        for (const Product& p : kProducts)
            for (const bool add : {false, true}) {
                set_threads(threads);
                CAPTURE(threads, p.m, p.n, p.k, add);
                const Matrix a(p.m, p.k, false, 0, 1), b(p.k, p.n, true, 0, 2);
                Reals c = random_reals(p.m * p.n, 3);
                std::vector<std::atomic<int>> seen(c.size());
                Reals then(c.size());
                gemm(p.m, p.n, p.k, 1, a.ref(), b.ref(), {c.data(), add}, p.n, scratch, [&](const TileRange& tile) {
                    for (std::int64_t row = tile.row_begin; row < tile.row_end; ++row)
                        for (std::int64_t column = tile.column_begin; column < tile.column_end; ++column) {
                            ++seen[index(row * p.n + column)];
                            then[index(row * p.n + column)] = c[index(row * p.n + column)];
                        }
                });
                CHECK(std::all_of(seen.begin(), seen.end(), [](const auto& count) { return count == 1; }));
                CHECK(same_bits(then, c));
            }
    set_threads(available_processors());
}

TEST_CASE("products have the same bits at any number of threads", "[kernels][gemm]") {
    pin_blas();
    for (const Product& p : kProducts) {
        CAPTURE(p.m, p.n, p.k);
        const Matrix a(p.m, p.k, true, 0, 1), b(p.k, p.n, false, 0, 2);
        check_same_bits_at_any_thread_count([&] {
            Arena scratch;
            Reals c = random_reals(p.m * p.n, 3);
            gemm(p.m, p.n, p.k, 1, a.ref(), b.ref(), {c.data(), true}, p.n, scratch);
            return std::vector<Reals>{c};
        });
    }
}

/// A row and a column of C made alone, against those of the whole.
void check_same_bits_alone(const Product& p, bool a_transposed, bool b_transposed) {
    CAPTURE(p.m, p.n, p.k, a_transposed, b_transposed);
    const Matrix a(p.m, p.k, a_transposed, 2, 1), b(p.k, p.n, b_transposed, 1, 2);
    Arena scratch;
    Reals whole(index(p.m * p.n));
    gemm(p.m, p.n, p.k, 1, a.ref(), b.ref(), {whole.data(), false}, p.n, scratch);
    const auto from = [](const Matrix& matrix, std::int64_t row, std::int64_t column) {
        const std::int64_t offset = matrix.transposed ? column * matrix.stride + row : row * matrix.stride + column;
        return MatrixRef{matrix.data.data() + offset, matrix.stride, matrix.transposed};
    };
    const std::int64_t row = p.m / 2, column = p.n / 3;
    Reals parts((index(p.n + p.m)));
    gemm_in_task(1, p.n, p.k, 1, from(a, row, 0), b.ref(), 0, parts.data(), p.n);
    gemm_in_task(p.m, 1, p.k, 1, a.ref(), from(b, 0, column), 0, parts.data() + p.n, 1);
    Reals expected(whole.begin() + row * p.n, whole.begin() + (row + 1) * p.n);
    for (std::int64_t r = 0; r < p.m; ++r)
        expected.push_back(whole[index(r * p.n + column)]);
    if (pin_blas().name == "own products")
        CHECK(same_bits(parts, expected));
    else // OpenBLAS's bits depend on the shape of the product
        CHECK(worst_error(parts, Doubles(expected.begin(), expected.end()),
                          Doubles(expected.size(), static_cast<double>(p.k))) < 2);
}

TEST_CASE("an element of a product has the same bits however the product is cut", "[kernels][gemm]") {
    on_every_target([&] {
        for (const Product& p : kProducts)
            for (const bool a_transposed : {false, true})
                for (const bool b_transposed : {false, true})
                    check_same_bits_alone(p, a_transposed, b_transposed);
    });
}

TEST_CASE("every instruction set multiplies, in all forms", "[kernels][gemm]") {
    // Inner extents of a whole block and a rest, which is whole cache lines, or not.
    for (const std::int64_t k : {832, 861})
        for (const bool a_transposed : {false, true})
            for (const bool b_transposed : {false, true}) {
                CAPTURE(k, a_transposed, b_transposed);
                const std::int64_t m = 37, n = 45;
                const Matrix a(m, k, a_transposed, 0, 1), b(k, n, b_transposed, 0, 2);
                Doubles expected;
                for (std::int64_t row = 0; row < m; ++row)
                    for (std::int64_t column = 0; column < n; ++column) {
                        double sum = 0;
                        for (std::int64_t i = 0; i < k; ++i)
                            sum += a.at(row, i) * b.at(i, column);
                        expected.push_back(sum);
                    }
                on_every_target([&] {
                    Arena scratch;
                    Reals c(index(m * n));
                    gemm(m, n, k, 1, a.ref(), b.ref(), {c.data(), false}, n, scratch);
                    const Doubles sizes(expected.size(), 16 * std::sqrt(static_cast<double>(k)));
                    CHECK(worst_error(c, expected, sizes) < 4);
                });
            }
}

TEST_CASE("the plan of a product cuts large ones into tasks, by shape alone", "[kernels][gemm]") {
    CHECK(plan_gemm(4, 4, 4, false).depth_chunks == 1);
    CHECK(plan_gemm(4, 4, 4, false).tile_rows >= 4);
    const GemmPlan weight_gradient = plan_gemm(64, 64, 1 << 16, true);
    CHECK(weight_gradient.depth_chunks > 1);
    const GemmPlan square = plan_gemm(2048, 2048, 256, true);
    CHECK(square.depth_chunks == 1);
    CHECK(square.tile_rows * square.tile_columns < 2048 * 2048 / 8);
    // No narrower than enough tasks are: every strip of columns reads all of op(A).
    CHECK(plan_gemm(256, 768, 50257, false).tile_columns == 96);
}

TEST_CASE("a product on one thread scales what it adds to", "[kernels][gemm]") {
    pin_blas();
    const Matrix a(9, 11, false, 2, 1), b(11, 7, true, 1, 2);
    Reals c = random_reals(9 * 7, 3);
    Doubles expected;
    for (std::int64_t row = 0; row < 9; ++row)
        for (std::int64_t column = 0; column < 7; ++column) {
            double sum = 0;
            for (std::int64_t i = 0; i < 11; ++i)
                sum += a.at(row, i) * b.at(i, column);
            expected.push_back(2 * sum - 3 * double{c[index(row * 7 + column)]});
        }
    gemm_in_task(9, 7, 11, 2, a.ref(), b.ref(), -3, c.data(), 7);
    CHECK(worst_error(c, expected) < 32);
}

TEST_CASE("NaN and infinity carry through a product", "[kernels][gemm]") {
    pin_blas();
    Arena scratch;
    Reals a(4, 1), b(4, 1), c(4);
    a[0] = kNaN;
    b[3] = kInfinity;
    gemm(2, 2, 2, 1, {a.data(), 2}, {b.data(), 2}, {c.data(), false}, 2, scratch);
    CHECK(all_nan(c.data(), 2)); // row 0
    CHECK(c[2] == 2);
    CHECK(c[3] == kInfinity);
}

TEST_CASE("what multiplies is known by name, and does so on one thread", "[kernels][gemm]") {
    const BlasFacts facts = pin_blas();
    CHECK((facts.name == "own products" || facts.name.find("OpenBLAS") != std::string::npos));
    CHECK_FALSE(facts.core.empty());
    CHECK((facts.threading == "serial" || facts.threading == "pthread" || facts.threading == "openmp"));
}
