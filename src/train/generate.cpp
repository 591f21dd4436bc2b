#include "ballast/train/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/rng.h"

namespace ballast {

namespace {

void check(const SampleOptions& options, std::span<const std::int32_t> prompt) {
    if (prompt.empty()) throw UsageError("the prompt is empty; the model needs at least one token to go on from");
    if (!(options.temperature >= 0) || std::isinf(options.temperature))
        throw UsageError("the temperature is a number from 0");
    if (options.top_k < 0) throw UsageError("top-k is a number of tokens from 1, or 0 for all");
    if (!(options.top_p > 0 && options.top_p <= 1)) throw UsageError("top-p is a probability above 0, up to 1");
}

/// Draws from softmax(logits / temperature), cut to the likeliest tokens. `uniform` is in [0, 1).
std::int32_t draw(std::span<const float> logits, const SampleOptions& options, double uniform) {
    if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); }))
        throw Error("the model's logits are not finite; it cannot generate");
    std::vector<std::int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    // Ties go to the smaller id, so the order is the same everywhere.
    std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
        const float left = logits[static_cast<std::size_t>(a)];
        const float right = logits[static_cast<std::size_t>(b)];
        return left != right ? left > right : a < b;
    });
    if (options.temperature == 0) return order.front();
    if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < order.size())
        order.resize(static_cast<std::size_t>(options.top_k));

    const double top = logits[static_cast<std::size_t>(order.front())];
    std::vector<double> weights(order.size());
    double total = 0;
    for (std::size_t i = 0; i < order.size(); ++i)
        total += weights[i] = std::exp((logits[static_cast<std::size_t>(order[i])] - top) / options.temperature);
    std::size_t kept = 0;
    double mass = 0;
    while (kept < weights.size() && (kept == 0 || mass < options.top_p * total))
        mass += weights[kept++];

    double left = uniform * mass;
    for (std::size_t i = 0; i < kept; ++i) {
        left -= weights[i];
        if (left < 0) return order[i];
    }
    return order[kept - 1];
}

} // namespace

void generate(Tape& tape, const Transformer& model, std::span<const std::int32_t> prompt, std::int64_t count,
              const SampleOptions& options, const std::function<bool(std::int32_t)>& emit) {
    check(options, prompt);
    const RandomStream random(options.seed, "generate");
    const auto context = static_cast<std::size_t>(model.context());
    std::vector<std::int32_t> tokens(prompt.begin(), prompt.end());
    TokenCache cache(model);
    std::size_t unseen = std::min(tokens.size(), context);
    for (std::int64_t i = 0; i < count; ++i) {
        if (static_cast<std::size_t>(cache.length()) + unseen > context) {
            cache.clear();
            unseen = context;
        }
        tape.begin(Mode::eval);
        const Var logits = model(tape, std::span(tokens).last(unseen), cache);
        const std::span<const float> last(tape.data(logits), static_cast<std::size_t>(model.vocabulary()));
        tokens.push_back(draw(last, options, random.uniform(static_cast<std::uint64_t>(i))));
        unseen = 1;
        if (!emit(tokens.back())) return;
    }
}

} // namespace ballast
