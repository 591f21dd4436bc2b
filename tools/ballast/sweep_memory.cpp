#include "sweep_memory.h"

#include <cstdint>
#include <map>
#include <set>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "ballast/config/describe.h"
#include "ballast/train/graft.h"
#include "ballast/train/learner.h"
#include "ballast/train/memory.h"
#include "runs.h"
#include "training.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

/// What is known of data that was read; cells share it.
class KnownData {
public:
    struct Facts {
        std::int64_t vocabulary = 0;
        Tokenizer tokenizer = Tokenizer::bytes();
        std::int64_t process_bytes = 0; ///< of a process that holds it
    };

    const Facts& of(const Config& config) {
        const std::string key = data_key(config);
        if (const auto known = facts_.find(key); known != facts_.end()) return known->second;
        const Dataset dataset(data_options(config));
        return facts_[key] = {dataset.vocab_size(), dataset.tokenizer(), resident_memory()};
    }

private:
    std::map<std::string, Facts> facts_;
};

/// What is known of runs to start from.
class KnownSources {
public:
    const GraftSourceInfo& of(const InitFromConfig& init) {
        const auto key = std::pair(init.run, init.checkpoint);
        if (const auto known = sources_.find(key); known != sources_.end()) return known->second;
        return sources_.emplace(key, read_graft_source(init)).first->second;
    }

private:
    std::map<std::pair<std::string, std::string>, GraftSourceInfo> sources_;
};

} // namespace

std::vector<double> memory_of_cells(const Grid& grid, const std::string& file, const fs::path& sweep) {
    std::vector<double> bytes;
    std::vector<std::string> problems;
    std::set<std::string> known;
    KnownData data;
    KnownSources sources;
    const std::int64_t limit = memory_limit();
    for (const GridCell& cell : grid.cells) {
        try {
            const KnownData::Facts& facts = data.of(cell.config);
            const MemoryEstimate estimate = estimate_memory(cell.config, facts.vocabulary, facts.process_bytes);
            require_memory(estimate, limit);
            bytes.push_back(estimate.bytes());
            // A run that has begun needs its source no more.
            const InitFromConfig& start = cell.config.init_from;
            if (!start.run.empty() && !is_run_directory(sweep / "runs" / cell.name))
                require_fit(sources.of(start), cell.config, facts.tokenizer, facts.vocabulary);
        } catch (const Error& error) {
            if (known.insert(error.what()).second)
                problems.push_back(file + ": cell " + cell.name + ": " + error.what());
        }
    }
    if (problems.empty()) return bytes;
    std::string text;
    for (const std::string& problem : problems)
        text += (text.empty() ? "" : "\n") + problem;
    throw UsageError(text);
}
