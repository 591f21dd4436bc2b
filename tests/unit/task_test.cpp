// Synthetic tasks: what is asked has one answer, and it is the one that the documentation gives.

#include "ballast/data/task.h"

#include <cmath>
#include <map>
#include <set>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/data/dataset.h"
#include "catch.h"

using namespace ballast;

namespace {

struct Sequences {
    std::int64_t context;
    std::vector<std::int32_t> inputs, targets;

    Sequences(const SyntheticTask& task, std::int64_t batch)
        : context(task.context()), inputs(static_cast<std::size_t>(batch * context)), targets(inputs.size()) {}

    std::int64_t count() const { return static_cast<std::int64_t>(inputs.size()) / context; }
    const std::int32_t* in(std::int64_t row) const { return inputs.data() + row * context; }
    const std::int32_t* out(std::int64_t row) const { return targets.data() + row * context; }
};

Sequences training(const SyntheticTask& task, std::uint64_t seed, std::int64_t step, std::int64_t batch) {
    Sequences found(task, batch);
    task.batch(seed, step, batch, found.inputs.data(), found.targets.data());
    return found;
}

Sequences validation(const SyntheticTask& task, std::int64_t index, std::int64_t batch) {
    Sequences found(task, batch);
    task.evaluation_batch(index, batch, found.inputs.data(), found.targets.data());
    return found;
}

std::vector<TaskOptions> all_tasks() {
    return {{Task::majority, 5, 9, 0.1},         {Task::majority, 20, 50, 0.1},       {Task::copy, 7, 2, 0.1},
            {Task::copy, 20, 32, 0.1},           {Task::induction, 3, 8, 0.1},        {Task::induction, 8, 32, 0.1},
            {Task::modular_addition, 7, 3, 0.2}, {Task::modular_addition, 31, 3, 0.1}};
}

/// What a reader who knows the rule answers at position `at`; kNoTarget: nothing is asked.
std::int32_t answer(const TaskOptions& options, const std::int32_t* inputs, std::int64_t at) {
    const std::int64_t n = options.symbols, length = options.context;
    switch (options.task) {
    case Task::majority: {
        if (inputs[at] != n) return kNoTarget;
        std::map<std::int32_t, int> counts;
        for (std::int64_t i = 0; i < at; ++i)
            ++counts[inputs[i]];
        std::multimap<int, std::int32_t> by_count;
        for (const auto& [symbol, count] : counts)
            by_count.emplace(count, symbol);
        REQUIRE((counts.size() == 1 || by_count.rbegin()->first > std::next(by_count.rbegin())->first));
        return by_count.rbegin()->second;
    }
    case Task::copy: return at < length / 2 ? kNoTarget : inputs[at - length / 2];
    case Task::induction:
        if (at < length / 2 || inputs[at] >= n) return kNoTarget;
        for (std::int64_t i = 0; i < length / 2; ++i)
            if (inputs[i] == inputs[at]) return inputs[i + 1];
        break;
    case Task::modular_addition:
        return inputs[at] != n ? kNoTarget : static_cast<std::int32_t>((inputs[0] + inputs[1]) % n);
    }
    FAIL("no answer");
    return kNoTarget;
}

} // namespace

TEST_CASE("what is asked follows from what was shown, so the best loss is 0", "[task]") {
    for (const TaskOptions& options : all_tasks()) {
        const SyntheticTask task(options);
        CAPTURE(task.name(), options.symbols, options.context);
        for (const Sequences& found : {training(task, 1, 3, 40), validation(task, 2, 40)})
            for (std::int64_t row = 0; row < found.count(); ++row) {
                std::int64_t asked = 0;
                for (std::int64_t at = 0; at < found.context; ++at) {
                    REQUIRE(found.in(row)[at] >= 0);
                    REQUIRE(found.in(row)[at] < task.vocab_size());
                    REQUIRE(found.out(row)[at] == answer(options, found.in(row), at));
                    asked += found.out(row)[at] == kNoTarget ? 0 : 1;
                }
                REQUIRE(asked == task.targets_per_sequence());
            }
    }
}

