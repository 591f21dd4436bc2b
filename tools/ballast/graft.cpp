#include "ballast/train/graft.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ballast/train/trainer.h"
#include "command.h"
#include "display.h"
#include "format.h"
#include "json.h"
#include "runs.h"
#include "training.h"

using namespace ballast;

namespace {

struct GraftOptions {
    std::string config;
    std::string from;
    std::string checkpoint;
    std::string out;
    std::vector<std::string> overrides;
    int threads = 0;
    bool calibrate = false;
    bool json = false;
};

void print_tensors(const GraftRecord& record) {
    const auto count = [&](const char* fate) { return grouped(record.count(fate)); };
    std::printf("tensors: %s reused, %s new, %s in another shape, %s dropped\n", count("reused").c_str(),
                count("new").c_str(), count("mismatched").c_str(), count("dropped").c_str());
    std::size_t width = 0;
    const auto is_plain = [](const GraftedTensor& tensor) { return tensor.fate == "reused" && tensor.note.empty(); };
    for (const GraftedTensor& tensor : record.tensors)
        if (!is_plain(tensor)) width = std::max(width, tensor.name.size());
    for (const GraftedTensor& tensor : record.tensors)
        if (!is_plain(tensor))
            std::printf("  %-10s  %-*s  %s\n", tensor.fate.c_str(), static_cast<int>(width), tensor.name.c_str(),
                        tensor.note.c_str());
}

void print_drift(const char* title, const GraftDrift& drift) {
    std::printf("%s, on %s targets before any step\n", title, grouped(drift.tokens).c_str());
    if (drift.is_zero()) std::printf("  none: every logit has the bits of the source\n");
    std::printf("  loss %.4f nats in the source, %.4f here\n", unsigned_nan(drift.loss_before),
                unsigned_nan(drift.loss_after));
    std::printf("  logits moved by %.4g on average, %.4g at most; KL %.4g nats\n", unsigned_nan(drift.mean_logit),
                unsigned_nan(drift.max_logit), unsigned_nan(drift.kl));
    if (drift.blocks.empty()) return;
    std::printf("  stream behind block  change   cosine  RMS in the source     here\n");
    for (std::size_t i = 0; i < drift.blocks.size(); ++i) {
        const BlockDrift& block = drift.blocks[i];
        std::printf("  %19zu  %6.3f  %7.4f  %17.4g  %7.4g\n", i, unsigned_nan(block.change), unsigned_nan(block.cosine),
                    unsigned_nan(block.rms_before), unsigned_nan(block.rms_after));
    }
}

void print_record(const GraftRecord& record) {
    std::printf("source: %s, checkpoint of step %s\n", record.source.c_str(), grouped(record.source_step).c_str());
    for (const KeyDifference& change : record.changes)
        std::printf("changed: %s from %s to %s\n", change.path.c_str(), change.a.c_str(), change.b.c_str());
    print_tensors(record);
    if (record.uncalibrated) print_drift("drift without calibration", *record.uncalibrated);
    print_drift(record.calibrated ? "drift with calibrated norms" : "drift", record.drift);
    std::printf("optimizer: moments, steps, schedule and batches begin anew\n");
}

/// The model alone; nothing is written.
GraftRecord graft_only(const Config& config, const Log& log) {
    const Dataset data(data_options(config));
    const std::unique_ptr<GraftSource> source = load_graft_source(config.init_from, log);
    ParamTable table;
    const Transformer model(table, config.model, data.vocab_size());
    table.allocate(config.seed);
    return ballast::graft(*source, config, data, table, model);
}

int graft(const GraftOptions& options) {
    use_threads(options.threads);
    const Log log = stderr_log();
    std::vector<std::string> overrides = options.overrides;
    if (!options.from.empty()) {
        require_run_directory(options.from);
        overrides.push_back("init_from.run=" + json::text(options.from));
    }
    if (!options.checkpoint.empty()) overrides.push_back("init_from.checkpoint=" + json::text(options.checkpoint));
    if (options.calibrate) overrides.emplace_back("init_from.calibrate=true");
    const Config config = load_config_to_use(options.config, overrides);
    if (config.init_from.run.empty())
        throw UsageError("--from: not given, and " + options.config +
                         " has no init_from.run; expected a run to start "
                         "from");
    const auto with_data = [&](auto&& use) { return with_data_of(config, options.config, overrides, use); };

    GraftRecord record;
    if (options.out.empty())
        record = with_data([&] { return graft_only(config, log); });
    else
        record = *with_data([&] { return Trainer::start(config, options.out, log); }).graft();
    if (options.json)
        std::printf("%s\n", to_json(record).c_str());
    else
        print_record(record);
    if (!options.out.empty() && !options.json)
        std::printf("next: ballast resume %s\n", shell_word(options.out).c_str());
    return kDone;
}

} // namespace

void add_graft(CLI::App& app, Action& action) {
    auto options = std::make_shared<GraftOptions>();
    CLI::App* command = app.add_subcommand(
        "graft", "Start a model from a run of another architecture, and measure how far it is from it");
    command->add_option("CONFIG", options->config, "Config file of the new model")->required()->type_name("");
    command->add_option("--from", options->from, "Run to start from [init_from.run of the config]")->type_name("RUN");
    command->add_option("--checkpoint", options->checkpoint, "A step of it, newest, or best [newest]")
        ->type_name("STEP");
    command
        ->add_option("-o,--out", options->out,
                     "Run directory to make, for ballast resume; without it nothing is written")
        ->type_name("DIR");
    command->add_flag("--calibrate", options->calibrate, "Fit new norms to what the source has in their places");
    add_set_option(*command, options->overrides);
    add_threads_option(*command, options->threads);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast graft configs/norm/post.json --from runs/pre --calibrate");
    command->callback([options, &action] { action = [options] { return graft(*options); }; });
}
