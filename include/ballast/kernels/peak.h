#pragma once

#include "ballast/base/real.h"

namespace ballast::inline BALLAST_PRECISION {

/// Floating-point operations per second that all worker threads together reach with fused multiply-adds on registers:
/// the limit that benchmarks give shares of. A multiply-add counts as two. The best of several tries; takes about
/// `seconds`.
double measure_peak_flops(double seconds = 1);

/// Bytes per second that all worker threads together move through memory with y = a * x + z over arrays far larger
/// than the caches: two reads and a write an element, where the processor can do so written past the caches. The best
/// of several tries; takes about `seconds`.
double measure_bandwidth(double seconds = 1);

} // namespace ballast::inline BALLAST_PRECISION
