#include "ballast/lab/report.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "command.h"
#include "errors.h"
#include "runs.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

struct ReportOptions {
    std::vector<std::string> runs;
    std::string out;
};

/// Run directories, or those in the directories that were named.
std::vector<fs::path> runs_of(const std::vector<std::string>& names) {
    return {names.begin(), names.end()};
}

int write_report(const ReportOptions& options) {
    // A page takes the place of the one before; anything else that has this name was not meant.
    const fs::path out = options.out;
    if (out.extension() != ".html" && out.extension() != ".htm")
        throw UsageError("--out: " + printable(options.out, 200) + "; expected a file whose name ends in .html");
    const Report report = read_report(runs_of(options.runs));
    for (const UnreadableRun& run : report.unreadable)
        print_error(run.problem);
    if (report.runs.empty()) return kFailure;
    const std::string page = report_page(report);
    write_file_atomic(out, page);
    std::printf("%s: %zu run%s, %s\n", options.out.c_str(), report.runs.size(), report.runs.size() == 1 ? "" : "s",
                byte_size(static_cast<double>(page.size())).c_str());
    return report.unreadable.empty() ? kDone : kFailure;
}

} // namespace

void add_report(CLI::App& app, Action& action) {
    auto options = std::make_shared<ReportOptions>();
    CLI::App* command = app.add_subcommand("report", "Runs as one HTML page with charts, which needs no network");
    command->add_option("RUN", options->runs, "Run directories")->required()->type_name("");
    command->add_option("-o,--out", options->out, "File to write; a page that is there is replaced")
        ->required()
        ->type_name("FILE.html");
    command->footer("Example: ballast report runs/pre runs/post -o report.html");
    command->callback([options, &action] { action = [options] { return write_report(*options); }; });
}
