#include "sweep_memory.h"

#include <cstdint>
#include <map>
#include <set>

#include "ballast/base/error.h"
#include "ballast/base/memory.h"
#include "ballast/config/describe.h"
#include "ballast/train/learner.h"
#include "ballast/train/memory.h"

using namespace ballast;

namespace {

/// What is known of data that was read; cells share it.
class KnownData {
public:
    struct Facts {
        std::int64_t vocabulary = 0;
        std::int64_t process_bytes = 0; ///< of a process that holds it
    };

    const Facts& of(const Config& config) {
        Config data; // what the reading of data depends on
        data.data = config.data;
        data.model.context = config.model.context;
        const std::string key = to_json(data);
        if (const auto known = facts_.find(key); known != facts_.end()) return known->second;
        const Dataset dataset(data_options(config));
        return facts_[key] = {dataset.vocab_size(), resident_memory()};
    }

private:
    std::map<std::string, Facts> facts_;
};

} // namespace

std::vector<double> memory_of_cells(const Grid& grid, const std::string& file) {
    std::vector<double> bytes;
    std::vector<std::string> problems;
    std::set<std::string> known;
    KnownData data;
    const std::int64_t limit = memory_limit();
    for (const GridCell& cell : grid.cells) {
        try {
            const KnownData::Facts& facts = data.of(cell.config);
            const MemoryEstimate estimate = estimate_memory(cell.config, facts.vocabulary, facts.process_bytes);
            require_memory(estimate, limit);
            bytes.push_back(estimate.bytes());
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
