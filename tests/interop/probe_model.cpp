// Puts the engine's numbers into files, for the comparisons with other programs in this folder.
//
//     probe_model COMMAND DIRECTORY
//
// The directory holds what a command reads: config.json always, and params.safetensors where a model shall not start
// from its init. What a command finds out goes into result.safetensors there, unless it says otherwise.
//
//   model     parameters/NAME, logits, loss, gradients/NAME and, in evaluation, eval_logits of the batch in tokens.bin
//             and targets.bin, int32 [batch, time] with the config's train.batch; buffers count as parameters
//   train     all steps of the config: inputs, targets, loss, gradient_norm and lr of every step, parameters/NAME at
//   the
//             start, trained/NAME and MOMENT/NAME at the end; and a checkpoint in DIRECTORY/checkpoints
//   update    trained/NAME after the optimizer's steps on gradients.safetensors, STEP/NAME, from step 1
//   data      train, validation and vocab_size of the config's data
//   copy      the tensors of copy.safetensors
//   schedule  to stdout: the learning rate of every step, a line each
//   config    to stdout: the resolved config

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iomanip>
#include <iostream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/data/dataset.h"
#include "ballast/data/sampler.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/softmax.h"
#include "ballast/nn/transformer.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/learner.h"
#include "ballast/train/optimizer.h"
#include "ballast/train/safetensors.h"
#include "ballast/train/schedule.h"

