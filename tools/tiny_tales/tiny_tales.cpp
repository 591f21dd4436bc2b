// Writes data/tiny_tales.txt from data/tiny_tales.grammar and prints the lowest loss that a model of it can reach.

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <numbers>
#include <string>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/data/grammar.h"

namespace {

using namespace ballast;

std::string digits(double value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.6f", value);
    return text;
}

void write(const std::string& grammar_path, std::uint64_t seed, std::size_t bytes, const std::string& output) {
    const Grammar grammar(read_file(grammar_path));
    if (const auto confusions = grammar.confusions(); !confusions.empty())
        throw DataError(grammar_path + ": ambiguous in " + std::to_string(confusions.size()) +
                        " places, the first: " + confusions.front());

    const std::string text = write_stories(grammar, seed, bytes);
    const Grammar::Expectation story = grammar.expectation();
    const auto size = static_cast<double>(text.size());
    const double whole = nats_of_stories(grammar, text);
    // The last tenth, as Dataset cuts it for val_fraction 0.1.
    const auto train_size = static_cast<std::size_t>(size * (1.0 - 0.1));
    const double validation = whole - nats_of_stories(grammar, text.substr(0, train_size));

    const double source_rate = story.nats / story.characters;
    const double whole_rate = whole / size;
    const double validation_rate = validation / (size - static_cast<double>(train_size));
    const auto row = [](const char* name, double rate) {
        std::printf("%-34s %s nats, %s bits\n", name, digits(rate).c_str(), digits(rate / std::numbers::ln2).c_str());
    };
    std::printf("%zu bytes; a story has %.1f characters and %.1f nats on average\n", text.size(), story.characters,
                story.nats);
    std::printf("entropy per character:\n");
    row("  source, exact", source_rate);
    row("  this text", whole_rate);
    row("  this text, last tenth", validation_rate);

    write_file_atomic(output, text);
    const std::string facts = "{\"bytes\": " + std::to_string(text.size()) + ", \"seed\": " + std::to_string(seed) +
                              ", \"entropy_nats_per_char\": " + digits(source_rate) +
                              ", \"text_nats_per_char\": " + digits(whole_rate) +
                              ", \"validation_nats_per_char\": " + digits(validation_rate) + "}\n";
    write_file_atomic(std::filesystem::path(output).replace_extension(".json"), facts);
}

} // namespace

int main(int argc, char** argv) {
    CLI::App app("Writes stories from a grammar, and beside them, as JSON, the entropy of the text.\n"
                 "Example: tiny_tales data/tiny_tales.grammar -o data/tiny_tales.txt");
    std::string grammar;
    std::string output;
    std::uint64_t seed = 1;
    std::size_t bytes = 1000000;
    app.add_option("grammar", grammar, "the grammar; its language is described in include/ballast/data/grammar.h")
        ->required();
    app.add_option("-o,--output", output, "text file to write; its facts go beside it as .json")->required();
    app.add_option("--seed", seed, "seed of the random choices")->capture_default_str();
    app.add_option("--bytes", bytes, "stop at the end of the story that reaches this size")->capture_default_str();
    try {
        app.parse(argc, argv);
        write(grammar, seed, bytes, output);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "tiny_tales: %s\n", error.what());
        return 1;
    }
    return 0;
}
