#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/config/describe.h"
#include "ballast/config/grid.h"
#include "ballast/data/dataset.h"
#include "ballast/train/learner.h"
#include "command.h"
#include "errors.h"
#include "format.h"
#include "training.h"

using namespace ballast;

namespace {

namespace fs = std::filesystem;

struct CheckOptions {
    std::vector<std::string> configs;
    std::vector<std::string> overrides;
};

/// A config may come before its data; everything else about it is known to be good.
bool lacks_data(const Config& config) {
    std::error_code ignored;
    return config.data.task.kind == TaskKind::none && !fs::exists(config.data.path, ignored);
}

/// All configs of a sweep, and the data that they name.
void check_sweep(const std::string& file, std::span<const std::string> overrides) {
    const Grid grid = load_grid(file, overrides);
    std::set<std::string> known, missing;
    for (const GridCell& cell : grid.cells) {
        if (!known.insert(data_key(cell.config)).second) continue;
        if (lacks_data(cell.config)) {
            missing.insert(cell.config.data.path);
            continue;
        }
        try {
            Dataset(data_options(cell.config));
        } catch (const Error& error) {
            throw UsageError(file + ": cell " + cell.name + ": " + error.what());
        }
    }
    std::printf("%s: ok, a sweep of %s", file.c_str(),
                plural(static_cast<std::int64_t>(grid.cells.size()), "run").c_str());
    for (const std::string& path : missing)
        std::printf(", but %s does not exist yet", path.c_str());
    std::printf("\n");
}

/// Reads a config, or a sweep of them, and the data it names; says on standard output that both are good, or throws.
void check_one(const std::string& file, std::span<const std::string> overrides) {
    // `ballast check configs/*.json` meets the schema as well.
    if (fs::path(file).filename() == "schema.json") {
        if (read_file(file) != config_schema())
            throw DataError(file + ": not the schema of this version; expected the output of ballast schema");
        std::printf("%s: ok, the schema of config files\n", file.c_str());
        return;
    }
    if (is_sweep_file(file)) return check_sweep(file, overrides);
    const Config config = load_config_to_use(file, overrides);
    if (lacks_data(config)) {
        std::printf("%s: ok, but %s does not exist yet\n", file.c_str(), config.data.path.c_str());
        return;
    }
    with_data_of(config, file, overrides, [&] { return Dataset(data_options(config)); });
    std::printf("%s: ok\n", file.c_str());
}

int check(const CheckOptions& options) {
    int status = kDone;
    std::set<std::string> reported;
    for (const std::string& file : options.configs) {
        try {
            check_one(file, options.overrides);
        } catch (const ConfigError& error) {
            // Files that extend the same base share its mistakes.
            for (const ConfigProblem& problem : error.problems())
                if (reported.insert(problem.text()).second) print_error(problem.text());
            status = kUsage;
        } catch (const Error& error) {
            print_error(error.what());
            status = kUsage;
        }
        std::fflush(stdout);
    }
    return status;
}

} // namespace

void add_check(CLI::App& app, Action& action) {
    auto options = std::make_shared<CheckOptions>();
    CLI::App* command =
        app.add_subcommand("check", "Find every mistake in config files and sweep files, and in the data they name");
    command->add_option("CONFIG", options->configs, "Config files, sweep files")->required()->type_name("");
    add_set_option(*command, options->overrides);
    command->footer("Example: ballast check configs/*.json");
    command->callback([options, &action] { action = [options] { return check(*options); }; });
}
