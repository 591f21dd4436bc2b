#include "ballast/base/rng.h"

#include <Random123/philox.h>
#include <cmath>
#include <numbers>

namespace ballast {

namespace {
constexpr double kInverse32 = 1.0 / 4294967296.0;
__extension__ using Wide = unsigned __int128; // not ISO C++, but in every compiler we support
} // namespace

std::array<std::uint32_t, 4> RandomStream::block(std::uint64_t index) const {
    using Philox = r123::Philox4x32;
    const Philox::ctr_type counter{{static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32U),
                                    static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32U)}};
    const Philox::key_type key{{static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32U)}};
    const Philox::ctr_type out = Philox{}(counter, key);
    return {out[0], out[1], out[2], out[3]};
}

double RandomStream::uniform(std::uint64_t index) const { return block(index / 4)[index % 4] * kInverse32; }

double RandomStream::normal(std::uint64_t index) const {
    // Two normals a block: elements 2k and 2k+1 share block k, with 64 bits of it behind each uniform pair.
    const auto bits = block(index / 2);
    const double radius_bits = (static_cast<double>(bits[0]) + bits[1] * kInverse32 + 0.5 * kInverse32) * kInverse32;
    const double angle = 2.0 * std::numbers::pi * bits[2] * kInverse32;
    const double radius = std::sqrt(-2.0 * std::log(radius_bits));
    return index % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
}

std::uint64_t RandomStream::below(std::uint64_t index, std::uint64_t bound) const {
    const auto bits = block(index);
    const std::uint64_t wide = (static_cast<std::uint64_t>(bits[0]) << 32U) | bits[1];
    return static_cast<std::uint64_t>((static_cast<Wide>(wide) * bound) >> 64U);
}

} // namespace ballast
