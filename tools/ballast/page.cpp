#include "page.h"

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "ballast/lab/report.h"
#include "errors.h"
#include "format.h"

using namespace ballast;

std::string write_page(std::span<const std::filesystem::path> runs, const std::filesystem::path& out) {
    const Report report = read_report(runs);
    for (const UnreadableRun& run : report.unreadable)
        print_error(run.path.string() + ": left out: " + run.problem);
    if (report.runs.empty()) throw UsageError("none of the runs can be read; no page is written");
    const std::string page = report_page(report);
    write_file_atomic(out, page);
    return plural(static_cast<std::int64_t>(report.runs.size()), "run") + ", " +
           byte_size(static_cast<double>(page.size()));
}
