#include "ballast/train/checkpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <utility>
#include <variant>

#include "ballast/base/text.h"
#include "ballast/train/safetensors.h"
#include "json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kFormat = 1;
constexpr std::string_view kPrecision = "float32";
static_assert(sizeof(real) == 4);

constexpr const char* kConfigFile = "config.json";
constexpr const char* kParamsFile = "params.safetensors";
constexpr const char* kOptimFile = "optim.safetensors";
constexpr const char* kStateFile = "state.json";
constexpr const char* kTemporaryPrefix = ".tmp-";

struct StateField {
    std::string_view name;
    std::variant<std::int64_t TrainerState::*, double TrainerState::*, std::string TrainerState::*> member;
};

constexpr auto kStateFields = std::to_array<StateField>({
    {"step", &TrainerState::step},
    {"tokens", &TrainerState::tokens},
    {"best_loss", &TrainerState::best_loss},
    {"best_loss_step", &TrainerState::best_loss_step},
    {"best_val_loss", &TrainerState::best_val_loss},
    {"best_val_step", &TrainerState::best_val_step},
    {"seconds", &TrainerState::seconds},
    {"resumed", &TrainerState::resumed},
    {"rewinds", &TrainerState::rewinds},
    {"skipped_batches", &TrainerState::skipped_batches},
    {"started", &TrainerState::started},
    {"vocab_size", &TrainerState::vocab_size},
});

struct TokenizerName {
    Tokenizer::Kind kind;
    std::string_view name;
};

constexpr auto kTokenizerNames = std::to_array<TokenizerName>({
    {Tokenizer::Kind::character, "char"},
    {Tokenizer::Kind::byte, "byte"},
    {Tokenizer::Kind::ids, "ids"},
});

// ---- Numbers and names ----------------------------------------------------------------------------------------------

std::string hex(std::uint64_t value) {
    std::string text(16, '0');
    for (std::size_t i = 0; i < 16; ++i, value >>= 4U)
        text[15 - i] = "0123456789abcdef"[value & 15U];
    return text;
}

std::uint64_t hex_value(const Json& object, std::string_view name) {
    std::string text;
    read_value(member_of(object, name), name, text);
    std::uint64_t value = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (problem != std::errc() || text.size() != 16 || end != text.data() + text.size())
        refuse_value(name, "16 hexadecimal digits");
    return value;
}

constexpr std::string_view kStepPrefix = "step-";
constexpr std::size_t kStepDigits = 8;

[[noreturn]] void fail(const fs::path& path, std::string_view action, const std::error_code& reason) {
    throw IoError(path.string() + ": cannot " + std::string(action) + ": " + reason.message());
}

void remove_tree(const fs::path& path) {
    std::error_code problem;
    fs::remove_all(path, problem);
    if (problem) fail(path, "remove", problem);
}

/// Takes a directory out of sight in one step before removing it piece by piece, so that it is never seen in part.
void remove_checkpoint(const fs::path& path, const FileCalls& calls) {
    const fs::path hidden = path.parent_path() / (kTemporaryPrefix + std::string("old-") + path.filename().string());
    remove_tree(hidden);
    rename_durably(path, hidden, calls);
    remove_tree(hidden);
}

// ---- state.json -----------------------------------------------------------------------------------------------------

/// What state.json knows about another file of the checkpoint.
struct FileFacts {
    std::uint64_t bytes = 0;
    std::uint64_t checksum = 0;
};

struct StateFile {
    CheckpointInfo info;
    std::map<std::string, FileFacts> files;
};

// The last key of state.json is the checksum of its whole text with the digits of this checksum as zeros: every byte of
// the file counts.
constexpr std::string_view kTail = "\"\n}\n";
constexpr std::size_t kDigits = 16;

std::uint64_t sealed_checksum(std::string text) {
    text.replace(text.size() - kTail.size() - kDigits, kDigits, kDigits, '0');
    return checksum(std::as_bytes(std::span(text)));
}

