#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "ballast/lab/verify.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "runs.h"

namespace {

struct VerifyCommand {
    std::string run;
    std::optional<std::int64_t> from;
    std::optional<std::int64_t> steps;
    int threads = 0;
};

int verify(const VerifyCommand& command) {
    use_threads(command.threads);
    require_run_directory(command.run);
    const ballast::Verification result =
        ballast::verify(command.run, {.from = command.from, .steps = command.steps}, stderr_log());

    for (const std::string& line : result.environment)
        std::printf("environment: %s\n", line.c_str());
    if (result.environment.empty()) std::printf("environment: as recorded\n");
    for (const std::string& line : result.differences)
        std::printf("differs: %s\n", line.c_str());

    const std::string stretch = "steps " + grouped(result.from + 1) + " to " + grouped(result.to);
    std::string compared = plural(result.values, "value") + " of " + plural(result.records, "record");
    for (const std::int64_t step : result.checkpoints)
        compared += ", checkpoint " + grouped(step);
    if (result.proven()) {
        std::printf("proven: %s give the recorded bits on this machine (%s)\n", stretch.c_str(), compared.c_str());
        return kDone;
    }
    std::printf("differs: %s and %s, of %s (%s)\n", plural(result.differing_records, "record").c_str(),
                plural(result.differing_checkpoints, "checkpoint").c_str(), stretch.c_str(), compared.c_str());
    return kDiffers;
}

} // namespace

void add_verify(CLI::App& app, Action& action) {
    auto options = std::make_shared<VerifyCommand>();
    CLI::App* command =
        app.add_subcommand("verify", "Make steps of a run again and prove that they give the same bits");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    command
        ->add_option("--from", options->from,
                     "Checkpoint to start from, 0 for the beginning [the newest that has a later one]")
        ->type_name("STEP");
    command->add_option("--steps", options->steps, "Steps to make [to the next checkpoint]")->type_name("N");
    add_threads_option(*command, options->threads);
    command->footer("Exit status: 0 proven, 1 it cannot be told, 3 something differs.\n"
                    "Example: ballast verify runs/quickstart --from 0 --steps 100");
    command->callback([options, &action] { action = [options] { return verify(*options); }; });
}
