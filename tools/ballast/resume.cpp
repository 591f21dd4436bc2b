#include <memory>
#include <string>
#include <vector>

#include "ballast/train/trainer.h"
#include "command.h"
#include "display.h"
#include "runs.h"
#include "training.h"

namespace {

struct ResumeOptions {
    std::string run;
    std::vector<std::string> overrides;
    int threads = 0;
};

int resume(const ResumeOptions& options) {
    use_threads(options.threads);
    require_run_directory(options.run);
    Display display(Terminal::of_output());
    const ballast::Log log = display.log();
    log_machine(log);
    ballast::Trainer trainer = ballast::Trainer::resume(options.run, options.overrides, log);
    const ballast::Config& config = trainer.config();
    if (trainer.is_finished()) {
        display.line(options.run + ": has made all of its " + std::to_string(trainer.state().step) +
                     " steps; nothing has changed");
        display.line("next: " + extend_command(options.run, trainer.state().step));
        return kDone;
    }
    log_run(log, config, trainer.data(), trainer.learner().table().count());
    log.info("going on from step " + std::to_string(trainer.state().step));
    return train_and_report(trainer, display);
}

} // namespace

void add_resume(CLI::App& app, Action& action) {
    auto options = std::make_shared<ResumeOptions>();
    CLI::App* command = app.add_subcommand("resume", "Go on with a run from its newest whole checkpoint");
    command->add_option("RUN", options->run, "Run directory")->required()->type_name("");
    add_set_option(*command, options->overrides);
    add_threads_option(*command, options->threads);
    command->footer("Example: ballast resume runs/quickstart --set train.steps=3000");
    command->callback([options, &action] { action = [options] { return resume(*options); }; });
}
