#include "ballast/base/error.h"

#include <utility>

namespace ballast {

std::string ConfigProblem::text() const {
    std::string out = file;
    if (line > 0) out += ":" + std::to_string(line);
    if (!out.empty()) out += ": ";
    if (!path.empty()) out += path + ": ";
    return out + message;
}

namespace {
std::string join_lines(const std::vector<ConfigProblem>& problems) {
    std::string out;
    for (const ConfigProblem& problem : problems) {
        if (!out.empty()) out += '\n';
        out += problem.text();
    }
    return out;
}

std::string join_lines(const std::vector<std::string>& lines) {
    std::string out;
    for (const std::string& line : lines) {
        if (!out.empty()) out += '\n';
        out += line;
    }
    return out;
}
} // namespace

ConfigError::ConfigError(std::vector<ConfigProblem> problems)
    : Error(join_lines(problems)), problems_(std::move(problems)) {}

CheckpointError::CheckpointError(std::vector<std::string> problems)
    : Error(join_lines(problems)), problems_(std::move(problems)) {}

} // namespace ballast
