#include "ballast/kernels/gemm.h"

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/simd.h"
#include "gemm_panels.h"
#ifdef BALLAST_GEMM_OPENBLAS
#include <cblas.h>
#endif

namespace ballast::inline BALLAST_PRECISION {

namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Cuts `extent` into equal parts of at most `limit`, rounded up to whole multiples of `step`.
constexpr std::int64_t even_tile(std::int64_t extent, std::int64_t limit, std::int64_t step) {
    const std::int64_t parts = ceil_div(extent, limit);
    return ceil_div(ceil_div(extent, parts), step) * step;
}

} // namespace

GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, bool a_transposed) {
    // A tile packs its columns of op(B) itself, and every strip of columns reads all of op(A): narrow tiles cost less
    // than low ones. There are at least kWantedTasks where the work allows it.
    constexpr std::int64_t kRowStep = 24; // whole bands of every instruction set
    constexpr std::int64_t kColumnStep = 32;
    constexpr std::int64_t kMostRows = 1024;
    constexpr std::int64_t kMostColumns = 128;
    constexpr std::int64_t kFewestRows = 96;
    constexpr std::int64_t kWantedTasks = 8;
    constexpr double kWorthSplitting = 0.75e6; // multiply-adds in a task below which starting it costs too much
    constexpr double kPackingRows = 8;         // rows whose products take as long as packing

    std::int64_t rows = even_tile(m, kMostRows, kRowStep);
    std::int64_t columns = even_tile(n, kMostColumns, kColumnStep);
    const auto tasks = [&] { return ceil_div(m, rows) * ceil_div(n, columns); };
    const auto work = [&] {
        return (static_cast<double>(std::min(rows, m)) + kPackingRows) * static_cast<double>(std::min(columns, n)) *
               static_cast<double>(k);
    };
    while (tasks() < kWantedTasks && work() >= 2 * kWorthSplitting) {
        if (columns > kColumnStep)
            columns = even_tile(n, columns - kColumnStep, kColumnStep);
        else if (rows > kFewestRows)
            rows = even_tile(m, rows / 2, kRowStep);
        else
            break;
    }

    // A product with a small result and a long inner dimension (a weight's gradient) is cut along the inner one.
    const std::int64_t blocks = ceil_div(k, depth_block(a_transposed));
    const bool cut =
        tasks() < kWantedTasks && blocks > 1 && work() / static_cast<double>(blocks) >= kWorthSplitting / 4;
    return {rows, columns, cut ? blocks : 1};
}

namespace {
/// op(B) of a product, and its columns.
struct Factor {
    MatrixRef b;
    std::int64_t n;
};

/// gemm_in_task; `next` is what this thread is likely to need for its next product, with the same k.
void product_in_task(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                     real beta, real* c, std::int64_t c_stride, [[maybe_unused]] const Factor& next) {
#ifdef BALLAST_GEMM_OPENBLAS
    const auto transpose = [](bool yes) { return yes ? CblasTrans : CblasNoTrans; };
    const auto extent = [](std::int64_t value) { return static_cast<blasint>(value); };
#ifdef BALLAST_DOUBLE
    const auto product = cblas_dgemm;
#else
    const auto product = cblas_sgemm;
#endif
    product(CblasRowMajor, transpose(a.transposed), transpose(b.transposed), extent(m), extent(n), extent(k), alpha,
            a.data, extent(a.stride), b.data, extent(b.stride), beta, c, extent(c_stride));
#else
    Arena& scratch = worker_scratch();
    const Arena::Mark mark(scratch);
    const std::int64_t block = std::min(depth_block(a.transposed), k);
    real* const panels = scratch.allocate<real>(panels_size(n, block));
    for (std::int64_t begin = 0; begin < k; begin += block) {
        const std::int64_t length = std::min(block, k - begin), rest = k - begin - length;
        multiply_panels(m, n, length, alpha, sub_matrix(a, 0, begin), sub_matrix(b, begin, 0), panels,
                        begin == 0 ? beta : 1, c, c_stride,
                        rest > 0 ? FetchAhead(sub_matrix(b, begin + length, 0), n, std::min(block, rest))
                                 : FetchAhead(next.b, next.n, block));
    }
#endif
}
} // namespace

