// What a prediction may depend on: the tokens up to its own, and nothing else in the batch.

#include <algorithm>
#include <cmath>

#include "ballast/kernels/gemm.h"
#include "ballast/ops/registry.h"
#include "catch.h"
#include "kernel_test.h"
#include "lab.h"

using namespace lab;
using kernel_test::Reals;

namespace {

constexpr std::int64_t kVocabulary = 23;
constexpr std::int64_t kTime = 72; // more than one block of attention's queries

using Tokens = std::vector<std::int32_t>;

Tokens random_tokens(std::int64_t batch, std::uint64_t seed) {
    const RandomStream stream(seed, "tokens");
    Tokens tokens;
    for (std::uint64_t i = 0; i < static_cast<std::uint64_t>(batch * kTime); ++i)
        tokens.push_back(static_cast<std::int32_t>(stream.below(i, kVocabulary)));
    return tokens;
}

class Model {
public:
    explicit Model(const Config& config) : transformer_(table_, config.model, kVocabulary), tape_(ops::registry()) {
        pin_blas();
        table_.allocate(config.seed);
    }

    Reals logits(const Tokens& tokens) {
        tape_.begin(Mode::eval);
        const auto batch = static_cast<std::int64_t>(tokens.size()) / kTime;
        const Var y = transformer_(tape_, {tokens, {batch, kTime}});
        return {tape_.data(y), tape_.data(y) + tape_.shape(y).elements()};
    }

private:
    ParamTable table_;
    Transformer transformer_;
    Tape tape_;
};

/// Whether the logits of rows [begin, end), a row a token, have the same bits.
bool same_rows(const Reals& a, const Reals& b, std::int64_t begin, std::int64_t end) {
    return std::equal(a.begin() + begin * kVocabulary, a.begin() + end * kVocabulary, b.begin() + begin * kVocabulary);
}

/// Norms everywhere with one set of options each, and an init that leaves no branch too small to be seen.
std::vector<Config> configs(const Lab& lab) {
    std::vector<Config> out;
    const std::vector<Overrides> norms = every_norm(), options = option_sets();
    for (std::size_t i = 0; i < norms.size(); ++i)
        out.push_back(lab.config(joined(joined(norms[i], options[i % options.size()]), {"model.init.kind=fan_in"})));
    return out;
}

std::string name_of(const Config& config) {
    return std::string(to_string(config.model.norm.placement)) + ", " + std::string(to_string(config.model.norm.kind)) +
           ", " + std::string(to_string(config.model.position));
}

} // namespace

TEST_CASE("a prediction does not see later tokens", "[invariance]") {
    const Lab lab;
    for (const Config& config : configs(lab)) {
        INFO(name_of(config));
        Model model(config);
        const Tokens tokens = random_tokens(2, 1);
        const Reals before = model.logits(tokens);
        for (const std::int64_t changed : {1, 30, 63, 64, 71}) {
            CAPTURE(changed);
            Tokens others = tokens;
            for (std::int64_t t = changed; t < kTime; ++t) {
                auto& token = others[static_cast<std::size_t>(t)];
                token = static_cast<std::int32_t>((token + 1 + t % 5) % kVocabulary);
            }
            const Reals after = model.logits(others);
            CHECK(same_rows(before, after, 0, changed));
            // It does see its own token and those before it, to the last row.
            CHECK_FALSE(same_rows(before, after, changed, changed + 1));
            CHECK_FALSE(same_rows(before, after, kTime - 1, kTime));
        }
    }
}

TEST_CASE("a prediction sees the first token from the last place", "[invariance]") {
    const Lab lab;
    for (const Config& config : configs(lab)) {
        INFO(name_of(config));
        // ALiBi's steepest heads forget what is far away, but not all heads are steep.
        Model model(config);
        Tokens tokens = random_tokens(1, 2);
        const Reals before = model.logits(tokens);
        tokens[0] = (tokens[0] + 1) % kVocabulary;
        CHECK_FALSE(same_rows(before, model.logits(tokens), kTime - 1, kTime));
    }
}

TEST_CASE("a sequence does not see the others in its batch", "[invariance]") {
    const Lab lab;
    for (const Config& config : configs(lab)) {
        INFO(name_of(config));
        Model model(config);
        const Tokens tokens = random_tokens(3, 4);
        const Reals together = model.logits(tokens);

        // Other neighbours: the same shapes, hence the same bits.
        Tokens neighbours = random_tokens(3, 5);
        std::copy_n(tokens.begin() + kTime, kTime, neighbours.begin() + kTime);
        const Reals others = model.logits(neighbours);
        CHECK(same_rows(together, others, kTime, 2 * kTime));
        CHECK_FALSE(same_rows(together, others, 0, kTime));

        // No neighbours: other shapes, so matrix products may round otherwise.
        for (std::int64_t i = 0; i < 3; ++i) {
            const Reals alone = model.logits({tokens.begin() + i * kTime, tokens.begin() + (i + 1) * kTime});
            double worst = 0, size = 0;
            for (std::int64_t k = 0; k < kTime * kVocabulary; ++k) {
                const double expected = together[static_cast<std::size_t>(i * kTime * kVocabulary + k)];
                worst = std::max(worst, std::abs(alone[static_cast<std::size_t>(k)] - expected));
                size = std::max(size, std::abs(expected));
            }
            CHECK(worst <= 1e-5 * size);
        }
    }
}
