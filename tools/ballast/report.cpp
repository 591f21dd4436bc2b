#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "command.h"
#include "page.h"
#include "runs.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

struct ReportOptions {
    std::vector<std::string> runs;
    std::string out;
};

/// The runs in a directory, in the order of their names.
std::vector<fs::path> runs_in(const fs::path& directory) {
    std::vector<fs::path> runs;
    std::error_code problem;
    for (fs::directory_iterator entry(directory, problem), end; !problem && entry != end; entry.increment(problem))
        if (is_run_directory(entry->path())) runs.push_back(entry->path());
    std::sort(runs.begin(), runs.end());
    return runs;
}

/// What was named: runs, directories of runs, and sweeps, which keep theirs in `runs`. What is none of these stays as
/// it is, to be refused by who reads it.
std::vector<fs::path> runs_of(const std::vector<std::string>& names) {
    std::vector<fs::path> runs;
    for (const fs::path name : names) {
        std::vector<fs::path> found;
        if (!is_run_directory(name)) {
            found = runs_in(name);
            if (found.empty()) found = runs_in(name / "runs");
        }
        if (found.empty()) found.push_back(name);
        runs.insert(runs.end(), found.begin(), found.end());
    }
    return runs;
}

int write_report(const ReportOptions& options) {
    // A page takes the place of the one before; anything else that has this name was not meant.
    const fs::path out = options.out;
    if (out.extension() != ".html" && out.extension() != ".htm")
        throw UsageError("--out: " + printable(options.out, 200) + "; expected a file whose name ends in .html");
    std::printf("%s: %s\n", options.out.c_str(), write_page(runs_of(options.runs), out).c_str());
    return kDone;
}

} // namespace

void add_report(CLI::App& app, Action& action) {
    auto options = std::make_shared<ReportOptions>();
    CLI::App* command = app.add_subcommand("report", "Runs as one HTML page with charts, which needs no network");
    command->add_option("RUN", options->runs, "Run directories, or directories of runs")->required()->type_name("");
    command->add_option("-o,--out", options->out, "File to write; a page that is there is replaced")
        ->required()
        ->type_name("FILE.html");
    command->footer("Example: ballast report runs/pre runs/post -o report.html");
    command->callback([options, &action] { action = [options] { return write_report(*options); }; });
}
