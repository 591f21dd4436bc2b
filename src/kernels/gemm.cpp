#include "ballast/kernels/gemm.h"

#include <cblas.h>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"

namespace ballast::inline BALLAST_PRECISION {

namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Cuts `extent` into equal parts of at most `limit`, rounded up to whole multiples of `step`.
constexpr std::int64_t even_tile(std::int64_t extent, std::int64_t limit, std::int64_t step) {
    const std::int64_t parts = ceil_div(extent, limit);
    return ceil_div(ceil_div(extent, parts), step) * step;
}

std::string threading_name(int parallel) {
    switch (parallel) {
    case OPENBLAS_SEQUENTIAL: return "serial";
    case OPENBLAS_THREAD: return "pthread";
    case OPENBLAS_OPENMP: return "openmp";
    default: return "unknown";
    }
}

} // namespace

GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k) {
    // Tiles are large enough to pay for packing their operands and small enough that there are at least
    // kWantedTasks of them where the work allows it.
    constexpr std::int64_t kStep = 16; // a multiple of every OpenBLAS micro-kernel's extents
    constexpr std::int64_t kLargest = 512;
    constexpr std::int64_t kSmallest = 64;
    constexpr std::int64_t kWantedTasks = 8;
    constexpr double kWorthSplitting = 1.5e6; // multiply-adds in a task below which starting it costs too much

    std::int64_t rows = even_tile(m, kLargest, kStep);
    std::int64_t columns = even_tile(n, kLargest, kStep);
    const auto tasks = [&] { return ceil_div(m, rows) * ceil_div(n, columns); };
    const auto work = [&] {
        return static_cast<double>(std::min(rows, m)) * static_cast<double>(std::min(columns, n)) *
               static_cast<double>(k);
    };
    while (tasks() < kWantedTasks && work() >= 2 * kWorthSplitting) {
        if (rows >= columns && rows > kSmallest)
            rows = even_tile(m, rows / 2, kStep);
        else if (columns > kSmallest)
            columns = even_tile(n, columns / 2, kStep);
        else
            break;
    }

    // A product with a small result and a long inner dimension (a weight's gradient) is cut along the inner one.
    std::int64_t chunks = 1;
    while (tasks() * chunks < kWantedTasks && work() / static_cast<double>(chunks) >= 2 * kWorthSplitting)
        chunks *= 2;
    return {rows, columns, chunks};
}

void gemm_in_task(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                  real beta, real* c, std::int64_t c_stride) {
    const auto transpose = [](bool yes) { return yes ? CblasTrans : CblasNoTrans; };
    const auto extent = [](std::int64_t value) { return static_cast<blasint>(value); };
#ifdef BALLAST_DOUBLE
    cblas_dgemm(
#else
    cblas_sgemm(
#endif
        CblasRowMajor, transpose(a.transposed), transpose(b.transposed), extent(m), extent(n), extent(k), alpha, a.data,
        extent(a.stride), b.data, extent(b.stride), beta, c, extent(c_stride));
}

namespace {
/// Element (row, column) of op(M), as the origin of a sub-matrix.
MatrixRef sub_matrix(const MatrixRef& matrix, std::int64_t row, std::int64_t column) {
    if (matrix.transposed) std::swap(row, column);
    return {matrix.data + row * matrix.stride + column, matrix.stride, matrix.transposed};
}
} // namespace

void gemm_detail::run_gemm(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a,
                           const MatrixRef& b, Grad c, std::int64_t c_stride, Arena& scratch, GemmEpilogue epilogue,
                           void* context) {
    const GemmPlan plan = plan_gemm(m, n, k);
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
            gemm_in_task(range.row_end - range.row_begin, range.column_end - range.column_begin, k, alpha,
                         sub_matrix(a, range.row_begin, 0), sub_matrix(b, 0, range.column_begin),
                         c.add ? real{1} : real{0}, c.data + range.row_begin * c_stride + range.column_begin, c_stride);
            if (epilogue != nullptr) epilogue(context, range);
        });
        return;
    }

    const Arena::Mark mark(scratch);
    real* partials = scratch.allocate<real>(plan.depth_chunks * m * n);
    const std::int64_t depth = ceil_div(k, plan.depth_chunks);
    parallel_for(tiles * plan.depth_chunks, [&](std::int64_t task) {
        const TileRange range = tile_range(task % tiles);
        const std::int64_t chunk = task / tiles;
        const std::int64_t begin = chunk * depth;
        const std::int64_t length = std::clamp<std::int64_t>(k - begin, 0, depth);
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

BlasFacts pin_blas() {
    openblas_set_num_threads(1);
    if (openblas_get_num_threads() != 1)
        throw Error("OpenBLAS keeps " + std::to_string(openblas_get_num_threads()) +
                    " threads although it was told to use one; set OPENBLAS_NUM_THREADS=1 and OMP_NUM_THREADS=1");
    return {openblas_get_config(), openblas_get_corename(), threading_name(openblas_get_parallel())};
}

} // namespace ballast::inline BALLAST_PRECISION
