// What a sweep is made of. The first byte says of what kind the rest is: `f` a sweep file, which may name base.json;
// `d` sweep.json in the directory of a sweep.

#include <cstddef>
#include <cstdint>
#include <set>

#include "ballast/base/error.h"
#include "ballast/config/describe.h"
#include "ballast/config/grid.h"
#include "ballast/config/load.h"
#include "ballast/lab/sweep.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

void use_file(std::string_view text) {
    static const bool has_base = (write_text(scratch() / "base.json", R"({"train": {"steps": 3}})"), true);
    require(has_base, "there is a base");
    const std::filesystem::path file = scratch() / "grid.json";
    write_text(file, text);
    Grid grid;
    try {
        grid = load_grid(file);
    } catch (const ConfigError& error) {
        require(!error.problems().empty(), "a refused sweep has a mistake");
        for (const ConfigProblem& problem : error.problems())
            require_message(problem.text());
        return;
    }
    require(!grid.cells.empty() && grid.cells.size() <= kMaxCells, "a sweep has cells, and not too many");
    std::set<std::string> names;
    for (const GridCell& cell : grid.cells) {
        require(names.insert(cell.name).second, "every cell has a name of its own");
        require(cell.name.find('/') == std::string::npos && cell.name.front() != '.', "a cell stays in its sweep");
        require(cell.settings.size() == grid.axes.size(), "a cell has a setting for every axis");
        require(cell.config.name == cell.name && cell.config.seed == cell.seed, "a cell's config is its own");
        require(validate(cell.config).empty(), "a cell's config is valid");
    }
    const std::string written = to_json(grid.cells.back().config);
    require(to_json(config_from_json(written, file)) == written, "a written config reads back");
}

void use_directory(std::string_view text) {
    const std::filesystem::path sweep = scratch() / "sweep";
    std::filesystem::create_directories(sweep / "configs");
    write_text(sweep / "sweep.json", text);
    for (const SweepRun& run : runs_of_sweep(sweep)) {
        require(run.path.lexically_normal().parent_path() == sweep / "runs", "a run is in its sweep");
        require_message(run.name);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    try {
        if (data[0] == 'f') use_file(text);
        if (data[0] == 'd') use_directory(text);
    } catch (const IoError& error) {
        require_message(error.what());
    }
    return 0;
}
