#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>

#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

// Matrix products, in parallel over tiles whose sizes depend on the shape of the product alone. The bits of an element
// depend neither on the thread count nor on the tiles, but on the row of op(A), the column of op(B), their length, and
// whether op(A) is transposed: a row of a product has the bits that it has in a product of that row alone. Built with
// -DBALLAST_GEMM=openblas, every tile is a call of OpenBLAS: the thread count does not matter then, either, but the
// shape of a product does.
namespace ballast::inline BALLAST_PRECISION {

/// A row-major matrix in memory, `stride` reals from one row to the next, used as it is or transposed.
struct MatrixRef {
    const real* data;
    std::int64_t stride;
    bool transposed = false;
};

/// How a product is cut into tasks.
struct GemmPlan {
    std::int64_t tile_rows;
    std::int64_t tile_columns;
    std::int64_t depth_chunks; ///< above 1, partial sums over the inner dimension are added in index order
};
GemmPlan plan_gemm(std::int64_t m, std::int64_t n, std::int64_t k, bool a_transposed);

/// A range of C that is final, for the epilogue of a product.
struct TileRange {
    std::int64_t row_begin, row_end, column_begin, column_end;
};

namespace gemm_detail {
using GemmEpilogue = void (*)(void* context, const TileRange&);
void run_gemm(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
              Grad c, std::int64_t c_stride, Arena& scratch, GemmEpilogue epilogue, void* context);
} // namespace gemm_detail

/// C (+)= alpha op(A) op(B), C [m, n] with `c_stride` reals between rows, op(A) [m, k], op(B) [k, n]; c.add says
/// whether C is read. Parallel.
inline void gemm(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                 Grad c, std::int64_t c_stride, Arena& scratch) {
    gemm_detail::run_gemm(m, n, k, alpha, a, b, c, c_stride, scratch, nullptr, nullptr);
}

/// The same, and calls epilogue(TileRange) once for every tile of C, on the thread that finished it and while it is
/// in that thread's cache.
template <class Epilogue>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b, Grad c,
          std::int64_t c_stride, Arena& scratch, Epilogue&& epilogue) {
    using Function = std::remove_reference_t<Epilogue>;
    gemm_detail::run_gemm(
        m, n, k, alpha, a, b, c, c_stride, scratch,
        [](void* context, const TileRange& tile) { (*static_cast<Function*>(context))(tile); },
        const_cast<void*>(static_cast<const void*>(std::addressof(epilogue))));
}

/// C = alpha op(A) op(B) + beta C on the calling thread, for use inside a task.
void gemm_in_task(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                  real beta, real* c, std::int64_t c_stride);

/// Which BLAS this is, for the run's environment record.
struct BlasFacts {
    std::string name;      ///< library, version and build, such as "OpenBLAS 0.3.21 ..."; or "own products"
    std::string core;      ///< processor family it chose its kernels for
    std::string threading; ///< "serial", "pthread" or "openmp"
};

/// Sets BLAS, where there is one, to one thread and checks that it obeys; throws Error when it does not. To be called
/// once, before the first product; calling it again is harmless.
BlasFacts pin_blas();

} // namespace ballast::inline BALLAST_PRECISION
