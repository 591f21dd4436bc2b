#include "ballast/data/task.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <string>

#include "ballast/base/error.h"
#include "ballast/base/file.h"

namespace ballast {

namespace {

constexpr std::uint64_t kRowBits = 24; // of a training sequence's number; the step has the others

constexpr auto kNames = std::to_array<std::string_view>({"majority", "copy", "induction", "modular_addition"});

/// A random stream for one sequence.
RandomStream stream_of(const RandomStream& sequences, std::uint64_t number) {
    const auto bits = sequences.block(number);
    const auto wide = [](std::uint32_t high, std::uint32_t low) { return (std::uint64_t{high} << 32U) | low; };
    return {wide(bits[0], bits[1]), wide(bits[2], bits[3])};
}

/// The Fisher-Yates shuffle, by elements `first` and on of a stream.
void shuffle(std::span<std::int32_t> items, const RandomStream& stream, std::uint64_t first = 0) {
    for (std::size_t i = items.size(); i > 1; --i)
        std::swap(items[i - 1], items[stream.below(first++, i)]);
}

} // namespace

SyntheticTask::SyntheticTask(const TaskOptions& options) : options_(options) {
    const std::int64_t n = options.symbols, context = options.context;
    const auto require = [&](bool fits, const char* expected) {
        if (!fits)
            throw DataError("task " + std::string(name()) + " with " + std::to_string(n) + " symbols: a context of " +
                            std::to_string(context) + " does not fit; expected " + expected);
    };
    switch (options.task) {
    case Task::majority: require(context >= 3, "3 or more"); break;
    case Task::copy: require(context >= 2 && context % 2 == 0, "an even number"); break;
    case Task::induction:
        require(context >= 8 && context % 4 == 0 && context / 4 <= n, "a multiple of 4 from 8 to 4 times the symbols");
        break;
    case Task::modular_addition: {
        require(context == 3, "3");
        sums_.resize(static_cast<std::size_t>(n * n));
        std::iota(sums_.begin(), sums_.end(), 0);
        shuffle(sums_, RandomStream(0, "task/sums"));
        held_out_ = static_cast<std::int64_t>(std::llround(options.val_fraction * static_cast<double>(n * n)));
        if (held_out_ == n * n || (options.val_fraction > 0 && held_out_ == 0))
            throw DataError("task modular_addition: of " + std::to_string(n * n) + " sums, " +
                            std::to_string(held_out_) +
                            " would be kept for validation; expected at least 1, and "
                            "at least 1 to train on");
        break;
    }
    }
}

std::string_view SyntheticTask::name() const { return kNames.at(static_cast<std::size_t>(options_.task)); }

std::int64_t SyntheticTask::vocab_size() const {
    return options_.task == Task::induction ? 2 * options_.symbols : options_.symbols + 1;
}

std::int64_t SyntheticTask::targets_per_sequence() const {
    switch (options_.task) {
    case Task::copy: return options_.context / 2;
    case Task::induction: return options_.context / 4;
    case Task::majority:
    case Task::modular_addition: break;
    }
    return 1;
}

double SyntheticTask::chance_loss() const { return std::log(static_cast<double>(options_.symbols)); }

std::uint64_t SyntheticTask::fingerprint() const {
    Checksum sum;
    for (const std::int64_t fact : {static_cast<std::int64_t>(options_.task), options_.symbols, held_out_})
        sum.add(std::as_bytes(std::span(&fact, 1)));
    return sum.value();
}

void SyntheticTask::batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int32_t* inputs,
                          std::int32_t* targets) const {
    const RandomStream sequences(seed, "task/train");
    for (std::int64_t row = 0; row < batch; ++row) {
        const std::uint64_t number = (static_cast<std::uint64_t>(step) << kRowBits) | static_cast<std::uint64_t>(row);
        const std::int64_t at = row * options_.context;
        if (options_.task != Task::modular_addition) {
            write(stream_of(sequences, number), inputs + at, targets + at);
            continue;
        }
        const auto trained = static_cast<std::uint64_t>(static_cast<std::int64_t>(sums_.size()) - held_out_);
        write_sum(held_out_ + static_cast<std::int64_t>(sequences.below(number, trained)), inputs + at, targets + at);
    }
}

