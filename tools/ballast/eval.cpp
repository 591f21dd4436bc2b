#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <numbers>
#include <string>

#include "ballast/base/error.h"
#include "ballast/data/dataset.h"
#include "ballast/data/sampler.h"
#include "ballast/ops/registry.h"
#include "ballast/train/learner.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "json.h"
#include "runs.h"

using namespace ballast;

namespace {

namespace fs = std::filesystem;

struct EvalOptions {
    std::string run;
    std::string data;
    std::string split;
    std::string checkpoint = "newest";
    int threads = 0;
    bool json = false;
};

/// Tokens to evaluate, and what to call them.
struct Source {
    std::unique_ptr<Dataset> data; ///< keeps the tokens
    TokenView tokens;
    std::string name;
};

Source choose_split(std::unique_ptr<Dataset> data, const std::string& path, const std::string& split) {
    if (split == "val" && data->validation().size() == 0)
        throw UsageError("--split: " + path + " has no validation split; expected --split train");
    const TokenView tokens = split == "val" ? data->validation() : data->train();
    return {std::move(data), tokens, path + ", split " + split};
}

/// The data of the run itself.
Source own_data(const TrainedModel& trained, const std::string& split, const Log& log) {
    DataOptions options = data_options(trained.config);
    auto data = std::make_unique<Dataset>(options);
    if (data->fingerprint() != trained.state.data_fingerprint) {
        log.warn(trained.config.data.path + ": has changed since the run was trained on it");
        options.vocabulary = trained.state.tokenizer;
        data = std::make_unique<Dataset>(options);
    }
    return choose_split(std::move(data), trained.config.data.path, split.empty() ? "val" : split);
}

/// Another text, whole, or another directory of token files; with the vocabulary of the run.
Source other_data(const TrainedModel& trained, const std::string& path, const std::string& split) {
    std::error_code ignored;
    const bool is_directory = fs::is_directory(path, ignored);
    const bool is_bin = is_directory || fs::path(path).extension() == ".bin";
    DataOptions options;
    options.path = path;
    options.format = is_bin ? DataOptions::Format::bin : DataOptions::Format::text;
    options.val_fraction = 0;
    // Token files may use every id of the model, also those that stand for no known text.
    options.vocabulary = is_bin ? Tokenizer::ids(trained.state.vocab_size) : trained.state.tokenizer;
    auto data = std::make_unique<Dataset>(options);
    if (is_directory) {
        const bool has_validation = data->validation().size() > 0;
        return choose_split(std::move(data), path, !split.empty() ? split : has_validation ? "val" : "train");
    }
    if (!split.empty()) throw UsageError("--split: " + path + " is one file and evaluated whole; leave the option out");
    const TokenView tokens = data->train();
    return {std::move(data), tokens, path};
}

/// Mean cross-entropy of every token of a text but the first: windows side by side, and what is left as a shorter one.
double loss_on_all(const TrainedModel& trained, const TokenView& tokens) {
    const std::int64_t context = trained.config.model.context;
    const std::int64_t batch = trained.config.train.micro_batch;
    Tape tape(ops::registry());
    double sum = 0;
    std::int64_t done = 0;
    // Evaluates `batches` times `rows` windows of `length` tokens from `done` on.
    const auto add = [&](std::int64_t batches, std::int64_t rows, std::int64_t length) {
        const std::int64_t count = batches * rows * length;
        if (count == 0) return;
        sum += static_cast<double>(count) *
               evaluate(tape, *trained.model, tokens.part(done, count + 1), rows, batches, length);
        done += count;
    };
    const std::int64_t windows = (tokens.size() - 1) / context;
    add(windows / batch, batch, context);
    add(1, windows % batch, context);
    add(1, 1, (tokens.size() - 1) % context);
    return sum / static_cast<double>(done);
}

std::string_view bits_of(const Tokenizer& tokenizer) {
    switch (tokenizer.kind()) {
    case Tokenizer::Kind::character: return "bits_per_char";
    case Tokenizer::Kind::byte: return "bits_per_byte";
    case Tokenizer::Kind::ids: break;
    }
    return "bits_per_token";
}

/// A synthetic task: questions that training has not seen.
int eval_task(const EvalOptions& options, const TrainedModel& trained) {
    constexpr std::int64_t kSequences = 2048;
    if (options.split == "train")
        throw UsageError("--split: the sequences of a task have no end; expected --split val or none");
    const Dataset data(data_options(trained.config));
    const std::int64_t count = data.task()->held_out() > 0 ? data.task()->held_out() : kSequences;
    std::int64_t batch = std::min(trained.config.train.micro_batch, count);
    while (count % batch != 0) // each held-out sum once
        --batch;
    const std::int64_t batches = count / batch;
    Tape tape(ops::registry());
    const Evaluation found = evaluate(tape, *trained.model, data, batch, batches, trained.config.model.context);
    const std::int64_t targets = batches * batch * data.task()->targets_per_sequence();
    const std::string name = "task " + std::string(data.task()->name());
    if (options.json) {
        const std::string line = json::object({{"run", json::text(options.run)},
                                               {"checkpoint", json::number(trained.state.step)},
                                               {"data", json::text(name)},
                                               {"targets", json::number(targets)},
                                               {"loss", json::number(found.loss)},
                                               {"accuracy", json::number(*found.accuracy)},
                                               {"chance_loss", json::number(data.task()->chance_loss())}});
        std::printf("%s\n", line.c_str());
    } else {
        std::printf("loss %.6f nats (chance %.4f, best 0), %.2f %% right\n", found.loss, data.task()->chance_loss(),
                    100 * *found.accuracy);
        std::printf("%s: %s targets, checkpoint of step %lld\n", name.c_str(), grouped(targets).c_str(),
                    static_cast<long long>(trained.state.step));
    }
    return std::isfinite(found.loss) ? kDone : kDiverged;
}

int eval(const EvalOptions& options) {
    use_threads(options.threads);
    const Log log = stderr_log();
    const TrainedModel trained = load_model(options.run, options.checkpoint, log);
    if (trained.config.data.task.kind != TaskKind::none && options.data.empty()) return eval_task(options, trained);
    const Source source =
        options.data.empty() ? own_data(trained, options.split, log) : other_data(trained, options.data, options.split);
    const double loss = loss_on_all(trained, source.tokens);
    const double perplexity = std::exp(loss);
    const double bits = loss / std::numbers::ln2;
    const std::string_view unit = bits_of(trained.state.tokenizer);
    const std::int64_t tokens = source.tokens.size() - 1;
    if (options.json) {
        const std::string line = json::object({{"run", json::text(options.run)},
                                               {"checkpoint", json::number(trained.state.step)},
                                               {"data", json::text(source.name)},
                                               {"tokens", json::number(tokens)},
                                               {"loss", json::number(loss)},
                                               {"perplexity", json::number(perplexity)},
                                               {unit, json::number(bits)}});
        std::printf("%s\n", line.c_str());
    } else {
        std::string unit_words(unit);
        for (char& c : unit_words)
            if (c == '_') c = ' ';
        std::printf("loss %.6f nats, perplexity %.4f, %.4f %s\n", loss, perplexity, bits, unit_words.c_str());
        std::printf("%s: %s tokens, checkpoint of step %lld\n", source.name.c_str(), grouped(tokens).c_str(),
                    static_cast<long long>(trained.state.step));
    }
    return std::isfinite(loss) ? kDone : kDiverged;
}

} // namespace

void add_eval(CLI::App& app, Action& action) {
    auto options = std::make_shared<EvalOptions>();
    CLI::App* command = app.add_subcommand("eval", "Loss of a trained model on every token of a split or of a file");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    command->add_option("--data", options->data, "Another text, or directory of token files, in the run's vocabulary")
        ->type_name("FILE");
    command->add_option("--split", options->split, "train or val [val]")
        ->type_name("SPLIT")
        ->check(CLI::IsMember({"train", "val"}));
    add_checkpoint_option(*command, options->checkpoint);
    add_threads_option(*command, options->threads);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast eval runs/quickstart --split train");
    command->callback([options, &action] { action = [options] { return eval(*options); }; });
}
