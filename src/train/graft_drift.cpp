#include "ballast/train/graft_drift.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "ballast/kernels/softmax.h"
#include "ballast/ops/registry.h"
#include "graft_sites.h"

namespace ballast {

namespace {

/// Sums over tokens, from which the means follow.
struct BlockSums {
    double difference = 0, before = 0, after = 0; ///< squares
    double cosines = 0;
    std::int64_t tokens = 0, elements = 0;

    void add(const float* a, const float* b, std::int64_t rows, std::int64_t width) {
        for (std::int64_t row = 0; row < rows; ++row) {
            double aa = 0, bb = 0, ab = 0;
            for (std::int64_t i = row * width; i < (row + 1) * width; ++i) {
                const auto x = static_cast<double>(a[i]), y = static_cast<double>(b[i]);
                aa += x * x;
                bb += y * y;
                ab += x * y;
                difference += (x - y) * (x - y);
            }
            before += aa;
            after += bb;
            cosines += ab / std::sqrt(aa * bb);
        }
        tokens += rows;
        elements += rows * width;
    }

    BlockDrift mean() const {
        const auto count = static_cast<double>(elements);
        return {std::sqrt(difference / before), cosines / static_cast<double>(tokens), std::sqrt(before / count),
                std::sqrt(after / count)};
    }
};

/// The larger one; a NaN wins over every number.
double larger(double a, double b) { return std::isnan(a) || std::isnan(b) ? std::nan("") : std::max(a, b); }

double log_sum(const float* logits, std::int64_t classes) {
    double most = static_cast<double>(logits[0]), sum = 0;
    for (std::int64_t i = 1; i < classes; ++i)
        most = std::max(most, static_cast<double>(logits[i]));
    for (std::int64_t i = 0; i < classes; ++i)
        sum += std::exp(static_cast<double>(logits[i]) - most);
    return most + std::log(sum);
}

/// Sums over the tokens that have a target.
struct LogitSums {
    std::int64_t tokens = 0;
    double differences = 0, largest = 0, kl = 0, loss_before = 0, loss_after = 0;

    void add(const float* before, const float* after, std::int64_t classes, std::int32_t target) {
        const double z_before = log_sum(before, classes), z_after = log_sum(after, classes);
        for (std::int64_t i = 0; i < classes; ++i) {
            const auto old = static_cast<double>(before[i]), now = static_cast<double>(after[i]);
            differences += std::abs(now - old);
            largest = larger(largest, std::abs(now - old));
            kl += std::exp(old - z_before) * (old - z_before - (now - z_after));
        }
        loss_before += z_before - static_cast<double>(before[target]);
        loss_after += z_after - static_cast<double>(after[target]);
        ++tokens;
    }
};

} // namespace

GraftDrift measure_drift(const Transformer& before, const Transformer& after, const Dataset& data,
                         const DriftBatches& batches) {
    const std::int64_t classes = before.vocabulary();
    Tape old_tape(ops::registry()), new_tape(ops::registry());
    std::vector<std::int32_t> inputs(static_cast<std::size_t>(batches.batch * batches.time)), targets(inputs.size());
    LogitSums logits;
    std::vector<BlockSums> blocks;
    for (std::int64_t i = 0; i < batches.batches; ++i) {
        data.evaluation_batch(i, batches.batches, batches.batch, batches.time, inputs.data(), targets.data());
        old_tape.begin(Mode::eval);
        new_tape.begin(Mode::eval);
        const TokenBatch batch{inputs, {batches.batch, batches.time}};
        const float* const old_logits = old_tape.data(before(old_tape, batch));
        const float* const new_logits = new_tape.data(after(new_tape, batch));
        for (std::size_t row = 0; row < targets.size(); ++row) {
            const auto at = static_cast<std::int64_t>(row) * classes;
            if (targets[row] != kIgnoredTarget) logits.add(old_logits + at, new_logits + at, classes, targets[row]);
        }
        for (std::size_t block = 0;; ++block) {
            const std::string name = "blocks." + std::to_string(block);
            const Var a = output_of(old_tape, name), b = output_of(new_tape, name);
            if (!a || !b || !(old_tape.shape(a) == new_tape.shape(b))) break;
            if (block == blocks.size()) blocks.emplace_back();
            const Shape shape = old_tape.shape(a);
            blocks[block].add(old_tape.data(a), new_tape.data(b), shape.rows(), shape.width());
        }
    }

    const auto count = static_cast<double>(logits.tokens);
    GraftDrift drift{.tokens = logits.tokens,
                     .mean_logit = logits.differences / (count * static_cast<double>(classes)),
                     .max_logit = logits.largest,
                     .kl = logits.kl / count,
                     .loss_before = logits.loss_before / count,
                     .loss_after = logits.loss_after / count,
                     .blocks = {}};
    for (const BlockSums& sums : blocks)
        drift.blocks.push_back(sums.mean());
    return drift;
}

} // namespace ballast