void SyntheticTask::evaluation_batch(std::int64_t index, std::int64_t batch, std::int32_t* inputs,
                                     std::int32_t* targets) const {
    const RandomStream sequences(0, "task/validation");
    for (std::int64_t row = 0; row < batch; ++row) {
        const std::int64_t number = index * batch + row, at = row * options_.context;
        if (options_.task == Task::modular_addition)
            write_sum(number % std::max<std::int64_t>(held_out_, 1), inputs + at, targets + at);
        else
            write(stream_of(sequences, static_cast<std::uint64_t>(number)), inputs + at, targets + at);
    }
}

void SyntheticTask::write(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const {
    std::fill_n(targets, options_.context, kNoTarget);
    switch (options_.task) {
    case Task::majority: return write_majority(stream, inputs, targets);
    case Task::copy: return write_copy(stream, inputs, targets);
    case Task::induction: return write_induction(stream, inputs, targets);
    case Task::modular_addition: break; // drawn from a list
    }
}

void SyntheticTask::write_majority(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const {
    const auto n = static_cast<std::size_t>(options_.symbols);
    const auto length = static_cast<std::size_t>(options_.context - 1);
    std::vector<std::int32_t> counts(n);
    for (std::uint64_t element = 0;;) {
        std::fill(counts.begin(), counts.end(), 0);
        for (std::size_t i = 0; i < length; ++i) {
            inputs[i] = static_cast<std::int32_t>(stream.below(element++, n));
            ++counts[static_cast<std::size_t>(inputs[i])];
        }
        const auto most = std::max_element(counts.begin(), counts.end());
        if (std::count(counts.begin(), counts.end(), *most) > 1) continue; // a tie
        inputs[length] = static_cast<std::int32_t>(n);
        targets[length] = static_cast<std::int32_t>(most - counts.begin());
        return;
    }
}

void SyntheticTask::write_copy(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const {
    const std::int64_t half = options_.context / 2;
    for (std::int64_t i = 0; i < half; ++i) {
        inputs[i] = static_cast<std::int32_t>(
            stream.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(options_.symbols)));
        targets[half + i] = inputs[i];
    }
    inputs[half] = static_cast<std::int32_t>(options_.symbols);
    std::copy_n(inputs, half - 1, inputs + half + 1);
}

void SyntheticTask::write_induction(const RandomStream& stream, std::int32_t* inputs, std::int32_t* targets) const {
    const auto symbols = static_cast<std::size_t>(options_.symbols);
    const auto pairs = static_cast<std::size_t>(options_.context / 4);
    std::vector<std::int32_t> keys(symbols), order(pairs);
    std::iota(keys.begin(), keys.end(), 0);
    std::iota(order.begin(), order.end(), 0);
    shuffle(keys, stream);
    shuffle(order, stream, symbols);
    for (std::size_t i = 0; i < pairs; ++i) {
        inputs[2 * i] = keys[i];
        inputs[2 * i + 1] = static_cast<std::int32_t>(symbols + stream.below(symbols + pairs + i, symbols));
    }
    for (std::size_t i = 0; i < pairs; ++i) {
        const std::int32_t* const pair = inputs + 2 * static_cast<std::size_t>(order[i]);
        const std::size_t at = 2 * (pairs + i);
        inputs[at] = pair[0];
        inputs[at + 1] = targets[at] = pair[1];
    }
}

void SyntheticTask::write_sum(std::int64_t sum, std::int32_t* inputs, std::int32_t* targets) const {
    const auto n = static_cast<std::int32_t>(options_.symbols);
    const std::int32_t pair = sums_[static_cast<std::size_t>(sum)], a = pair / n, b = pair % n;
    const std::array<std::int32_t, 3> in{a, b, n}, asked{kNoTarget, kNoTarget, (a + b) % n};
    std::copy(in.begin(), in.end(), inputs);
    std::copy(asked.begin(), asked.end(), targets);
}

} // namespace ballast
