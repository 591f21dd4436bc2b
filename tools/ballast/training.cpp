#include "training.h"

#include <array>
#include <system_error>
#include <vector>

#include "ballast/base/parallel.h"
#include "ballast/train/run_directory.h"
#include "command.h"
#include "format.h"
#include "runs.h"
#include "signals.h"

using namespace ballast;

namespace fs = std::filesystem;

Config load_config_to_use(const fs::path& file, std::span<const std::string> overrides) {
    if (is_run_directory(file))
        throw UsageError(file.string() +
                         ": a run directory; expected a config file. To go on with the run: ballast resume " +
                         shell_word(file) + "; to train its config again: ballast train " +
                         shell_word(file / "config.json") + " --out DIR");
    return load_config(file, overrides);
}

std::string machine_text(const Environment& facts) {
    // The build's options follow the name and the version of a library.
    const std::string blas = facts.blas.substr(0, facts.blas.find(' ', facts.blas.find(' ') + 1));
    return format("threads %lld of %lld processors; %s for %s, vector kernels for %s",
                  static_cast<long long>(facts.threads), static_cast<long long>(facts.processors), blas.c_str(),
                  facts.blas_core.c_str(), facts.simd.c_str());
}

std::string data_key(const Config& config) {
    Config data;
    data.data = config.data;
    data.model.context = config.model.context;
    return to_json(data);
}

void log_machine(const Log& log) { log.info(machine_text(current_environment())); }

namespace {

std::string_view token_word(const Tokenizer& tokenizer) {
    switch (tokenizer.kind()) {
    case Tokenizer::Kind::character: return "characters";
    case Tokenizer::Kind::byte: return "bytes";
    case Tokenizer::Kind::ids: break;
    }
    return "tokens";
}

/// A beginning for a text that the vocabulary surely has: the first words of the data.
std::string some_prompt(const Dataset& data) {
    constexpr std::int64_t kTokens = 12;
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < std::min(kTokens, data.train().size()); ++i)
        ids.push_back(data.train()[i]);
    std::string text = data.tokenizer().decode(ids);
    text = text.substr(0, text.find('\n'));
    if (const std::size_t blank = text.rfind(' '); blank != std::string::npos && blank > 0) text.resize(blank);
    for (const char c : text)
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) return "TEXT";
    return text.empty() ? "TEXT" : text;
}

std::string result_line(const RunSummary& summary, const Trainer& trainer) {
    std::string text = summary.verdict + ": step " + std::to_string(summary.step);
    if (summary.verdict == "interrupted")
        text = format("interrupted and saved: step %lld of %lld", static_cast<long long>(summary.step),
                      static_cast<long long>(trainer.config().train.steps));
    else if (!summary.reason.empty())
        text = summary.verdict + " (" + summary.reason + "): step " + std::to_string(summary.step);
    if (!summary.onset.empty()) text += ", began at " + summary.onset;
    if (summary.step > 0) text += format(", loss %.4f", unsigned_nan(summary.final_loss));
    if (summary.final_val_loss)
        text += format(", val loss %.4f", unsigned_nan(*summary.final_val_loss));
    else if (summary.best_val_loss)
        text += format(", best val loss %.4f at step %lld", *summary.best_val_loss,
                       static_cast<long long>(summary.best_val_step));
    text += format(trainer.data().task() != nullptr ? " (chance %.4f)" : " (unigram entropy %.4f)",
                   trainer.data().unigram_entropy());
    return text + ", " + short_count(summary.tokens_per_second) + " tokens/s, " + duration(summary.seconds);
}

/// Whether a run made all its steps and has not lost what it had learned.
bool reached_its_end(const RunSummary& summary, const Trainer& trainer) {
    return summary.step >= trainer.config().train.steps && summary.verdict != "diverged" &&
           summary.verdict != "non_finite";
}

std::string next_line(const RunSummary& summary, const Trainer& trainer) {
    const fs::path& run = trainer.directory().path();
    const std::string word = shell_word(run);
    if (summary.verdict == "interrupted") return "next: ballast resume " + word;
    if (summary.verdict != "stable") {
        std::string text = "next: ballast diagnose " + word;
        if (summary.event_step) text += " | ballast replay " + word + " --step " + std::to_string(*summary.event_step);
        return text;
    }
    if (trainer.data().task() != nullptr)
        return "next: ballast eval " + word + " | " + extend_command(run, trainer.config().train.steps);
    return "next: ballast generate " + word + " --prompt " + shell_word(some_prompt(trainer.data())) +
           " | ballast eval " + word + " | " + extend_command(run, trainer.config().train.steps);
}

} // namespace

void log_run(const Log& log, const Config& config, const Dataset& data, std::int64_t parameters) {
    if (const SyntheticTask* const task = data.task())
        log.info("task " + std::string(task->name()) + ": " + grouped(task->targets_per_sequence()) + " of " +
                 grouped(task->context()) + " tokens of a sequence are asked for; vocabulary " +
                 grouped(data.vocab_size()) + format("; chance %.4f nats, best 0", task->chance_loss()));
    else
        log.info(config.data.path + ": " + grouped(data.train().size()) + " " +
                 std::string(token_word(data.tokenizer())) + " to train on, " + grouped(data.validation().size()) +
                 " to validate; vocabulary " + grouped(data.vocab_size()) +
                 format("; unigram entropy %.4f nats", data.unigram_entropy()));
    const ModelConfig& model = config.model;
    const std::string norm(to_string(model.norm.kind));
    log.info(config.name + ": " + grouped(parameters) + " parameters; " + std::to_string(model.layers) +
             " layers of width " + std::to_string(model.width) + ", context " + std::to_string(model.context) + "; " +
             norm + ", placement " + std::string(to_string(model.norm.placement)) + "; " +
             std::to_string(config.train.steps) + " steps of " + grouped(config.train.batch * model.context) +
             " tokens");
}

std::string extend_command(const fs::path& run, std::int64_t steps) {
    return "ballast resume " + shell_word(run) +
           " --set train.steps=" + std::to_string(std::max<std::int64_t>(1, 2 * steps));
}

int train_and_report(Trainer& trainer, Display& display) {
    const std::atomic<bool>& interrupt = watch_signals();
    display.begin(trainer.config().train, trainer.state().step);
    const std::array<MetricsSink*, 1> sinks{&display};
    const RunSummary summary = trainer.run(sinks, interrupt);
    display.clear();
    display.line(result_line(summary, trainer));
    display.line(next_line(summary, trainer));
    if (summary.verdict == "interrupted") return kInterrupted;
    return reached_its_end(summary, trainer) ? kDone : kDiverged;
}