std::string write_state(const TrainerState& state, const std::map<std::string, FileFacts>& files) {
    Json json;
    json["format"] = kFormat;
    json["ballast"] = BALLAST_VERSION;
    json["precision"] = kPrecision;
    write_fields(json["state"], state, kStateFields);
    write_fields(json["stability"], state.stability, kStabilityFields);
    json["data_fingerprint"] = hex(state.data_fingerprint);
    const auto kind = std::find_if(kTokenizerNames.begin(), kTokenizerNames.end(),
                                   [&](const TokenizerName& entry) { return entry.kind == state.tokenizer.kind(); });
    json["tokenizer"] = {{"kind", kind->name},
                         {"vocab_size", state.tokenizer.vocab_size()},
                         {"vocabulary", state.tokenizer.vocabulary()}};
    for (const auto& [name, facts] : files)
        json["files"][name] = {{"bytes", facts.bytes}, {"checksum", hex(facts.checksum)}};
    json["checksum"] = std::string(kDigits, '0');
    std::string text = json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
    return text.replace(text.size() - kTail.size() - kDigits, kDigits, hex(sealed_checksum(text)));
}

/// Ids are 32-bit integers.
constexpr std::int64_t kMaxVocabulary = std::numeric_limits<std::int32_t>::max();

Tokenizer read_tokenizer(const Json& json) {
    std::string kind_name;
    std::int64_t vocab_size = 0;
    read_value(member_of(json, "kind"), "kind", kind_name);
    read_value(member_of(json, "vocab_size"), "vocab_size", vocab_size);
    if (vocab_size < 0 || vocab_size > kMaxVocabulary) refuse_value("vocab_size", "the size of a vocabulary");
    const Json& texts = member_of(json, "vocabulary");
    const auto kind = std::find_if(kTokenizerNames.begin(), kTokenizerNames.end(),
                                   [&](const TokenizerName& entry) { return entry.name == kind_name; });
    if (kind == kTokenizerNames.end()) refuse_value("kind", "a tokenizer");
    if (!texts.is_array() || !std::all_of(texts.begin(), texts.end(), [](const Json& t) { return t.is_string(); }))
        refuse_value("vocabulary", "an array of strings");
    try {
        return Tokenizer::from_parts(kind->kind, vocab_size, texts.get<std::vector<std::string>>());
    } catch (const DataError& error) {
        throw IoError(std::string("tokenizer: ") + error.what());
    }
}

/// Throws IoError for numbers that no run can have come to.
void check_ranges(const TrainerState& state) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    const auto check = [](std::string_view name, std::int64_t value, std::int64_t most) {
        if (value < 0 || value > most) refuse_value(name, "a number from 0 to " + std::to_string(most));
    };
    check("step", state.step, kMost);
    check("tokens", state.tokens, kMost);
    check("best_loss_step", state.best_loss_step, state.step);
    check("best_val_step", state.best_val_step, state.step);
    check("resumed", state.resumed, kMost);
    check("rewinds", state.rewinds, kMost);
    check("skipped_batches", state.skipped_batches, kMost - state.step);
    check("vocab_size", state.vocab_size, kMaxVocabulary);
}

/// Whether another version wrote the checkpoint, in a format of its own.
bool is_of_other_version(const fs::path& checkpoint) {
    try {
        const auto json = parse_object<Json>(read_file(checkpoint / kStateFile));
        std::int64_t format = 0;
        std::string version;
        read_value(member_of(json, "format"), "format", format);
        read_value(member_of(json, "ballast"), "ballast", version);
        return format != kFormat && version != BALLAST_VERSION;
    } catch (const IoError&) {
        return false; // damaged
    }
}

/// Reads state.json. Throws IoError, beginning with its path.
StateFile read_state(const fs::path& checkpoint) {
    const fs::path path = checkpoint / kStateFile;
    const std::string text = read_file(path);
    StateFile file;
    try {
        const auto json = parse_object<Json>(text);
        std::int64_t format = 0;
        read_value(member_of(json, "format"), "format", format);
        read_value(member_of(json, "ballast"), "ballast", file.info.version);
        if (format != kFormat)
            throw IoError("checkpoint format " + std::to_string(format) + ", written by ballast " +
                          printable(file.info.version, 60) +
                          "; this is ballast " BALLAST_VERSION ", which reads format " + std::to_string(kFormat));
        hex_value(json, "checksum"); // throws unless it is there, so that the text is long enough to look into
        if (!text.ends_with(kTail) || !text.ends_with(hex(sealed_checksum(text)) + std::string(kTail)))
            throw IoError("damaged: its checksum does not fit");

        std::string precision;
        read_value(member_of(json, "precision"), "precision", precision);
        if (precision != kPrecision)
            throw IoError("precision " + printable(precision, 60) + "; expected " + std::string(kPrecision));
        const Json& state = member_of(json, "state");
        const Json& files = member_of(json, "files");
        if (!state.is_object() || !files.is_object()) throw IoError("not a checkpoint's state");
        read_fields(state, file.info.state, kStateFields, Missing::refused);
        read_fields(member_of(json, "stability"), file.info.state.stability, kStabilityFields, Missing::refused);
        file.info.state.data_fingerprint = hex_value(json, "data_fingerprint");
        file.info.state.tokenizer = read_tokenizer(member_of(json, "tokenizer"));
        check_ranges(file.info.state);
        for (const auto& [name, facts] : files.items()) {
            std::int64_t bytes = 0;
            read_value(member_of(facts, "bytes"), "bytes", bytes);
            file.files[name] = {static_cast<std::uint64_t>(bytes), hex_value(facts, "checksum")};
        }
    } catch (const IoError& error) {
        throw IoError(path.string() + ": " + error.what());
    }
    const std::optional<std::int64_t> named = step_of_name(fs::absolute(checkpoint).lexically_normal().filename());
    if (named && *named != file.info.state.step)
        throw IoError(path.string() + ": it is the state of step " + std::to_string(file.info.state.step));
    return file;
}

