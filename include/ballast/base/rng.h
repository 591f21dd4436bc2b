#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ballast {

/// 64-bit FNV-1a hash: a stable key for a name, the same on every machine and in every version.
constexpr std::uint64_t hash_name(std::string_view name) {
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const char c : name) {
        hash ^= static_cast<unsigned char>(c);
        hash *= 0x100000001b3ULL;
    }
    return hash;
}

/// A stream of random numbers that is a pure function of (seed, stream, index): Philox4x32-10 (Salmon et al.,
/// "Parallel random numbers: as easy as 1, 2, 3", SC 2011) as implemented by Random123. There is no state to save:
/// any element can be asked for at any time, from any thread.
class RandomStream {
public:
    RandomStream(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
    RandomStream(std::uint64_t seed, std::string_view stream) : RandomStream(seed, hash_name(stream)) {}

    /// Four independent 32-bit numbers, block `index` of the stream.
    std::array<std::uint32_t, 4> block(std::uint64_t index) const;

    /// Uniform in [0, 1), 32 bits of resolution.
    double uniform(std::uint64_t index) const;

    /// Standard normal (Box-Muller).
    double normal(std::uint64_t index) const;

    /// Uniform integer in [0, bound), bound > 0, without modulo bias worth speaking of (64-bit multiply-shift).
    std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;

private:
    std::uint64_t seed_;
    std::uint64_t stream_;
};

} // namespace ballast
