// A user's program: its own norm placement and its own training loop, on an installed Ballast. It learns to predict
// the next number of a fixed sequence, and exits with 0 when it has.
//
// The placement is norm(x + f(norm(x))), a norm before the branch and another on the stream.
#include <ballast/config/load.h>
#include <ballast/nn/block.h>
#include <ballast/ops/registry.h>

#include <cstdio>
#include <vector>

using namespace ballast;

int main() {
    const Config config = config_from_json(R"({"data": {"path": "."}, "model": {"width": 32, "heads": 2}})", "-");
    const std::int64_t vocabulary = 11;
    const std::int64_t time = 24;
    const std::int64_t width = config.model.width;
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i <= time; ++i)
        tokens.push_back(i * i * i % vocabulary);
    const std::span<const std::int32_t> inputs(tokens.data(), time);
    const std::span<const std::int32_t> targets(tokens.data() + 1, time);

    ParamTable table;
    const Parameter embedding = table.add("embedding", {vocabulary, width}, ParamInit::normal(0.1), DecayGroup::decay);
    const NormLayout norms = norm_layout(config.model);
    const Attention attention(table, "attention", config.model, norms, InitRules(config.model));
    Residual wrapper;
    wrapper.pre = Norm(table, "pre_norm", width, norms.final);
    wrapper.post = Norm(table, "post_norm", width, norms.final);
    const Linear head(table, "head", width, vocabulary, ParamInit::normal(0.1), true);
    table.allocate(1);
    table.allocate_gradients();

    Tape tape(ops::registry());
    double loss = 0;
    for (int step = 0; step < 300; ++step) {
        tape.begin(Mode::train);
        Var x = ops::embedding(tape, embedding(tape), {}, inputs, time);
        x = wrapper(tape, x, [&](Tape& t, Var in) { return attention(t, in, {1, time}, {}); });
        const Var mean = ops::cross_entropy(tape, head(tape, x), targets, 1.0 / static_cast<double>(time));
        loss = *tape.data(mean);
        tape.backward(mean);
        for (std::int64_t i = 0; i < table.size(); ++i)
            table.values()[i] -= 0.2F * table.gradients()[i];
        if (step % 100 == 0) std::printf("step %d: loss %.3f\n", step, loss);
    }
    std::printf("loss %.4f\n", loss);
    return loss < 0.1 ? 0 : 1;
}