// ---- Checking -------------------------------------------------------------------------------------------------------

/// All that is wrong, collected before anything is thrown.
class Problems {
public:
    /// Runs `check`; false when it found a problem.
    template <class Check>
    bool collect(Check&& check) {
        try {
            check();
            return true;
        } catch (const IoError& error) {
            lines_.emplace_back(error.what());
            return false;
        }
    }
    void add(std::string line) { lines_.push_back(std::move(line)); }
    void throw_if_any() {
        if (!lines_.empty()) throw CheckpointError(std::move(lines_));
    }

private:
    std::vector<std::string> lines_;
};

StateFile read_state_or_throw(const fs::path& checkpoint, Problems& problems) {
    StateFile state;
    problems.collect([&] { state = read_state(checkpoint); });
    problems.throw_if_any(); // nothing else can be judged without it
    return state;
}

void check_size(const fs::path& path, std::uint64_t actual, const FileFacts& facts) {
    if (actual != facts.bytes)
        throw IoError(path.string() + ": damaged: " + std::to_string(actual) + " bytes; expected " +
                      std::to_string(facts.bytes));
}

/// Throws IoError unless the file is the one that state.json was written for.
void check_file(const fs::path& checkpoint, const StateFile& state, const char* name) {
    const fs::path path = checkpoint / name;
    const auto facts = state.files.find(name);
    if (facts == state.files.end()) throw IoError(path.string() + ": not a part of this checkpoint");
    const MappedFile file(path);
    check_size(path, file.bytes().size(), facts->second);
    if (checksum(file.bytes()) != facts->second.checksum)
        throw IoError(path.string() + ": damaged or from another checkpoint: its checksum does not fit");
}

/// Whether all files are there with their sizes, without reading them.
bool looks_whole(const fs::path& checkpoint) {
    try {
        const StateFile state = read_state(checkpoint);
        for (const char* name : {kConfigFile, kParamsFile, kOptimFile}) {
            std::error_code problem;
            const auto facts = state.files.find(name);
            const std::uintmax_t size = fs::file_size(checkpoint / name, problem);
            if (problem || facts == state.files.end() || size != facts->second.bytes) return false;
        }
        return true;
    } catch (const IoError&) {
        return false;
    }
}

bool is_whole(const fs::path& checkpoint) {
    try {
        verify_checkpoint(checkpoint);
        return true;
    } catch (const CheckpointError&) {
        return false;
    }
}

// ---- Tensors --------------------------------------------------------------------------------------------------------

/// A parameter or moment and where it is in memory.
struct Tensor {
    std::string name;
    std::vector<std::int64_t> shape;
    float* values;
};

void add_tensors(std::vector<Tensor>& tensors, std::span<const Param> params, const std::string& suffix,
                 float* values) {
    for (const Param& param : params)
        tensors.push_back({param.name + suffix,
                           {param.shape.dims.begin(), param.shape.dims.begin() + param.shape.rank},
                           values + param.offset});
}

std::vector<Tensor> param_tensors(const ParamTable& table) {
    std::vector<Tensor> tensors;
    add_tensors(tensors, table.params(), "", table.values());
    add_tensors(tensors, table.buffers(), "", table.values());
    return tensors;
}

std::vector<Tensor> moment_tensors(const ParamTable& table, std::span<const Moment> moments) {
    std::vector<Tensor> tensors;
    for (const Moment& moment : moments)
        add_tensors(tensors, table.params(), "." + std::string(moment.name), moment.values);
    return tensors;
}

