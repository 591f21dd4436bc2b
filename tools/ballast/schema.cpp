#include <cstdio>
#include <memory>

#include "ballast/config/describe.h"
#include "command.h"

void add_schema(CLI::App& app, Action& action) {
    auto reference = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("schema", "Print the JSON schema of a config file");
    command->add_flag("--reference", *reference, "Print the reference page of all keys instead (docs/config.md)");
    command->footer("Example: ballast schema > configs/schema.json");
    command->callback([reference, &action] {
        action = [reference] {
            std::fputs((*reference ? ballast::config_reference() : ballast::config_schema()).c_str(), stdout);
            return kDone;
        };
    });
}
