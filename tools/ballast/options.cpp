#include <algorithm>

#include "ballast/base/parallel.h"
#include "command.h"

void add_set_option(CLI::App& command, std::vector<std::string>& overrides) {
    // Without allow_extra_args(false) a vector takes all the words that follow, the config file among them.
    command.add_option("--set", overrides, "Override a key of the config; may be repeated")
        ->type_name("KEY=VALUE")
        ->allow_extra_args(false);
}

void add_checkpoint_option(CLI::App& command, std::string& checkpoint) {
    command.add_option("--checkpoint", checkpoint, "A step, newest, or best: lowest validation loss")
        ->type_name("STEP")
        ->capture_default_str();
}

void add_threads_option(CLI::App& command, int& threads) {
    constexpr int kMostThreads = 1024;
    command.add_option("--threads", threads, "Worker threads [all processors]; results do not depend on it")
        ->type_name("N")
        ->check(CLI::Range(1, kMostThreads));
}

void use_threads(int threads) { ballast::set_threads(threads > 0 ? threads : ballast::available_processors()); }
