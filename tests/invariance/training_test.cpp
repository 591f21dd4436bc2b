// Whole training steps: the same bits at any number of threads, and the same as the micro-batches one by one.

#include "ballast/base/parallel.h"
#include "ballast/kernels/gemm.h"
#include "ballast/ops/registry.h"
#include "catch.h"
#include "kernel_test.h"
#include "lab.h"

using namespace lab;
using kernel_test::bits_of;
using kernel_test::Doubles;
using kernel_test::Reals;

namespace {

Reals copy(const float* values, std::int64_t count) { return {values, values + count}; }

/// Everything about a record that is not a time.
void append(Doubles& numbers, const StepRecord& record) {
    for (const StepField& field : kStepFields)
        if (const auto* member = std::get_if<double StepRecord::*>(&field.member))
            if (*member != &StepRecord::seconds && *member != &StepRecord::tokens_per_second)
                numbers.push_back(record.*(*member));
}

/// What 20 steps leave behind: parameters, moments, records and a validation loss.
std::vector<Reals> trained(const Config& config, const Dataset& data) {
    Learner learner(config, data);
    Doubles numbers;
    for (std::int64_t step = 1; step <= config.train.steps; ++step) {
        const Learner::Step done = learner.step(step);
        REQUIRE(done.non_finite.empty());
        append(numbers, done.record);
    }
    numbers.push_back(learner.validate().value().loss);

    const std::int64_t size = learner.table().size();
    std::vector<Reals> results{copy(learner.table().values(), size), bits_of(numbers)};
    for (const Moment& moment : learner.optimizer().moments())
        results.push_back(copy(moment.values, size));
    return results;
}

} // namespace

TEST_CASE("twenty steps give the same bits at any number of threads", "[invariance]") {
    const Lab lab;
    // Every placement and kind with one set of options, and every set of options with several placements and kinds.
    const std::vector<Overrides> norms = every_norm(), options = option_sets();
    for (std::size_t i = 0; i < norms.size(); ++i) {
        const Overrides overrides = joined(norms[i], options[i % options.size()]);
        CAPTURE(overrides);
        const Config config = lab.config(overrides);
        kernel_test::check_same_bits_at_any_thread_count([&] { return trained(config, lab.data()); });
    }
}

TEST_CASE("a seed makes a run: another one gives other bits", "[invariance]") {
    const Lab lab;
    const auto weights = [&](const char* seed) {
        return trained(lab.config({"train.steps=1", seed}), lab.data()).front();
    };
    CHECK(kernel_test::same_bits(weights("seed=1"), weights("seed=1")));
    CHECK_FALSE(kernel_test::same_bits(weights("seed=1"), weights("seed=2")));
}

TEST_CASE("a step with micro-batches has the bits of the micro-batches one by one", "[invariance]") {
    const Lab lab;
    for (const Overrides& options : option_sets()) {
        const Overrides overrides = joined(options, {"train.batch=6", "train.micro_batch=2"});
        CAPTURE(overrides);
        const Config config = lab.config(overrides);
        Learner learner(config, lab.data());

        // The gradient of the same step written out: three passes, each adding to what the one before left.
        ParamTable table;
        const Transformer model(table, config.model, lab.data().vocab_size());
        table.allocate(config.seed);
        table.allocate_gradients();
        const std::int64_t context = config.model.context, window = 2 * context;
        std::vector<std::int32_t> inputs(static_cast<std::size_t>(3 * window)), targets(inputs.size());
        Sampler(lab.data().train(), config.seed).batch(4, 6, context, inputs.data(), targets.data());
        Tape tape(ops::registry());
        for (std::int64_t i = 0; i < 3; ++i) {
            const auto offset = static_cast<std::size_t>(i * window), count = static_cast<std::size_t>(window);
            tape.begin(Mode::train, {config.seed, static_cast<std::uint64_t>(4 * 3 + i)});
            const Var logits = model(tape, {std::span(inputs).subspan(offset, count), {2, context}});
            const Var loss = ops::cross_entropy(tape, logits, std::span(targets).subspan(offset, count),
                                                1 / static_cast<double>(3 * window), config.loss.z_loss);
            tape.backward(loss, {.accumulate = i > 0});
        }

        learner.step(4);
        CHECK(kernel_test::same_bits(copy(learner.table().gradients(), table.size()),
                                     copy(table.gradients(), table.size())));
    }
}
