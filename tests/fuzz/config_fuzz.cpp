// Config files and overrides: the text of a file, and overrides after it, each behind a NUL.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "fuzz/target.h"

using namespace ballast;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    const std::string_view text = take_until(rest, '\0');
    std::vector<std::string> overrides;
    while (!rest.empty())
        overrides.emplace_back(take_until(rest, '\0'));

    const std::filesystem::path file = scratch() / "config.json";
    Config config;
    try {
        config = config_from_json(text, file, overrides);
    } catch (const ConfigError& error) {
        require(!error.problems().empty(), "a refused config has a mistake");
        for (const ConfigProblem& problem : error.problems())
            require_message(problem.text());
        return 0;
    }
    require(validate(config).empty(), "an accepted config is valid");
    const std::filesystem::path run = ("runs" / std::filesystem::path(config.name)).lexically_normal();
    require(run.parent_path() == "runs" && run.has_filename(), "a run's directory is one of runs/");

    const std::string written = to_json(config);
    const Config again = config_from_json(written, file);
    require(diff(config, again).empty() && to_json(again) == written, "a written config reads back");
    return 0;
}
