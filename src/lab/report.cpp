#include "ballast/lab/report.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "report_page.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

ReportedRun read_reported_run(const fs::path& path) {
    ReportedRun run;
    run.path = path;
    const RunDirectory directory = RunDirectory::open(path);
    run.record = read_run(path);
    static_cast<void>(directory.environment()); // throws for what is none
    run.environment_json = read_file(directory.environment_path());
    std::error_code ignored;
    if (fs::exists(directory.summary_path(), ignored)) {
        run.summary = directory.summary();
        run.result = read_result(path, run.record.config);
        run.summary_json = read_file(directory.summary_path());
    }
    return run;
}

std::string name_of(const fs::path& path) {
    const fs::path normal = (path / "").lexically_normal().parent_path(); // "runs/a", "runs/a/" and "runs/./a"
    return normal.filename().string();
}

void label_runs(std::vector<ReportedRun>& runs) {
    std::map<std::string, int> times;
    for (const ReportedRun& run : runs)
        ++times[name_of(run.path)];
    for (ReportedRun& run : runs) {
        run.label = name_of(run.path);
        // "." has no name of its own.
        if (times[run.label] > 1 || run.label.empty() || run.label == "." || run.label == "..")
            run.label = run.path.string();
    }
}

} // namespace

Report read_report(std::span<const fs::path> paths) {
    Report report;
    std::vector<fs::path> seen;
    for (const fs::path& path : paths) {
        std::error_code problem;
        const fs::path place = fs::weakly_canonical(path, problem);
        if (!problem && std::find(seen.begin(), seen.end(), place) != seen.end()) continue;
        seen.push_back(place);
        try {
            report.runs.push_back(read_reported_run(path));
        } catch (const Error& error) {
            std::string what = error.what();
            if (const std::string prefix = path.string() + ": "; what.starts_with(prefix)) what.erase(0, prefix.size());
            report.unreadable.push_back({path, std::move(what)});
        }
    }
    label_runs(report.runs);
    return report;
}

std::string report_page(const Report& report) {
    std::string page(report_page_head());
    page += report_data(report);
    page += report_page_tail();
    return page;
}

} // namespace ballast
