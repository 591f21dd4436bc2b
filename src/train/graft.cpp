#include "ballast/train/graft.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/kernels/gemm.h"
#include "ballast/train/choose_checkpoint.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/safetensors.h"
#include "ballast/train/stability.h"
#include "graft_calibrate.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

bool is_task(const Config& config) { return config.data.task.kind != TaskKind::none; }

/// The checkpoint of a run that no process works on.
fs::path source_checkpoint(const InitFromConfig& init, const Log& log) {
    if (RunDirectory::open(init.run).is_in_use())
        throw UsageError(init.run + ": a process works on this run; wait for it or stop it before grafting from it");
    return choose_checkpoint(init.run, init.checkpoint, log);
}

// ---- Vocabularies ---------------------------------------------------------------------------------------------------

std::string_view kind_name(const Tokenizer& tokenizer) {
    switch (tokenizer.kind()) {
    case Tokenizer::Kind::character: return "characters";
    case Tokenizer::Kind::byte: return "bytes";
    case Tokenizer::Kind::ids: break;
    }
    return "token ids";
}

/// The first entry of one vocabulary that another lacks, quoted; empty when it has all.
std::string first_lacking(const std::vector<std::string>& entries, const std::vector<std::string>& others) {
    for (const std::string& entry : entries)
        if (std::find(others.begin(), others.end(), entry) == others.end()) return ballast::quoted(entry);
    return {};
}

void require_same_vocabulary(const GraftSourceInfo& source, const Config& config, const Tokenizer& ours,
                             std::int64_t vocab_size) {
    const Tokenizer& theirs = source.state.tokenizer;
    const std::vector<std::string> their_texts = theirs.vocabulary(), our_texts = ours.vocabulary();
    if (theirs.kind() == ours.kind() && their_texts == our_texts && source.state.vocab_size == vocab_size) return;
    const auto text = [](const Tokenizer& tokenizer, std::int64_t size) {
        return std::to_string(size) + " " + std::string(kind_name(tokenizer));
    };
    std::string message = source.run.string() + ": its vocabulary (" + text(theirs, source.state.vocab_size) +
                          ") is not that of the data (" + text(ours, vocab_size) + ")";
    if (theirs.kind() == ours.kind() && theirs.kind() == Tokenizer::Kind::character) {
        const std::string more = first_lacking(our_texts, their_texts), less = first_lacking(their_texts, our_texts);
        if (!more.empty()) message += "; the data also has " + more;
        if (!less.empty()) message += "; the data lacks " + less;
    }
    const std::string name =
        is_task(config) ? "the task " + std::string(to_string(config.data.task.kind)) : config.data.path;
    throw DataError(message + "; a graft needs the same vocabulary, and the data is " + name);
}

// ---- Tensors --------------------------------------------------------------------------------------------------------

struct Tensor {
    const Param* param = nullptr;
    real* values = nullptr;

    explicit operator bool() const { return param != nullptr; }
};

/// A parameter, by either of its names, or a buffer.
Tensor find_tensor(const ParamTable& table, std::string_view name) {
    const Param* param = table.find(name);
    for (const Param& buffer : table.buffers())
        if (buffer.name == name) param = &buffer;
    return param == nullptr ? Tensor{} : Tensor{param, table.values() + param->offset};
}

std::vector<Tensor> all_tensors(const ParamTable& table) {
    std::vector<Tensor> tensors;
    for (const std::span<const Param> list : {table.params(), table.buffers()})
        for (const Param& param : list)
            tensors.push_back({&param, table.values() + param.offset});
    return tensors;
}

std::string start_text(const ParamInit& init) {
    switch (init.kind) {
    case ParamInit::Kind::constant: return "starts at " + number_text(init.value);
    case ParamInit::Kind::normal: return "drawn with standard deviation " + short_number(init.value);
    case ParamInit::Kind::uniform: return "drawn from -" + short_number(init.value) + " to " + short_number(init.value);
    }
    return {};
}

/// The norm that a parameter belongs to: "blocks.0.ffn.pre_norm" of its gain; empty: none.
std::string norm_of(std::string_view parameter) {
    const std::string_view owner = parameter.substr(0, parameter.rfind('.'));
    return owner.ends_with("norm") ? std::string(owner) : std::string();
}

/// With a unit offset a norm's factor is 1 + gain, and the gain starts at 0.
double unit_offset(const Param& gain) { return gain.init.value == 0 ? 1 : 0; }

/// Fills `to` from the tensor of that name in the source, and says what was done.
GraftedTensor fill(const Tensor& to, const Tensor& from) {
    const Param& param = *to.param;
    GraftedTensor result{param.name, "reused", ""};
    const Shape& shape = param.shape;
    if (!from) return {param.name, "new", start_text(param.init)};
    const Shape& theirs = from.param->shape;
    if (shape == theirs) {
        std::copy_n(from.values, shape.elements(), to.values);
        if (from.param->name != param.name)
            result.note = "copied from " + from.param->name + ", to which the source ties it";
        const double shift = param.name.ends_with(".gain") ? unit_offset(*from.param) - unit_offset(param) : 0;
        if (shift == 0) return result;
        for (std::int64_t i = 0; i < shape.elements(); ++i)
            to.values[i] += static_cast<real>(shift);
        result.note = shift > 0 ? "plus 1: no unit offset here" : "minus 1: with a unit offset here";
        return result;
    }
    if (param.name == "embedding.positions" && shape[1] == theirs[1]) {
        const std::int64_t common = std::min(shape[0], theirs[0]);
        std::copy_n(from.values, common * shape[1], to.values);
        result.note = "the first " + std::to_string(common) + " of " + std::to_string(theirs[0]) + " positions";
        if (shape[0] > common)
            result.note += "; " + std::to_string(shape[0] - common) + " further ones " + start_text(param.init);
        return result;
    }
    return {param.name, "mismatched",
            theirs.text() + " in the source, " + shape.text() + " here; " + start_text(param.init)};
}

