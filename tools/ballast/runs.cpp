#include "runs.h"

#include <optional>
#include <system_error>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/kernels/gemm.h"
#include "ballast/train/choose_checkpoint.h"
#include "format.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

/// The run beside `path`, or in runs/, whose name is nearest.
std::optional<fs::path> similar_run(const fs::path& path) {
    if (is_run_directory("runs" / path)) return "runs" / path;
    for (const fs::path& parent : {path.parent_path(), fs::path("runs")}) {
        std::vector<std::string> names;
        std::error_code problem;
        for (fs::directory_iterator entry(parent.empty() ? fs::path(".") : parent, problem), end;
             !problem && entry != end; entry.increment(problem))
            if (is_run_directory(entry->path())) names.push_back(entry->path().filename().string());
        const std::vector<std::string_view> candidates(names.begin(), names.end());
        const std::string_view found = nearest(path.filename().string(), candidates);
        if (!found.empty()) return parent / found;
    }
    return {};
}

} // namespace

void require_run_directory(const fs::path& path) {
    if (is_run_directory(path)) return;
    const std::string start = path.string() + ": ";
    if (!is_there(path)) {
        const std::optional<fs::path> similar = similar_run(path);
        throw UsageError(start + "no such run directory" +
                         (similar ? "; did you mean " + similar->string() + "?" : ""));
    }
    std::error_code ignored;
    if (!fs::is_directory(path, ignored))
        throw UsageError(start + "a file; expected a run directory. If it is a config, train it first: ballast train " +
                         shell_word(path));
    if (is_there(path / "state.json"))
        throw UsageError(start + "a checkpoint; expected its run directory, with --checkpoint STEP to choose one");
    throw UsageError(start + "not a run directory; expected one that ballast train has made");
}

TrainedModel load_model(const fs::path& run, const std::string& checkpoint, const Log& log) {
    require_run_directory(run);
    pin_blas();
    TrainedModel trained;
    trained.checkpoint = choose_checkpoint(run, checkpoint, log);
    const CheckpointInfo info = read_checkpoint_info(trained.checkpoint);
    trained.config = config_from_json(info.config_json, trained.checkpoint / "config.json");
    trained.table = std::make_unique<ParamTable>();
    trained.model = std::make_unique<Transformer>(*trained.table, trained.config.model, info.state.vocab_size);
    trained.table->allocate(trained.config.seed);
    trained.state = load_parameters(trained.checkpoint, *trained.table);
    return trained;
}
