#include "ballast/base/rng.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "catch.h"

using namespace ballast;

namespace {

using Block = std::array<std::uint32_t, 4>;

std::uint64_t wide(std::uint32_t low, std::uint32_t high) { return (std::uint64_t{high} << 32U) | low; }

/// Chi-squared statistic of counts that should be equal.
double chi_squared(const std::vector<double>& counts) {
    double total = 0, sum = 0;
    for (const double count : counts)
        total += count;
    const double expected = total / static_cast<double>(counts.size());
    for (const double count : counts)
        sum += (count - expected) * (count - expected) / expected;
    return sum;
}

} // namespace

TEST_CASE("blocks are Philox4x32-10: Random123's known answers", "[base]") {
    // Counter, key, answer: the file kat_vectors of Random123.
    const std::uint64_t ones = ~std::uint64_t{0};
    CHECK(RandomStream(0, std::uint64_t{0}).block(0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    CHECK(RandomStream(ones, ones).block(ones) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
    CHECK(
        RandomStream(wide(0xa4093822, 0x299f31d0), wide(0x13198a2e, 0x03707344)).block(wide(0x243f6a88, 0x85a308d3)) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("names hash by 64-bit FNV-1a", "[base]") {
    CHECK(hash_name("") == 0xcbf29ce484222325ULL);
    CHECK(hash_name("a") == 0xaf63dc4c8601ec8cULL);
    CHECK(hash_name("foobar") == 0x85944171f73967e8ULL);
    CHECK(RandomStream(3, "a").block(5) == RandomStream(3, hash_name("a")).block(5));
}

TEST_CASE("seed, stream and index each make other numbers", "[base]") {
    std::set<Block> blocks;
    for (const std::uint64_t high : {0ULL, 1ULL << 32U})
        for (std::uint64_t i = 0; i < 10; ++i) {
            blocks.insert(RandomStream(high + i, std::uint64_t{100}).block(200));
            blocks.insert(RandomStream(300, high + i).block(200));
            blocks.insert(RandomStream(300, std::uint64_t{100}).block(high + i));
        }
    CHECK(blocks.size() == 60);
}

TEST_CASE("uniform numbers are even over [0, 1)", "[base]") {
    constexpr std::uint64_t kCount = 200000;
    const RandomStream stream(1, "uniform");
    std::vector<double> bins(100);
    double low = 1, high = 0, product = 0;
    for (std::uint64_t i = 0; i < kCount; ++i) {
        const double x = stream.uniform(i);
        low = std::min(low, x);
        high = std::max(high, x);
        ++bins[static_cast<std::size_t>(100 * x)];
        product += (x - 0.5) * (stream.uniform(i + 1) - 0.5);
    }
    CHECK(low >= 0);
    CHECK(low < 1e-4);
    CHECK(high < 1);
    CHECK(high > 1 - 1e-4);
    CHECK(chi_squared(bins) < 150); // 99 degrees of freedom: beyond 150 once in a thousand
    CHECK(std::abs(product / kCount) < 4 / 12.0 / std::sqrt(kCount)); // neighbours do not know each other
}

TEST_CASE("normal numbers have the moments and the tails of the normal distribution", "[base]") {
    constexpr std::uint64_t kCount = 200000;
    const RandomStream stream(2, "normal");
    double sums[5] = {};
    double beyond_two = 0, product = 0;
    for (std::uint64_t i = 0; i < kCount; ++i) {
        const double x = stream.normal(i);
        REQUIRE(std::isfinite(x));
        double power = 1;
        for (double& sum : sums) {
            sum += power / kCount;
            power *= x;
        }
        beyond_two += std::abs(x) > 2 ? 1.0 / kCount : 0;
        product += x * stream.normal(i ^ 1U) / kCount; // the two of a block
    }
    const double error = 4 / std::sqrt(kCount); // four standard errors of the mean
    CHECK(std::abs(sums[1]) < error);
    CHECK(std::abs(sums[2] - 1) < error * std::sqrt(2.0));
    CHECK(std::abs(sums[3]) < error * std::sqrt(15.0));
    CHECK(std::abs(sums[4] - 3) < error * std::sqrt(96.0));
    CHECK(std::abs(beyond_two - 0.0455) < error * 0.21);
    CHECK(std::abs(product) < error);
}

TEST_CASE("integers below a bound are even, for bounds of every size", "[base]") {
    const RandomStream stream(3, "below");
    for (const std::uint64_t bound : {1ULL, 2ULL, 7ULL, 100ULL}) {
        std::vector<double> counts(bound);
        for (std::uint64_t i = 0; i < 50000; ++i) {
            const std::uint64_t x = stream.below(i, bound);
            REQUIRE(x < bound);
            ++counts[x];
        }
        CHECK(chi_squared(counts) < static_cast<double>(bound) + 4 * std::sqrt(2.0 * static_cast<double>(bound)));
    }
    // Beyond 32 bits all of the range is reached.
    const std::uint64_t huge = 3ULL << 61U;
    std::vector<double> thirds(3);
    for (std::uint64_t i = 0; i < 3000; ++i) {
        const std::uint64_t x = stream.below(i, huge);
        REQUIRE(x < huge);
        ++thirds[x >> 61U];
    }
    CHECK(chi_squared(thirds) < 14);
}
