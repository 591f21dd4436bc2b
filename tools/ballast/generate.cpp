#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/ops/registry.h"
#include "ballast/train/generate.h"
#include "command.h"
#include "display.h"
#include "runs.h"

using namespace ballast;

namespace {

struct GenerateOptions {
    std::string run;
    std::string prompt;
    std::string checkpoint = "newest";
    std::int64_t tokens = 200;
    SampleOptions sample;
    int threads = 0;
};

int generate_text(const GenerateOptions& options) {
    use_threads(options.threads);
    const TrainedModel trained = load_model(options.run, options.checkpoint, stderr_log());
    const Tokenizer& tokenizer = trained.state.tokenizer;
    const std::vector<std::int32_t> prompt = tokenizer.encode(options.prompt, "--prompt");
    const bool spaced = tokenizer.kind() == Tokenizer::Kind::ids;

    // Shown at the first token: when the options are refused, nothing has been printed.
    bool started = false;
    const auto show_prompt = [&] {
        if (!started) std::fputs(options.prompt.c_str(), stdout);
        started = true;
    };
    Tape tape(ops::registry());
    generate(tape, *trained.model, prompt, options.tokens, options.sample, [&](std::int32_t token) {
        show_prompt();
        const std::string text = (spaced ? " " : "") + tokenizer.decode(std::span(&token, 1));
        std::fwrite(text.data(), 1, text.size(), stdout);
        return std::fflush(stdout) == 0; // the reader may have left
    });
    show_prompt();
    std::fputc('\n', stdout);
    return kDone;
}

} // namespace

void add_generate(CLI::App& app, Action& action) {
    auto options = std::make_shared<GenerateOptions>();
    CLI::App* command = app.add_subcommand("generate", "Let a trained model go on with a text");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    command->add_option("--prompt", options->prompt, "Text to go on with, in the run's vocabulary")
        ->required()
        ->type_name("TEXT");
    command->add_option("--tokens", options->tokens, "Tokens to add")
        ->type_name("N")
        ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
        ->capture_default_str();
    command->add_option("--temperature", options->sample.temperature, "Below 1: safer; above: wilder; 0: the likeliest")
        ->type_name("T")
        ->capture_default_str();
    command->add_option("--top-k", options->sample.top_k, "Only the K likeliest tokens; 0: all")
        ->type_name("K")
        ->capture_default_str();
    command->add_option("--top-p", options->sample.top_p, "Only the likeliest tokens that make up probability P")
        ->type_name("P")
        ->capture_default_str();
    command->add_option("--seed", options->sample.seed, "The same seed gives the same text")
        ->type_name("N")
        ->check([](const std::string& text) { // a negative one would be read as a huge one
            return text.starts_with('-') ? "Value " + text + " is negative" : std::string();
        })
        ->capture_default_str();
    add_checkpoint_option(*command, options->checkpoint);
    add_threads_option(*command, options->threads);
    command->footer("Example: ballast generate runs/quickstart --prompt 'Once' --tokens 300 --temperature 0.8");
    command->callback([options, &action] { action = [options] { return generate_text(*options); }; });
}