namespace {

using namespace ballast;
using std::filesystem::path;

std::vector<std::int64_t> extents(const Shape& shape) { return {shape.dims.begin(), shape.dims.begin() + shape.rank}; }

/// Named tensors to be written; the values are copied, as most of them live on a tape.
class Result {
public:
    void add(const std::string& name, std::vector<std::int64_t> shape, std::span<const float> values) {
        tensors_[name] = {std::move(shape), {values.begin(), values.end()}};
    }
    void add(const std::string& name, const Shape& shape, const float* values) {
        add(name, extents(shape), {values, static_cast<std::size_t>(shape.elements())});
    }
    void add_parameters(const std::string& prefix, const ParamTable& table, const float* values) {
        for (const Param& param : table.params())
            add(prefix + "/" + param.name, param.shape, values + param.offset);
    }
    /// Parameters and buffers.
    void add_state(const std::string& prefix, const ParamTable& table) {
        add_parameters(prefix, table, table.values());
        for (const Param& buffer : table.buffers())
            add(prefix + "/" + buffer.name, buffer.shape, table.values() + buffer.offset);
    }
    void write(const path& directory) const {
        std::vector<TensorSource> sources;
        for (const auto& [name, tensor] : tensors_)
            sources.push_back({name, tensor.shape, tensor.values.data()});
        write_safetensors(directory / "result.safetensors", sources);
    }

private:
    struct Values {
        std::vector<std::int64_t> shape;
        std::vector<float> values;
    };
    std::map<std::string, Values> tensors_;
};

/// Copies a tensor of a file to `target`.
void load(const SafetensorsFile& file, const std::string& name, const Shape& shape, float* target) {
    const TensorEntry* entry = file.find(name);
    if (entry == nullptr) throw Error("there is no tensor '" + name + "'");
    if (entry->dtype != "F32" || entry->shape != extents(shape))
        throw Error("'" + name + "' is " + entry->type_text() + "; expected F32 " + shape.text());
    std::memcpy(target, entry->bytes.data(), entry->bytes.size());
}

/// Replaces the initial values by params.safetensors, where there is one.
void load_parameters_of(const path& directory, const ParamTable& table) {
    const path file = directory / "params.safetensors";
    if (!exists(file)) return;
    const SafetensorsFile tensors(file);
    for (const std::span<const Param> list : {table.params(), table.buffers()})
        for (const Param& param : list)
            load(tensors, param.name, param.shape, table.values() + param.offset);
}

std::vector<std::int32_t> read_ids(const path& file) {
    const MappedFile bytes(file);
    std::vector<std::int32_t> ids(bytes.bytes().size() / sizeof(std::int32_t));
    std::memcpy(ids.data(), bytes.bytes().data(), ids.size() * sizeof(std::int32_t));
    return ids;
}

void probe_model(const Config& config, const path& directory) {
    ParamTable table;
    const Transformer model(table, config.model, config.data.vocab_size);
    table.allocate(config.seed);
    table.allocate_gradients();
    load_parameters_of(directory, table);

    const std::vector<std::int32_t> tokens = read_ids(directory / "tokens.bin");
    const std::vector<std::int32_t> targets = read_ids(directory / "targets.bin");
    const SequenceShape shape{config.train.batch, static_cast<std::int64_t>(tokens.size()) / config.train.batch};
    const auto known = targets.size() - static_cast<std::size_t>(std::ranges::count(targets, kIgnoredTarget));
    Tape tape(ops::registry());
    tape.begin(Mode::train);
    const Var logits = model(tape, {tokens, shape});
    const Var loss = ops::cross_entropy(tape, logits, targets, 1 / static_cast<double>(known), config.loss.z_loss);
    tape.backward(loss, {.keep_gradients = true}); // which keeps the logits readable

    Result result;
    result.add_state("parameters", table);
    result.add_parameters("gradients", table, table.gradients());
    result.add("logits", tape.shape(logits), tape.data(logits));
    result.add("loss", tape.shape(loss), tape.data(loss));
    tape.begin(Mode::eval);
    const Var evaluated = model(tape, {tokens, shape});
    result.add("eval_logits", tape.shape(evaluated), tape.data(evaluated));
    result.write(directory);
}

/// Whole numbers below 2^24, which float has exactly.
template <class Ids>
std::vector<float> to_float(const Ids& ids, std::int64_t count) {
    std::vector<float> values;
    for (std::int64_t i = 0; i < count; ++i)
        values.push_back(static_cast<float>(ids[i]));
    return values;
}

void probe_train(const Config& config, const path& directory) {
    const Dataset data(data_options(config));
    Learner learner(config, data);
    load_parameters_of(directory, learner.table());
    Result result;
    result.add_state("parameters", learner.table());

    const std::int64_t steps = config.train.steps;
    std::vector<float> losses, norms, rates;
    TrainerState state;
    for (state.step = 1; state.step <= steps; ++state.step) {
        const StepRecord record = learner.step(state.step).record;
        losses.push_back(static_cast<float>(record.loss + record.z_loss));
        norms.push_back(static_cast<float>(record.gradient_norm));
        rates.push_back(static_cast<float>(record.lr));
    }
    state.step = steps;
    save_checkpoint(directory, to_json(config), state, learner.table(), learner.optimizer().moments());

    result.add("loss", {steps}, losses);
    result.add("gradient_norm", {steps}, norms);
    result.add("lr", {steps}, rates);
    result.add_state("trained", learner.table());
    for (const Moment& moment : learner.optimizer().moments())
        result.add_parameters(std::string(moment.name), learner.table(), moment.values);

    // The batches that the learner saw: they are a function of the seed and the step.
    const Sampler sampler(data.train(), config.seed);
    const std::int64_t window = learner.tokens_per_step(), count = steps * window;
    std::vector<std::int32_t> inputs(static_cast<std::size_t>(count)), targets(inputs.size());
    for (std::int64_t i = 0; i < steps; ++i)
        sampler.batch(i + 1, config.train.batch, config.model.context, inputs.data() + i * window,
                      targets.data() + i * window);
    const std::vector shape{steps, config.train.batch, config.model.context};
    result.add("inputs", shape, to_float(inputs.data(), count));
    result.add("targets", shape, to_float(targets.data(), count));
    result.write(directory);
}

void probe_update(const Config& config, const path& directory) {
    ParamTable table;
    const Transformer model(table, config.model, config.data.vocab_size);
    table.allocate(config.seed);
    table.allocate_gradients();
    load_parameters_of(directory, table);
    Optimizer optimizer(config.optimizer, table);
    const SafetensorsFile gradients(directory / "gradients.safetensors");
    for (std::int64_t step = 1; step <= config.train.steps; ++step) {
        for (const Param& param : table.params())
            load(gradients, std::to_string(step) + "/" + param.name, param.shape, table.gradients() + param.offset);
        optimizer.step(step, schedule_factor(config.schedule, config.optimizer.lr, config.train.steps, step), 1);
    }
    Result result;
    result.add_parameters("trained", table, table.values());
    result.write(directory);
}

void probe_data(const Config& config, const path& directory) {
    const Dataset data(data_options(config));
    Result result;
    const auto add = [&](const std::string& name, const TokenView& ids) {
        result.add(name, {ids.size()}, to_float(ids, ids.size()));
    };
    add("train", data.train());
    add("validation", data.validation());
    result.add("vocab_size", std::vector<std::int64_t>{}, std::vector{static_cast<float>(data.vocab_size())});
    result.write(directory);
}

void probe_copy(const Config&, const path& directory) {
    const SafetensorsFile file(directory / "copy.safetensors");
    Result result;
    for (const TensorEntry& tensor : file.tensors()) {
        if (tensor.dtype != "F32") throw Error("'" + tensor.name + "' is " + tensor.type_text() + "; expected F32");
        std::vector<float> values(tensor.bytes.size() / sizeof(float));
        std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
        result.add(tensor.name, tensor.shape, values);
    }
    result.write(directory);
}

void probe_schedule(const Config& config, const path&) {
    const double lr = config.optimizer.lr;
    for (std::int64_t step = 1; step <= config.train.steps; ++step)
        std::cout << std::setprecision(17) << lr * schedule_factor(config.schedule, lr, config.train.steps, step)
                  << '\n';
}

void probe_config(const Config& config, const path&) { std::cout << to_json(config); }

const std::map<std::string, std::function<void(const Config&, const path&)>> kCommands{
    {"model", probe_model}, {"train", probe_train},       {"update", probe_update}, {"data", probe_data},
    {"copy", probe_copy},   {"schedule", probe_schedule}, {"config", probe_config},
};

} // namespace

int main(int argc, char** argv) {
    try {
        const auto command = argc == 3 ? kCommands.find(argv[1]) : kCommands.end();
        if (command == kCommands.end()) throw Error("usage: probe_model COMMAND DIRECTORY");
        pin_blas();
        const path directory = argv[2];
        command->second(load_config(directory / "config.json"), directory);
        return 0;
    } catch (const std::exception& e) {
        std::cerr << "probe_model: " << e.what() << '\n';
        return 1;
    }
}
