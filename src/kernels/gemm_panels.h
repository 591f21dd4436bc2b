#pragma once

#include <cstdint>

#include "ballast/kernels/gemm.h"

// The inside of a matrix product on one thread: op(B) copied into panels of a few columns, as the micro-kernel reads
// it, and a band of C made from one band of op(A) and these panels.
namespace ballast::inline BALLAST_PRECISION {

/// Terms of an element of C that are added up in registers; a longer inner extent is cut into blocks of so many. An
/// element is the sum of its blocks in index order, and a block is one chain of multiply-adds in index order. However a
/// product is cut into tiles and panels, its bits are the same; a row of it has the bits that it has in a product of
/// that row alone; and terms of 0 at the end change nothing.
inline constexpr std::int64_t kDepthBlock = 512;

/// Reals that pack_panels writes for op(B) [k, n]: n is rounded up to whole panels of this machine's instruction set.
std::int64_t panels_size(std::int64_t n, std::int64_t k);

/// Copies op(B) [k, n] into panels, one after the other, each [k, columns of a panel], the last filled up with zeros.
/// `panels` is aligned to 64 bytes.
void pack_panels(real* panels, const MatrixRef& b, std::int64_t n, std::int64_t k);

/// C = alpha op(A) op(B) + beta C for op(A) [m, k] and packed op(B) [k, n], k at most kDepthBlock. With beta = 0, C is
/// not read.
void multiply_panels(std::int64_t m, std::int64_t n, std::int64_t k, real alpha, const MatrixRef& a, const real* panels,
                     real beta, real* c, std::int64_t c_stride);

} // namespace ballast::inline BALLAST_PRECISION