FileFacts write_tensors(const fs::path& path, const std::vector<Tensor>& tensors, const FileCalls& calls) {
    std::vector<TensorSource> sources;
    for (const Tensor& tensor : tensors)
        sources.push_back({tensor.name, tensor.shape, tensor.values});
    const std::uint64_t sum = write_safetensors(path, sources, {}, calls);
    std::error_code problem;
    const std::uintmax_t size = fs::file_size(path, problem);
    if (problem) fail(path, "read", problem);
    return {size, sum};
}

/// A tensor file whose content is checked, to be copied into memory once everything else is, too.
class TensorFile {
public:
    TensorFile(const fs::path& checkpoint, const StateFile& state, const char* name, std::vector<Tensor> tensors,
               Problems& problems)
        : tensors_(std::move(tensors)) {
        const fs::path path = checkpoint / name;
        const bool readable = problems.collect([&] {
            check_file(checkpoint, state, name);
            file_.emplace(path);
        });
        if (readable) compare(path, problems);
    }

    void load() const {
        for (const Tensor& tensor : tensors_) {
            const auto bytes = file_->find(tensor.name)->bytes;
            std::memcpy(tensor.values, bytes.data(), bytes.size());
        }
    }

private:
    void compare(const fs::path& path, Problems& problems) const {
        std::set<std::string_view> expected;
        for (const Tensor& tensor : tensors_) {
            expected.insert(tensor.name);
            const std::string wanted = TensorEntry{"", "F32", tensor.shape, {}}.type_text();
            const std::string start = path.string() + ": tensor " + quoted_name<Json>(tensor.name);
            const TensorEntry* const found = file_->find(tensor.name);
            if (found == nullptr)
                problems.add(start + " is missing; the model has it as " + wanted);
            else if (found->type_text() != wanted)
                problems.add(start + " is " + found->type_text() + "; the model has it as " + wanted);
        }
        for (const TensorEntry& tensor : file_->tensors()) {
            if (!expected.contains(tensor.name))
                problems.add(path.string() + ": tensor " + quoted_name<Json>(tensor.name) + ", " + tensor.type_text() +
                             ", is not in the model");
        }
    }

    std::vector<Tensor> tensors_;
    std::optional<SafetensorsFile> file_;
};

} // namespace

std::string step_name(std::int64_t step) {
    std::string digits = std::to_string(step);
    if (digits.size() < kStepDigits) digits.insert(0, kStepDigits - digits.size(), '0');
    return std::string(kStepPrefix) + digits;
}

std::optional<std::int64_t> step_of_name(const std::string& name) {
    std::int64_t step = 0;
    if (!name.starts_with(kStepPrefix)) return std::nullopt;
    const char* const end = name.data() + name.size();
    const auto [last, problem] = std::from_chars(name.data() + kStepPrefix.size(), end, step);
    if (problem != std::errc() || last != end || name != step_name(step)) return std::nullopt;
    return step;
}

fs::path checkpoint_path(const fs::path& run, std::int64_t step) { return run / "checkpoints" / step_name(step); }

fs::path save_checkpoint(const fs::path& run, std::string_view config_json, const TrainerState& state,
                         const ParamTable& table, std::span<const Moment> moments, const FileCalls& calls) {
    fs::path target = checkpoint_path(run, state.step);
    const fs::path folder = target.parent_path();
    std::error_code problem;
    if (fs::create_directory(folder, problem)) sync_directory(run, calls);
    if (problem) fail(folder, "write", problem);

    std::vector<fs::path> leftovers;
    for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end; entry.increment(problem))
        if (entry->path().filename().string().starts_with(kTemporaryPrefix)) leftovers.push_back(entry->path());
    if (problem) fail(folder, "read", problem);
    for (const fs::path& leftover : leftovers)
        remove_tree(leftover);

    const bool taken = fs::exists(fs::symlink_status(target, problem));
    if (taken && is_whole(target)) return target;

    const fs::path temporary = folder / (kTemporaryPrefix + step_name(state.step));
    fs::create_directory(temporary, problem);
    if (problem) fail(temporary, "write", problem);
    try {
        std::map<std::string, FileFacts> files;
        write_file_atomic(temporary / kConfigFile, config_json, calls);
        files[kConfigFile] = {config_json.size(), checksum(std::as_bytes(std::span(config_json)))};
        files[kParamsFile] = write_tensors(temporary / kParamsFile, param_tensors(table), calls);
        files[kOptimFile] = write_tensors(temporary / kOptimFile, moment_tensors(table, moments), calls);
        write_file_atomic(temporary / kStateFile, write_state(state, files), calls);
        if (taken) remove_checkpoint(target, calls);
        rename_durably(temporary, target, calls);
    } catch (...) {
        fs::remove_all(temporary, problem); // best effort: the next save tries again
        throw;
    }
    return target;
}

