#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

/// Writes each line of `text` to standard error.
void print_error(std::string_view text);

/// Turns the exception that is being handled into lines on standard error, and into an ExitStatus.
int report_current_exception();

/// The same for a command line that could not be parsed: one line with the nearest option or command, if there is one.
/// Help and version requests end up here, too, and go to standard output.
int report_parse_error(const CLI::App& app, const CLI::ParseError& error);
