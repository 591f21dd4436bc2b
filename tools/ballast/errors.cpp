#include "errors.h"

#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "command.h"

using namespace ballast;

namespace {

/// The innermost subcommand that the command line named, or the program itself.
const CLI::App& chosen(const CLI::App& app) {
    const std::vector<const CLI::App*> parsed = app.get_subcommands([](const CLI::App* sub) { return sub->parsed(); });
    return parsed.empty() ? app : chosen(*parsed.front());
}

/// "ballast bench norms".
std::string full_name(const CLI::App& command) {
    const CLI::App* outer = command.get_parent();
    return outer == nullptr ? "ballast" : full_name(*outer) + " " + command.get_name();
}

std::string hint(std::string_view typed, const std::vector<std::string>& names) {
    const std::vector<std::string_view> candidates(names.begin(), names.end());
    const std::string_view meant = nearest(typed, candidates);
    return meant.empty() ? "" : "; did you mean " + std::string(meant) + "?";
}

std::vector<std::string> option_names(const CLI::App& command) {
    std::vector<std::string> names;
    for (const CLI::Option* option : command.get_options())
        for (const std::string& name : option->get_lnames())
            names.push_back("--" + name);
    return names;
}

std::vector<std::string> command_names(const CLI::App& app) {
    std::vector<std::string> names;
    for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; }))
        names.push_back(command->get_name());
    return names;
}

std::string list(const std::vector<std::string>& names) {
    const std::vector<std::string_view> words(names.begin(), names.end());
    return any_of(words);
}

/// What is wrong with words that nothing takes; empty when there are none.
std::string about_unused_words(const CLI::App& app, const CLI::App& command) {
    const std::vector<std::string> unused = app.remaining(true);
    if (unused.empty()) return "";
    // An option comes before a word: the word is most likely what was meant as the option's value.
    std::string word = unused.front();
    for (const std::string& candidate : unused)
        if (candidate.starts_with('-') && !word.starts_with('-')) word = candidate;
    const std::string name = word.substr(0, word.find('='));
    const std::string shown = printable(name, 60);
    if (word.starts_with('-')) return shown + ": no such option" + hint(name, option_names(command));
    if (&command != &app) return shown + ": one argument too many";
    const std::vector<std::string> commands = command_names(app);
    const std::string meant = hint(name, commands);
    return shown + ": no such command" + (meant.empty() ? "; expected " + list(commands) : meant);
}

} // namespace

void print_error(std::string_view text) {
    while (!text.empty() && text.back() == '\n')
        text.remove_suffix(1);
    std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

int report_current_exception() {
    try {
        throw;
    } catch (const ConfigError& error) {
        print_error(error.what());
        return kUsage;
    } catch (const UsageError& error) {
        print_error(error.what());
        return kUsage;
    } catch (const DataError& error) {
        print_error(error.what());
        return kUsage;
    } catch (const std::bad_alloc&) {
        print_error("out of memory; a smaller train.micro_batch, model.context or model needs less");
    } catch (const std::length_error&) { // a container longer than any memory
        print_error("out of memory; a smaller train.micro_batch, model.context or model needs less");
    } catch (const std::exception& error) {
        print_error(error.what());
    }
    return kFailure;
}

int report_parse_error(const CLI::App& app, const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
    const CLI::App& command = chosen(app);
    const std::string name = full_name(command);
    std::string what = about_unused_words(app, command);
    if (what.empty()) what = printable(error.what());
    print_error(name + ": " + what + "; see " + name + " --help");
    return kUsage;
}
