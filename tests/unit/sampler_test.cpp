#include "ballast/data/sampler.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "ballast/base/error.h"
#include "catch.h"

using namespace ballast;

namespace {

/// Ids 0, 1, 2, …: the first input of a window is where the window starts.
TokenArray counting(std::int64_t size) {
    TokenArray tokens(65536);
    for (std::int64_t i = 0; i < size; ++i)
        tokens.push_back(static_cast<std::int32_t>(i));
    return tokens;
}

struct Batch {
    std::vector<std::int32_t> inputs;
    std::vector<std::int32_t> targets;
    bool operator==(const Batch&) const = default;
};

Batch draw(const Sampler& sampler, std::int64_t step, std::int64_t batch, std::int64_t context) {
    const auto size = static_cast<std::size_t>(batch * context);
    Batch out{std::vector<std::int32_t>(size, -1), std::vector<std::int32_t>(size, -1)};
    sampler.batch(step, batch, context, out.inputs.data(), out.targets.data());
    return out;
}

std::vector<std::int32_t> evaluation_starts(const Sampler& sampler, std::int64_t batches, std::int64_t batch,
                                            std::int64_t context) {
    std::vector<std::int32_t> starts;
    std::vector<std::int32_t> inputs(static_cast<std::size_t>(batch * context));
    std::vector<std::int32_t> targets(inputs.size());
    for (std::int64_t index = 0; index < batches; ++index) {
        sampler.evaluation_batch(index, batches, batch, context, inputs.data(), targets.data());
        for (std::int64_t row = 0; row < batch; ++row)
            starts.push_back(inputs[static_cast<std::size_t>(row * context)]);
    }
    return starts;
}

} // namespace

TEST_CASE("windows are consecutive tokens, targets are the next ones, and none leaves the split") {
    for (const std::int64_t size : {2, 3, 10, 100}) {
        const TokenArray tokens = counting(size);
        const Sampler sampler(tokens.view(), 7);
        for (std::int64_t context = 1; context < size; context = 2 * context + 1) {
            std::set<std::int32_t> starts;
            for (std::int64_t step = 0; step < 300; ++step) {
                const Batch batch = draw(sampler, step, 3, context);
                for (std::size_t i = 0; i < batch.inputs.size(); ++i) {
                    const std::size_t column = i % static_cast<std::size_t>(context);
                    REQUIRE(batch.inputs[i] == batch.inputs[i - column] + static_cast<std::int32_t>(column));
                    REQUIRE(batch.targets[i] == batch.inputs[i] + 1);
                    REQUIRE(batch.targets[i] < size);
                    if (column == 0) starts.insert(batch.inputs[i]);
                }
            }
            // 900 draws from at most 99 starts: each is missed with probability below 2e-4, and this seed misses none.
            CHECK(static_cast<std::int64_t>(starts.size()) == size - context);
        }
    }
}

TEST_CASE("a batch depends on seed and step alone") {
    const TokenArray tokens = counting(5000);
    const Sampler sampler(tokens.view(), 7);
    std::vector<Batch> forward;
    for (std::int64_t step = 0; step < 20; ++step)
        forward.push_back(draw(sampler, step, 4, 16));
    for (std::int64_t step = 19; step >= 0; --step)
        CHECK(draw(Sampler(tokens.view(), 7), step, 4, 16) == forward[static_cast<std::size_t>(step)]);
    for (std::size_t step = 1; step < forward.size(); ++step)
        CHECK_FALSE(forward[step] == forward[step - 1]);
    CHECK_FALSE(draw(Sampler(tokens.view(), 8), 0, 4, 16) == forward[0]);
}

TEST_CASE("a row is the same for every batch size") {
    const TokenArray tokens = counting(5000);
    const Sampler sampler(tokens.view(), 7);
    const Batch large = draw(sampler, 3, 32, 8);
    const Batch small = draw(sampler, 3, 5, 8);
    CHECK(std::equal(small.inputs.begin(), small.inputs.end(), large.inputs.begin()));
    std::set<std::int32_t> starts;
    for (std::size_t row = 0; row < 32; ++row)
        starts.insert(large.inputs[row * 8]);
    CHECK(starts.size() > 28); // rows differ from each other
}

TEST_CASE("starts are uniform over the split") {
    constexpr std::int64_t kStarts = 50;
    constexpr std::int64_t kDraws = 50000;
    constexpr double kExpected = static_cast<double>(kDraws) / kStarts;
    const TokenArray tokens = counting(kStarts + 4);
    for (const std::uint64_t seed : {1U, 2U, 3U}) {
        const Sampler sampler(tokens.view(), seed);
        std::vector<double> counts(kStarts);
        for (std::int64_t step = 0; step < kDraws / 10; ++step) {
            const Batch batch = draw(sampler, step, 10, 4);
            for (std::size_t row = 0; row < 10; ++row)
                ++counts[static_cast<std::size_t>(batch.inputs[row * 4])];
        }
        double chi_squared = 0;
        for (const double count : counts)
            chi_squared += (count - kExpected) * (count - kExpected) / kExpected;
        // 49 degrees of freedom: mean 49, standard deviation 9.9.
        CHECK(chi_squared > 49 - 3.5 * 9.9);
        CHECK(chi_squared < 49 + 4 * 9.9);
    }
}

TEST_CASE("evaluation windows cover the split evenly, the same for every seed") {
    for (const std::int64_t size : {9, 100, 1001, 40000}) {
        const TokenArray tokens = counting(size);
        const Sampler sampler(tokens.view(), 1);
        for (const std::int64_t batches : {1, 3, 20}) {
            for (const std::int64_t batch : {1, 4, 12}) {
                CAPTURE(size, batches, batch);
                const auto starts = evaluation_starts(sampler, batches, batch, 8);
                CHECK(starts == evaluation_starts(Sampler(tokens.view(), 2), batches, batch, 8));
                CHECK(starts.front() == 0);
                if (starts.size() == 1) continue;
                CHECK(starts.back() == size - 9);
                std::int32_t narrowest = static_cast<std::int32_t>(size);
                std::int32_t widest = 0;
                for (std::size_t i = 1; i < starts.size(); ++i) {
                    narrowest = std::min(narrowest, starts[i] - starts[i - 1]);
                    widest = std::max(widest, starts[i] - starts[i - 1]);
                }
                CHECK(widest - narrowest <= 1);
                if (batches * batch <= sampler.windows(8)) CHECK(narrowest >= 8);
            }
        }
    }
}

TEST_CASE("a split no longer than the context is refused") {
    const TokenArray tokens = counting(10);
    const Sampler sampler(tokens.view(), 1);
    std::vector<std::int32_t> inputs(20);
    std::vector<std::int32_t> targets(20);
    CHECK_NOTHROW(sampler.batch(0, 1, 9, inputs.data(), targets.data()));
    CHECK_THROWS_AS(sampler.batch(0, 1, 10, inputs.data(), targets.data()), DataError);
    CHECK_THROWS_AS(sampler.evaluation_batch(0, 1, 1, 10, inputs.data(), targets.data()), DataError);
    CHECK_THROWS_AS(Sampler({}, 1).batch(0, 1, 1, inputs.data(), targets.data()), DataError);
}
