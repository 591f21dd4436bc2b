#pragma once

#include <cstdint>
#include <utility>

#include "ballast/kernels/gemm.h"

// The inside of a matrix product on one thread: op(B) copied into panels of a few columns, as the micro-kernel reads
// it, and a band of C made from one band of op(A) and these panels.
namespace ballast::inline BALLAST_PRECISION {

/// Terms of an element of C that are added up in registers; a longer inner extent is cut into blocks of so many. An
/// element is the sum of its blocks in index order, and a block is one chain of multiply-adds in index order. However a
/// product is cut into tiles and panels, its bits are the same; a row of it has the bits that it has in a product of
/// that row alone; and terms of 0 at the end change nothing. Where op(A) is transposed, every term lies on a cache line
/// of its own, and the second-level cache has room for fewer: 512, when its rows are a multiple of 2 KiB apart.
constexpr std::int64_t depth_block(bool a_transposed) { return a_transposed ? 512 : 768; }

/// op(M) from its element (row, column) on.
inline MatrixRef sub_matrix(const MatrixRef& matrix, std::int64_t row, std::int64_t column) {
    if (matrix.transposed) std::swap(row, column);
    return {matrix.data + row * matrix.stride + column, matrix.stride, matrix.transposed};
}

/// Reals that the panels of op(B) [k, n] take: n is rounded up to whole panels of this machine's instruction set.
std::int64_t panels_size(std::int64_t n, std::int64_t k);

/// Brings a matrix that is to be packed soon into the second-level cache, some lines at a time. Packing would wait for
/// memory; multiplications, among which this is spread, do not.
class FetchAhead {
public:
    FetchAhead() = default; ///< of nothing
    /// Of op(B) [k, n].
    FetchAhead(const MatrixRef& b, std::int64_t n, std::int64_t k)
        : row_(b.data), stride_(b.stride), rows_(b.transposed ? n : k), length_(b.transposed ? k : n) {}

    /// Announces the number of calls of step(), over which the matrix is spread.
    void spread(std::int64_t steps) { lines_a_step_ = (rows_ * ((length_ + kLine - 1) / kLine) + steps - 1) / steps; }

    void step() {
        for (std::int64_t line = 0; line < lines_a_step_ && rows_ > 0; ++line) {
            __builtin_prefetch(row_ + column_, 0, 2);
            column_ += kLine;
            if (column_ < length_) continue;
            column_ = 0;
            row_ += stride_;
            --rows_;
        }
    }

private:
    static constexpr std::int64_t kLine = 64 / sizeof(real);

    const real* row_ = nullptr; ///< of memory, that is being fetched
    std::int64_t stride_ = 0;
    std::int64_t rows_ = 0; ///< that are left
    std::int64_t length_ = 0;
    std::int64_t column_ = 0;
    std::int64_t lines_a_step_ = 0;
};

/// C = alpha op(A) op(B) + beta C for op(A) [m, k] and op(B) [k, n], k at most depth_block. With beta = 0, C is not
/// read. `panels` is room for op(B), aligned to 64 bytes: panels one after the other, each [k, columns of a panel], the
/// last filled up with zeros. `ahead` is fetched meanwhile.
void multiply_panels(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const MatrixRef& b,
                     real* panels, real beta, real* c, std::int64_t c_stride, FetchAhead ahead);

} // namespace ballast::inline BALLAST_PRECISION
