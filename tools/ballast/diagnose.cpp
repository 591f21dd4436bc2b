#include "ballast/lab/diagnose.h"

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "ballast/base/text.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "json.h"
#include "runs.h"

using namespace ballast;

namespace {

struct DiagnoseOptions {
    std::string run;
    bool json = false;
};

void print_text(const RunRecord& run, const std::vector<Diagnosis>& found) {
    std::printf("verdict: %s\n",
                run.verdict.empty() ? "none yet; the run has no summary" : printable(run.verdict).c_str());
    for (const Event& event : run.events)
        if (event.kind != "gradient_spike")
            std::printf("step %lld: %s\n", static_cast<long long>(event.step), printable(event.message).c_str());
    if (!run.onset.empty()) std::printf("began: %s\n", printable(run.onset).c_str());
    if (found.empty())
        std::printf("\nno cause found: %s\n",
                    run.events.empty() ? "nothing has happened" : "none of the known signatures is there");
    for (std::size_t i = 0; i < found.size(); ++i) {
        const Diagnosis& cause = found[i];
        std::printf("\n%zu. %s (%s, confidence %.0f %%)\n", i + 1, cause.meaning.c_str(), cause.cause.c_str(),
                    100 * cause.confidence);
        for (const std::string& line : cause.evidence)
            std::printf("   - %s\n", line.c_str());
        std::printf("   try: %s\n", cause.advice.c_str());
        if (!cause.source.empty()) std::printf("   source: %s\n", cause.source.c_str());
    }
}

void print_json(const RunRecord& run, const std::vector<Diagnosis>& found) {
    std::vector<std::string> causes;
    for (const Diagnosis& cause : found) {
        std::vector<std::string> evidence;
        for (const std::string& line : cause.evidence)
            evidence.push_back(json::text(line));
        causes.push_back(json::object({{"cause", json::text(cause.cause)},
                                       {"meaning", json::text(cause.meaning)},
                                       {"confidence", json::number(cause.confidence)},
                                       {"evidence", json::array(evidence)},
                                       {"advice", json::text(cause.advice)},
                                       {"source", json::text(cause.source)}}));
    }
    std::vector<std::string> doubts;
    for (const std::string& doubt : run.doubts)
        doubts.push_back(json::text(doubt));
    const std::string line = json::object({{"verdict", json::text(run.verdict)},
                                           {"onset", json::text(run.onset)},
                                           {"doubts", json::array(doubts)},
                                           {"causes", json::array(causes)}});
    std::printf("%s\n", line.c_str());
}

int diagnose_run(const DiagnoseOptions& options) {
    require_run_directory(options.run);
    const RunRecord run = read_run(options.run);
    for (const std::string& doubt : run.doubts)
        stderr_log().warn("the record may not be that of one run: " + doubt);
    const std::vector<Diagnosis> found = diagnose(run);
    if (options.json)
        print_json(run, found);
    else
        print_text(run, found);
    return kDone;
}

} // namespace

void add_diagnose(CLI::App& app, Action& action) {
    auto options = std::make_shared<DiagnoseOptions>();
    CLI::App* command = app.add_subcommand("diagnose", "Why a run was unstable: causes, ranked by the evidence");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast diagnose runs/quickstart");
    command->callback([options, &action] { action = [options] { return diagnose_run(*options); }; });
}
