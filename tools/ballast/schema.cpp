#include <cstdio>
#include <memory>

#include "ballast/config/describe.h"
#include "ballast/train/reference.h"
#include "command.h"

void add_schema(CLI::App& app, Action& action) {
    auto reference = std::make_shared<bool>(false);
    auto records = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("schema", "Print the JSON schema of a config file");
    command->add_flag("--reference", *reference, "Print the reference page of all keys instead (docs/config.md)");
    command->add_flag("--records", *records, "Print the reference page of a run's records instead (docs/records.md)")
        ->excludes("--reference");
    command->footer("Example: ballast schema > configs/schema.json");
    command->callback([reference, records, &action] {
        action = [reference, records] {
            const std::string text = *reference ? ballast::config_reference()
                                     : *records ? ballast::record_reference()
                                                : ballast::config_schema();
            std::fputs(text.c_str(), stdout);
            return kDone;
        };
    });
}
