#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ballast/train/trainer.h"
#include "command.h"
#include "display.h"
#include "dry_run.h"
#include "training.h"

namespace {

struct TrainOptions {
    std::string config;
    std::string out;
    std::vector<std::string> overrides;
    int threads = 0;
    bool dry_run = false;
};

int train(const TrainOptions& options) {
    use_threads(options.threads);
    const ballast::Config config = load_config_to_use(options.config, options.overrides);
    const auto with_data = [&](auto&& use) { return with_data_of(config, options.config, options.overrides, use); };
    if (options.dry_run) return with_data([&] { return dry_run(config); });

    Display display(Terminal::of_output());
    const ballast::Log log = display.log();
    log_machine(log);
    const std::filesystem::path out =
        options.out.empty() ? std::filesystem::path("runs") / config.name : std::filesystem::path(options.out);
    ballast::Trainer trainer = with_data([&] { return ballast::Trainer::start(config, out, log); });
    log_run(log, config, trainer.data(), trainer.learner().table().count());
    return train_and_report(trainer, display);
}

} // namespace

void add_train(CLI::App& app, Action& action) {
    auto options = std::make_shared<TrainOptions>();
    CLI::App* command = app.add_subcommand("train", "Train a model");
    command->add_option("CONFIG", options->config, "Config file")->required()->type_name("");
    command->add_option("-o,--out", options->out, "Run directory to make [runs/NAME]; it must not exist")
        ->type_name("DIR");
    add_set_option(*command, options->overrides);
    add_threads_option(*command, options->threads);
    command->add_flag("--dry-run", options->dry_run,
                      "Make a few steps, say what a run would take (memory, work, time), and write nothing");
    command->footer("Example: ballast train configs/quickstart.json --set model.norm.placement=post --out runs/post");
    command->callback([options, &action] { action = [options] { return train(*options); }; });
}