CheckpointInfo read_checkpoint_info(const fs::path& checkpoint) {
    Problems problems;
    StateFile state = read_state_or_throw(checkpoint, problems);
    problems.collect([&] {
        check_file(checkpoint, state, kConfigFile);
        state.info.config_json = read_file(checkpoint / kConfigFile);
    });
    problems.throw_if_any();
    return std::move(state.info);
}

void verify_checkpoint(const fs::path& checkpoint) {
    Problems problems;
    const StateFile state = read_state_or_throw(checkpoint, problems);
    for (const char* name : {kConfigFile, kParamsFile, kOptimFile})
        problems.collect([&] { check_file(checkpoint, state, name); });
    problems.throw_if_any();
}

void load_checkpoint(const fs::path& checkpoint, TrainerState& state, ParamTable& table,
                     std::span<const Moment> moments) {
    Problems problems;
    StateFile file = read_state_or_throw(checkpoint, problems);
    problems.collect([&] { check_file(checkpoint, file, kConfigFile); });
    const TensorFile params(checkpoint, file, kParamsFile, param_tensors(table), problems);
    const TensorFile optim(checkpoint, file, kOptimFile, moment_tensors(table, moments), problems);
    problems.throw_if_any();
    params.load();
    optim.load();
    state = std::move(file.info.state);
}

TrainerState load_parameters(const fs::path& checkpoint, ParamTable& table) {
    Problems problems;
    StateFile file = read_state_or_throw(checkpoint, problems);
    const TensorFile params(checkpoint, file, kParamsFile, param_tensors(table), problems);
    problems.throw_if_any();
    params.load();
    return std::move(file.info.state);
}

NewestCheckpoint newest_checkpoint(const fs::path& run) {
    NewestCheckpoint newest;
    std::vector<std::int64_t> steps = list_checkpoints(run);
    for (; !steps.empty(); steps.pop_back()) {
        const fs::path path = checkpoint_path(run, steps.back());
        try {
            verify_checkpoint(path);
            newest.path = path;
            return newest;
        } catch (const CheckpointError& error) {
            std::string line = "passed over:";
            for (const std::string& problem : error.problems())
                line += (line.back() == ':' ? " " : "; ") + problem;
            newest.passed_over.push_back(std::move(line));
            newest.other_version |= is_of_other_version(path);
        }
    }
    return newest;
}

std::vector<std::int64_t> list_checkpoints(const fs::path& run) {
    const fs::path folder = run / "checkpoints";
    std::vector<std::int64_t> steps;
    std::error_code problem;
    for (fs::directory_iterator entry(folder, problem), end; !problem && entry != end; entry.increment(problem))
        if (const auto step = step_of_name(entry->path().filename().string())) steps.push_back(*step);
    if (problem && problem != std::errc::no_such_file_or_directory) fail(folder, "read", problem);
    std::sort(steps.begin(), steps.end());
    return steps;
}

void remove_checkpoints_from(const fs::path& run, std::int64_t step, const FileCalls& calls) {
    std::vector<std::int64_t> steps = list_checkpoints(run);
    for (; !steps.empty() && steps.back() >= step; steps.pop_back())
        remove_checkpoint(checkpoint_path(run, steps.back()), calls);
}

std::vector<std::int64_t> prune_checkpoints(const fs::path& run, std::int64_t keep,
                                            std::span<const std::int64_t> spared, const FileCalls& calls) {
    std::vector<std::int64_t> removed;
    if (keep <= 0) return removed;
    std::vector<std::int64_t> steps = list_checkpoints(run);
    std::int64_t kept = 0;
    for (; !steps.empty(); steps.pop_back()) {
        const fs::path path = checkpoint_path(run, steps.back());
        if (kept < keep) {
            if (looks_whole(path)) ++kept;
        } else if (std::find(spared.begin(), spared.end(), steps.back()) == spared.end()) {
            remove_checkpoint(path, calls);
            removed.push_back(steps.back());
        }
    }
    return removed;
}

} // namespace ballast
