#include "ballast/lab/sweep.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <fcntl.h>
#include <map>
#include <nlohmann/json.hpp>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "train/json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::ordered_json;

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

fs::path manifest_path(const fs::path& sweep) { return sweep / "sweep.json"; }

constexpr auto kFolders = std::to_array<std::string_view>({"configs", "runs", "logs"});

/// Whether `path` is empty, or what a process leaves that dies before there is a sweep.json.
bool is_unfinished_sweep(const fs::path& path) {
    std::error_code problem;
    for (fs::directory_iterator entry(path, problem), end; !problem && entry != end; entry.increment(problem)) {
        const std::string name = entry->path().filename().string();
        if (name != "lock" && name.find("sweep.json") == std::string::npos &&
            std::find(kFolders.begin(), kFolders.end(), name) == kFolders.end())
            return false;
    }
    return !problem;
}

SweepRun make_run(const fs::path& sweep, const GridCell& cell) {
    return {cell.name, cell.settings, cell.seed, sweep / "runs" / cell.name};
}

std::string manifest_text(const Grid& grid) {
    Json runs = Json::array();
    for (const GridCell& cell : grid.cells) {
        Json settings = Json::object();
        for (const Setting& setting : cell.settings)
            settings[setting.axis] = setting.value;
        runs.push_back({{"name", cell.name}, {"settings", std::move(settings)}, {"seed", cell.seed}});
    }
    const Json manifest = {{"name", grid.name}, {"axes", grid.axes}, {"runs", std::move(runs)}};
    return manifest.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

/// A name that leads to a directory within the sweep's, and that a terminal may show.
std::string file_name_in(const Json& run) {
    std::string name;
    read_value(member_of(run, "name"), "name", name);
    if (name.empty() || name.front() == '.' || name.find('/') != std::string::npos ||
        printable(name, name.size()) != name)
        refuse_value("name", "the name of a run");
    return name;
}

SweepRun run_from(const Json& json, const fs::path& sweep) {
    SweepRun run;
    run.name = file_name_in(json);
    const Json& settings = member_of(json, "settings");
    if (!settings.is_object()) refuse_value("settings", "an object");
    for (const auto& [axis, value] : settings.items())
        read_value(value, printable(axis, 60), run.settings.emplace_back(Setting{axis, ""}).value);
    const Json& seed = member_of(json, "seed");
    if (!seed.is_number_unsigned()) refuse_value("seed", "an integer of at least 0");
    run.seed = seed.get<std::uint64_t>();
    run.path = sweep / "runs" / run.name;
    return run;
}

/// What makes the sweep in `path` another one than `grid`, a line each.
std::vector<std::string> differences(const fs::path& path, const Grid& grid) {
    std::map<std::string, const GridCell*> cells;
    for (const GridCell& cell : grid.cells)
        cells[cell.name] = &cell;
    std::vector<std::string> lines;
    for (const SweepRun& run : runs_of_sweep(path)) {
        const auto cell = cells.find(run.name);
        if (cell == cells.end()) {
            lines.push_back("run " + run.name + " is not in the sweep any more");
            continue;
        }
        const fs::path file = path / "configs" / (run.name + ".json");
        for (const KeyDifference& key : diff(config_from_json(read_file(file), file), cell->second->config))
            lines.push_back("run " + run.name + ": " + key.path + " is " + key.a + " in the directory, " + key.b +
                            " in the sweep");
    }
    return lines;
}

void refuse_another_sweep(const fs::path& path, const std::vector<std::string>& lines) {
    if (lines.empty()) return;
    constexpr std::size_t kMostShown = 10;
    std::string text = path.string() + ": the directory of another sweep; choose another --out, or undo what differs";
    for (std::size_t i = 0; i < std::min(lines.size(), kMostShown); ++i)
        text += "\n" + path.string() + ": " + lines[i];
    if (lines.size() > kMostShown)
        text += "\n" + path.string() + ": and " + std::to_string(lines.size() - kMostShown) + " more differences";
    throw UsageError(text);
}

void make_directory(const fs::path& path) {
    std::error_code problem;
    fs::create_directories(path, problem);
    if (problem) throw IoError(path.string() + ": cannot make the directory: " + problem.message());
}

/// Returns the descriptor that holds the lock. The processes of the runs do not inherit it.
int take_lock(const fs::path& sweep) {
    const fs::path path = sweep / "lock";
    const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) throw IoError(path.string() + ": cannot lock: " + std::generic_category().message(errno));
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return descriptor;
    const int reason = errno;
    ::close(descriptor);
    if (reason == EWOULDBLOCK) throw UsageError(sweep.string() + ": another process runs this sweep");
    throw IoError(path.string() + ": cannot lock: " + std::generic_category().message(reason));
}

} // namespace

bool is_sweep_directory(const fs::path& path) { return is_there(manifest_path(path)) && is_there(path / "configs"); }

std::vector<SweepRun> runs_of_sweep(const fs::path& sweep) {
    if (!is_sweep_directory(sweep))
        throw UsageError(sweep.string() + ": not the directory of a sweep; expected one that ballast sweep has made");
    const fs::path manifest = manifest_path(sweep);
    std::vector<SweepRun> runs;
    try {
        const auto json = parse_object<Json>(read_file(manifest));
        const Json& listed = member_of(json, "runs");
        if (!listed.is_array()) refuse_value("runs", "an array");
        for (const Json& run : listed)
            runs.push_back(run_from(run, sweep));
    } catch (const IoError& error) {
        const std::string what = error.what();
        throw IoError(what.starts_with(manifest.string()) ? what : manifest.string() + ": " + what);
    }
    return runs;
}

SweepDirectory::SweepDirectory(const fs::path& path, const Grid& grid) : path_(path) {
    if (is_there(path) && !is_sweep_directory(path) && !is_unfinished_sweep(path))
        throw UsageError(path.string() + ": already exists and is no sweep's directory; choose another --out");
    for (const std::string_view part : kFolders)
        make_directory(path / part);
    lock_ = take_lock(path);
    try {
        if (is_there(manifest_path(path))) refuse_another_sweep(path, differences(path, grid));
        for (const GridCell& cell : grid.cells) {
            runs_.push_back(make_run(path, cell));
            const fs::path file = config_path(runs_.back());
            const std::string text = to_json(cell.config);
            if (!is_there(file) || read_file(file) != text) write_file_atomic(file, text);
        }
        // Last: a sweep.json tells that all configs are there.
        write_file_atomic(manifest_path(path), manifest_text(grid));
    } catch (...) {
        ::close(lock_);
        throw;
    }
}

SweepDirectory::~SweepDirectory() {
    if (lock_ >= 0) ::close(lock_);
}

} // namespace ballast