void gemm_in_task(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                  real beta, real* c, std::int64_t c_stride) {
    product_in_task(m, n, k, alpha, a, b, beta, c, c_stride, {});
}

void gemm_detail::run_gemm(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a,
                           const MatrixRef& b, Grad c, std::int64_t c_stride, Arena& scratch, GemmEpilogue epilogue,
                           void* context) {
    const GemmPlan plan = plan_gemm(m, n, k, a.transposed);
    const std::int64_t row_tiles = ceil_div(m, plan.tile_rows);
    const std::int64_t column_tiles = ceil_div(n, plan.tile_columns);
    const std::int64_t tiles = row_tiles * column_tiles;
    const auto tile_range = [&](std::int64_t tile) {
        const std::int64_t row = tile / column_tiles * plan.tile_rows;
        const std::int64_t column = tile % column_tiles * plan.tile_columns;
        return TileRange{row, std::min(row + plan.tile_rows, m), column, std::min(column + plan.tile_columns, n)};
    };

    if (plan.depth_chunks == 1) {
        parallel_for(tiles, [&](std::int64_t tile) {
            const TileRange range = tile_range(tile);
            // A thread takes its own tiles in order.
            const TileRange next = tile + 1 < tiles ? tile_range(tile + 1) : TileRange{};
            product_in_task(range.row_end - range.row_begin, range.column_end - range.column_begin, k, alpha,
                            sub_matrix(a, range.row_begin, 0), sub_matrix(b, 0, range.column_begin),
                            c.add ? real{1} : real{0}, c.data + range.row_begin * c_stride + range.column_begin,
                            c_stride, {sub_matrix(b, 0, next.column_begin), next.column_end - next.column_begin});
            if (epilogue != nullptr) epilogue(context, range);
        });
        return;
    }

    const Arena::Mark mark(scratch);
    real* partials = scratch.allocate<real>(plan.depth_chunks * m * n);
    parallel_for(tiles * plan.depth_chunks, [&](std::int64_t task) {
        const TileRange range = tile_range(task % tiles);
        const std::int64_t chunk = task / tiles;
        const std::int64_t begin = chunk * depth_block(a.transposed);
        const std::int64_t length = std::min(depth_block(a.transposed), k - begin);
        gemm_in_task(range.row_end - range.row_begin, range.column_end - range.column_begin, length, alpha,
                     sub_matrix(a, range.row_begin, begin), sub_matrix(b, begin, range.column_begin), 0,
                     partials + chunk * m * n + range.row_begin * n + range.column_begin, n);
    });
    parallel_ranges(m, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            real* out = c.data + row * c_stride;
            for (std::int64_t chunk = 0; chunk < plan.depth_chunks; ++chunk) {
                const real* partial = partials + chunk * m * n + row * n;
                if (chunk == 0 && !c.add)
                    std::copy_n(partial, n, out);
                else
                    for (std::int64_t column = 0; column < n; ++column)
                        out[column] += partial[column];
            }
        }
        if (epilogue != nullptr) epilogue(context, {begin, end, 0, n});
    });
}

#ifdef BALLAST_GEMM_OPENBLAS
namespace {
std::string threading_name(int parallel) {
    switch (parallel) {
    case OPENBLAS_SEQUENTIAL: return "serial";
    case OPENBLAS_THREAD: return "pthread";
    case OPENBLAS_OPENMP: return "openmp";
    default: return "unknown";
    }
}
} // namespace

BlasFacts pin_blas() {
    openblas_set_num_threads(1);
    if (openblas_get_num_threads() != 1)
        throw Error("OpenBLAS keeps " + std::to_string(openblas_get_num_threads()) +
                    " threads although it was told to use one; set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1");
    return {openblas_get_config(), openblas_get_corename(), threading_name(openblas_get_parallel())};
}
#else
BlasFacts pin_blas() { return {"own products", simd_name(), "serial"}; }
#endif

} // namespace ballast::inline BALLAST_PRECISION