std::vector<GraftedTensor> fill_table(const ParamTable& table, const ParamTable& source) {
    std::vector<GraftedTensor> result;
    for (const Tensor& tensor : all_tensors(table))
        result.push_back(fill(tensor, find_tensor(source, tensor.param->name)));
    for (const Tensor& tensor : all_tensors(source)) {
        const std::string& name = tensor.param->name;
        const Tensor here = find_tensor(table, name);
        if (here && here.param->name == name) continue;
        result.push_back(
            {name, "dropped", here ? "tied to " + here.param->name + " here" : "was " + tensor.param->shape.text()});
    }
    return result;
}

DriftBatches drift_batches(const GraftSource& source, const Config& config) {
    constexpr std::int64_t kTokens = 8192;
    const std::int64_t time = std::min(source.config.model.context, config.model.context);
    const std::int64_t batch = config.train.micro_batch;
    return {batch, std::max<std::int64_t>(1, kTokens / (batch * time)), time};
}

} // namespace

GraftSourceInfo read_graft_source(const InitFromConfig& init, const Log& log) {
    const fs::path checkpoint = source_checkpoint(init, log);
    CheckpointInfo info = read_checkpoint_info(checkpoint);
    return {init.run, config_from_json(info.config_json, checkpoint / "config.json"), std::move(info.state)};
}

void require_fit(const GraftSourceInfo& source, const Config& config, const Tokenizer& tokenizer,
                 std::int64_t vocab_size) {
    require_same_vocabulary(source, config, tokenizer, vocab_size);
    const ModelConfig &theirs = source.config.model, &ours = config.model;
    if (is_task(config) && theirs.context < ours.context)
        throw UsageError(source.run.string() + ": its context of " + std::to_string(theirs.context) +
                         " is too short for the task's sequences of " + std::to_string(ours.context));
    if (theirs.width != ours.width)
        throw UsageError(source.run.string() + ": its tensors do not fit this model; its model.width is " +
                         std::to_string(theirs.width) + ", here it is " + std::to_string(ours.width));
}

std::unique_ptr<GraftSource> load_graft_source(const InitFromConfig& init, const Log& log) {
    pin_blas();
    const fs::path checkpoint = source_checkpoint(init, log);
    const CheckpointInfo info = read_checkpoint_info(checkpoint);
    auto source = std::make_unique<GraftSource>();
    source->run = init.run;
    source->config = config_from_json(info.config_json, checkpoint / "config.json");
    source->model = std::make_unique<Transformer>(source->table, source->config.model, info.state.vocab_size);
    source->table.allocate(source->config.seed);
    source->state = load_parameters(checkpoint, source->table);
    source->checksum = checksum(SafetensorsFile(checkpoint / "params.safetensors").bytes());
    return source;
}

GraftRecord graft(const GraftSource& source, const Config& config, const Dataset& data, ParamTable& table,
                  const Transformer& model) {
    require_fit(source, config, data.tokenizer(), data.vocab_size());
    GraftRecord record;
    record.source = source.run.string();
    record.source_step = source.state.step;
    record.source_checksum = hex_digits(source.checksum);
    record.source_config_hash = config_hash(source.config);
    for (KeyDifference& change : diff(source.config, config))
        if (change.path.starts_with("model.")) record.changes.push_back(std::move(change));

    record.tensors = fill_table(table, source.table);
    std::vector<std::string> to_fit;
    for (const GraftedTensor& tensor : record.tensors) {
        const std::string norm = norm_of(tensor.name);
        if (norm.empty() || (tensor.fate != "new" && tensor.fate != "mismatched")) continue;
        if (table.find(tensor.name) != nullptr) record.new_norms.push_back(tensor.name);
        if (tensor.name.ends_with(".gain")) to_fit.push_back(norm);
    }

    const DriftBatches batches = drift_batches(source, config);
    record.drift = measure_drift(*source.model, model, data, batches);
    if (!config.init_from.calibrate || to_fit.empty()) return record;
    const std::vector<std::string> fitted =
        calibrate_norms({source.config.model, *source.model, model, table}, to_fit, config, data);
    if (fitted.empty()) return record;
    record.calibrated = true;
    record.uncalibrated = std::exchange(record.drift, measure_drift(*source.model, model, data, batches));
    for (GraftedTensor& tensor : record.tensors)
        if (std::find(fitted.begin(), fitted.end(), norm_of(tensor.name)) != fitted.end())
            tensor.note += ", then fitted";
    return record;
}

} // namespace ballast
