// A model that goes on from what it has seen gives the logits of one that sees everything again, to the bit.

#include <algorithm>
#include <cmath>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/kernels/gemm.h"
#include "ballast/train/generate.h"
#include "catch.h"
#include "norm_models.h"

using namespace norm_models;

namespace {

struct Cached {
    ParamTable table;
    Transformer model;
    Tape tape{ops::registry()};

    explicit Cached(const ModelConfig& config) : model(table, config, kVocabulary) { table.allocate(3); }

    Values last_logits(const Tokens& tokens) {
        tape.begin(Mode::eval);
        const auto time = static_cast<std::int64_t>(tokens.size());
        const real* const all = tape.data(model(tape, {tokens, {1, time}}));
        return {all + (time - 1) * kVocabulary, all + time * kVocabulary};
    }

    Values next_logits(std::span<const std::int32_t> tokens, TokenCache& cache) {
        tape.begin(Mode::eval);
        const real* const logits = tape.data(model(tape, tokens, cache));
        return {logits, logits + kVocabulary};
    }
};

/// To the bit; within rounding where products are OpenBLAS's, whose bits depend on their shape.
bool are_same(const Values& actual, const Values& expected) {
    if (pin_blas().name == "own products") return actual == expected;
    return std::equal(actual.begin(), actual.end(), expected.begin(), expected.end(),
                      [](real a, real b) { return std::abs(a - b) <= real(1e-5) * (1 + std::abs(b)); });
}

/// Models of every way to tell positions, and of what else acts on keys and values.
std::vector<ModelConfig> configs(std::int64_t context) {
    std::vector<ModelConfig> all;
    for (const auto& position : values_of(PositionKind{}))
        for (const std::int64_t kv_heads : {1, 2})
            all.push_back(config_with([&](ModelConfig& model) {
                model.context = context;
                model.position = position.value;
                model.kv_heads = kv_heads;
            }));
    all.push_back(config_with([&](ModelConfig& model) {
        model.context = context;
        model.qk_norm = HeadNorm::head;
        model.v_norm = HeadNorm::full;
        model.head_scale = true;
        model.logit_softcap = 2;
        model.bias = true;
        model.ffn.kind = FfnKind::swiglu;
    }));
    for (const auto& norm : values_of(NormKind{}))
        all.push_back(config_with([&](ModelConfig& model) {
            model.context = context;
            model.norm.kind = norm.value;
        }));
    return all;
}

Tokens tokens_of(std::int64_t count) {
    const RandomStream stream(7, "tokens");
    Tokens tokens;
    for (std::int64_t i = 0; i < count; ++i)
        tokens.push_back(static_cast<std::int32_t>(stream.below(static_cast<std::uint64_t>(i), kVocabulary)));
    return tokens;
}

} // namespace

TEST_CASE("a pass over the next tokens has the bits of a pass over all", "[nn]") {
    const std::int64_t context = 150; // more than two blocks of queries
    const Tokens tokens = tokens_of(context);
    for (const ModelConfig& config : configs(context)) {
        CAPTURE(static_cast<int>(config.position), config.kv_heads, static_cast<int>(config.norm.kind));
        Cached cached(config);
        TokenCache cache(cached.model);
        std::int64_t seen = 0;
        for (const std::int64_t count : {5, 1, 1, 64, 1, 70, 1, 7}) {
            const Values next = cached.next_logits(
                std::span(tokens).subspan(static_cast<std::size_t>(seen), static_cast<std::size_t>(count)), cache);
            seen += count;
            CHECK(cache.length() == seen);
            CHECK(are_same(next, cached.last_logits({tokens.begin(), tokens.begin() + seen})));
        }
    }
}

TEST_CASE("a long past has the bits of a long pass", "[nn]") {
    const std::int64_t context = 600; // keys than one block of terms
    const Tokens tokens = tokens_of(context);
    Cached cached(config_with([&](ModelConfig& model) {
        model.context = context;
        model.position = PositionKind::rope;
    }));
    TokenCache cache(cached.model);
    cached.next_logits(std::span(tokens).first(500), cache);
    for (std::size_t seen = 500; seen < 600; ++seen) {
        const Values next = cached.next_logits(std::span(tokens).subspan(seen, 1), cache);
        if (seen % 9 == 0 || seen == 512)
            CHECK(are_same(
                next, cached.last_logits({tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(seen) + 1})));
    }
}

TEST_CASE("generated text is that of whole passes, also past the context", "[nn]") {
    for (const ModelConfig& config : configs(12)) {
        CAPTURE(static_cast<int>(config.position), config.kv_heads, static_cast<int>(config.norm.kind));
        Cached cached(config);
        SampleOptions options;
        options.temperature = 0;
        for (const std::int64_t prompt : {1, 5, 12, 20}) {
            Tokens expected = tokens_of(prompt), actual;
            for (int i = 0; i < 18; ++i) {
                const auto seen = std::min<std::ptrdiff_t>(12, static_cast<std::ptrdiff_t>(expected.size()));
                const Values logits = cached.last_logits({expected.end() - seen, expected.end()});
                expected.push_back(
                    static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
            }
            generate(cached.tape, cached.model, tokens_of(prompt), 18, options, [&](std::int32_t token) {
                actual.push_back(token);
                return true;
            });
            CHECK(actual == Tokens(expected.begin() + prompt, expected.end()));
        }
    }
}

TEST_CASE("a cache is for eval mode and no longer than the context", "[nn]") {
    Cached cached(config_with([](ModelConfig&) {}));
    const Tokens tokens = tokens_of(kSequences.time + 1);
    TokenCache cache(cached.model);
    CHECK_THROWS_AS(cached.next_logits(tokens, cache), ShapeError);
    cached.next_logits(std::span(tokens).first(3), cache);
    CHECK_THROWS_AS(cached.next_logits(std::span(tokens).first(6), cache), ShapeError);
    CHECK(cache.length() == 3);
    cached.tape.begin(Mode::train);
    CHECK_THROWS_AS(cached.model(cached.tape, std::span(tokens).first(1), cache), Error);
    cache.clear();
    CHECK(are_same(cached.next_logits(std::span(tokens).first(4), cache),
                   cached.last_logits({tokens.begin(), tokens.begin() + 4})));
}