TEST_CASE("answers are uniform over the symbols, so chance is the logarithm of their number", "[task]") {
    for (const TaskOptions& options : all_tasks()) {
        const SyntheticTask task(options);
        CAPTURE(task.name(), options.symbols);
        CHECK(task.chance_loss() == std::log(static_cast<double>(options.symbols)));
        std::map<std::int32_t, double> counts;
        double all = 0;
        const Sequences found = training(task, 5, 1, 20000);
        for (const std::int32_t target : found.targets)
            if (target != kNoTarget) {
                ++counts[target];
                ++all;
            }
        CHECK(counts.size() == static_cast<std::size_t>(options.symbols));
        double entropy = 0;
        for (const auto& [symbol, count] : counts)
            entropy -= count / all * std::log(count / all);
        CHECK(entropy == Approx(task.chance_loss()).margin(0.05)); // the held-out sums are missing
    }
}

TEST_CASE("a sequence is a function of seed, step and row; validation is the same for every seed", "[task]") {
    for (const TaskOptions& options : all_tasks()) {
        const SyntheticTask task(options);
        CAPTURE(task.name());
        const Sequences one = training(task, 9, 4, 16), again = training(task, 9, 4, 16);
        CHECK(one.inputs == again.inputs);
        CHECK(one.targets == again.targets);
        const Sequences fewer = training(task, 9, 4, 5);
        CHECK(std::equal(fewer.inputs.begin(), fewer.inputs.end(), one.inputs.begin()));
        CHECK(one.inputs != training(task, 9, 5, 16).inputs);
        CHECK(one.inputs != training(task, 8, 4, 16).inputs);
        CHECK(one.inputs != validation(task, 0, 16).inputs);
        // Rows of validation go on from batch to batch.
        const Sequences both = validation(task, 0, 16), second = validation(task, 1, 8);
        CHECK(std::equal(second.inputs.begin(), second.inputs.end(), both.in(8)));
        CHECK(task.fingerprint() == SyntheticTask(options).fingerprint());
        TaskOptions other = options;
        ++other.symbols;
        CHECK(task.fingerprint() != SyntheticTask(other).fingerprint());
    }
}

TEST_CASE("no sum that is validated on is ever trained on", "[task]") {
    const SyntheticTask task({Task::modular_addition, 7, 3, 0.2});
    CHECK(task.held_out() == 10);
    std::set<std::pair<std::int32_t, std::int32_t>> held_out, trained;
    const Sequences validated = validation(task, 0, 10);
    for (std::int64_t row = 0; row < 10; ++row)
        held_out.emplace(validated.in(row)[0], validated.in(row)[1]);
    CHECK(held_out.size() == 10);
    for (const std::uint64_t seed : {1U, 2U}) {
        const Sequences found = training(task, seed, 1, 2000);
        for (std::int64_t row = 0; row < found.count(); ++row)
            trained.emplace(found.in(row)[0], found.in(row)[1]);
    }
    CHECK(trained.size() == 39);
    for (const auto& sum : held_out)
        CHECK_FALSE(trained.contains(sum));
}

TEST_CASE("a length that does not fit the task is refused", "[task]") {
    for (const TaskOptions& options : std::vector<TaskOptions>{{Task::majority, 5, 2, 0.1},
                                                               {Task::copy, 5, 7, 0.1},
                                                               {Task::induction, 5, 24, 0.1},
                                                               {Task::induction, 5, 4, 0.1},
                                                               {Task::modular_addition, 5, 4, 0.1},
                                                               {Task::modular_addition, 2, 3, 0.1}})
        CHECK_THROWS_AS(SyntheticTask(options), DataError);
}

TEST_CASE("a dataset of a task has its vocabulary and chance loss", "[task]") {
    DataOptions options;
    options.task = Task::induction;
    options.symbols = 6;
    options.context = 16;
    const Dataset data(options);
    CHECK(data.vocab_size() == 12);
    CHECK(data.unigram_entropy() == std::log(6.0));
    CHECK(data.has_validation());
    CHECK(data.targets_per_sequence(16) == 4);
    options.val_fraction = 0;
    CHECK_FALSE(Dataset(options).has_validation());
}
