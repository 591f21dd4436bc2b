#include "ballast/lab/compare.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "ballast/data/dataset.h"
#include "ballast/nn/transformer.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/learner.h"
#include "ballast/train/metrics.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

std::string_view kind_name(Tokenizer::Kind kind) {
    switch (kind) {
    case Tokenizer::Kind::character: return "char";
    case Tokenizer::Kind::byte: return "byte";
    case Tokenizer::Kind::ids: break;
    }
    return "ids";
}

/// From the newest checkpoint; a run that ended before its first has the data that its config leads to now.
void read_data_facts(ComparedRun& run) {
    if (const NewestCheckpoint newest = newest_checkpoint(run.path); newest.path) {
        const TrainerState state = read_checkpoint_info(*newest.path).state;
        run.tokenizer = kind_name(state.tokenizer.kind());
        run.vocab_size = state.vocab_size;
        run.data_fingerprint = state.data_fingerprint;
        run.skipped_batches = state.skipped_batches;
        return;
    }
    const Dataset data(data_options(run.config));
    run.tokenizer = kind_name(data.tokenizer().kind());
    run.vocab_size = data.vocab_size();
    run.data_fingerprint = data.fingerprint();
}

/// A config without what tells the runs of an arm apart.
Config arm_config(Config config) {
    config.name = Config().name;
    config.seed = Config().seed;
    return config;
}

std::string letter_of(std::size_t index) {
    std::string letters;
    for (std::size_t rest = index + 1; rest > 0; rest = (rest - 1) / 26)
        letters.insert(letters.begin(), static_cast<char>('a' + (rest - 1) % 26));
    return letters;
}

template <class Value>
Sample sample_over(const std::vector<ComparedRun>& runs, Value&& value) {
    std::vector<double> values;
    for (const ComparedRun& run : runs)
        if (const std::optional<double> found = value(run); found && std::isfinite(*found)) values.push_back(*found);
    return sample_of(values);
}

// ---- Initial tensors ------------------------------------------------------------------------------------------------

/// Parameters by "name [shape]" with a checksum of the values that they start with.
std::map<std::string, std::uint64_t> initial_tensors(const ComparedRun& run) {
    if (!run.grafted.empty()) return run.grafted;
    ParamTable table;
    const Transformer model(table, run.config.model, run.vocab_size);
    table.allocate(run.config.seed);
    // What a run took over from another one is in its checkpoint of step 0.
    if (!run.config.init_from.run.empty()) load_parameters(checkpoint_path(run.path, 0), table);
    std::map<std::string, std::uint64_t> tensors;
    for (const Param& param : table.params()) {
        const std::span<const real> values(table.values() + param.offset,
                                           static_cast<std::size_t>(param.shape.elements()));
        tensors[param.name + " " + param.shape.text()] = checksum(std::as_bytes(values));
    }
    return tensors;
}

void compare_tensors(const ComparedRun& baseline, const ComparedRun& run, ArmPair& pair) {
    const std::map<std::string, std::uint64_t> a = initial_tensors(baseline), b = initial_tensors(run);
    for (const auto& [name, sum] : a) {
        const auto other = b.find(name);
        if (other == b.end()) {
            pair.only_in_baseline.push_back(name);
            continue;
        }
        ++pair.shared_tensors;
        if (other->second != sum) pair.other_start.push_back(name);
    }
    for (const auto& [name, sum] : b)
        if (!a.contains(name)) pair.only_in_arm.push_back(name);
}

// ---- Pairs ----------------------------------------------------------------------------------------------------------

const ComparedRun* run_of_seed(const ComparedArm& arm, std::uint64_t seed) {
    for (const ComparedRun& run : arm.runs)
        if (run.config.seed == seed) return &run;
    return nullptr;
}

std::string why_data_differs(const ComparedRun& a, const ComparedRun& b) {
    if (a.tokenizer != b.tokenizer) return "another tokenizer: " + b.tokenizer + " instead of " + a.tokenizer;
    if (a.vocab_size != b.vocab_size)
        return "another vocabulary: of " + std::to_string(b.vocab_size) + " instead of " + std::to_string(a.vocab_size);
    if (a.data_fingerprint != b.data_fingerprint)
        return "other data: fingerprint " + hex_digits(b.data_fingerprint) + " instead of " +
               hex_digits(a.data_fingerprint);
    if (a.result.by_validation != b.result.by_validation) return "only one of them has a validation loss";
    return "";
}

/// The keys in which two runs draw their batches, or the windows of their evaluations, differently.
std::vector<std::string> caveats_of(const ComparedRun& a, const ComparedRun& b) {
    std::vector<std::string> caveats;
    std::string batches, windows;
    const auto differs = [](std::string& keys, bool yes, std::string_view key) {
        if (yes) keys += (keys.empty() ? "" : ", ") + std::string(key);
    };
    differs(batches, a.config.train.batch != b.config.train.batch, "train.batch");
    differs(batches, a.config.model.context != b.config.model.context, "model.context");
    windows = batches;
    differs(windows, a.config.train.eval_batches != b.config.train.eval_batches, "train.eval_batches");
    differs(batches, a.config.data.poison != b.config.data.poison, "data.poison");
    if (!batches.empty()) caveats.push_back("the batches are not the same: " + batches);
    if (a.result.by_validation && !windows.empty())
        caveats.push_back("the validation windows are not the same: " + windows);
    if (a.skipped_batches + b.skipped_batches > 0)
        caveats.emplace_back("the batches are not the same: a rewind has left some out");
    return caveats;
}

PairedDifference difference_of(const std::vector<double>& values) {
    PairedDifference difference;
    difference.sample = sample_of(values);
    difference.interval = confidence_interval(difference.sample);
    if (!difference.interval) return difference;
    difference.verdict = difference.interval->high < 0 ? "lower" : difference.interval->low > 0 ? "higher" : "open";
    return difference;
}

ArmPair compare_arms(const ComparedArm& baseline, const ComparedArm& arm, std::size_t index) {
    ArmPair pair;
    pair.arm = index;
    std::vector<double> final_losses, best_losses;
    std::set<std::string> caveats;
    for (const ComparedRun& run : arm.runs) {
        const ComparedRun* const other = run_of_seed(baseline, run.config.seed);
        if (other == nullptr) continue;
        if (std::string reason = why_data_differs(*other, run); !reason.empty()) {
            pair.refused = std::move(reason);
            pair.seeds.clear();
            return pair;
        }
        if (pair.seeds.empty()) compare_tensors(*other, run, pair); // the seed makes no difference to what they share
        pair.seeds.push_back(run.config.seed);
        for (const std::string& caveat : caveats_of(*other, run))
            if (caveats.insert(caveat).second) pair.caveats.push_back(caveat);
        if (run.result.final_loss && other->result.final_loss)
            final_losses.push_back(*run.result.final_loss - *other->result.final_loss);
        if (run.result.best_loss && other->result.best_loss)
            best_losses.push_back(*run.result.best_loss - *other->result.best_loss);
    }
    if (pair.seeds.empty()) pair.refused = "no seed in common";
    pair.final_loss = difference_of(final_losses);
    pair.best_loss = difference_of(best_losses);
    return pair;
}

// ---- The whole ------------------------------------------------------------------------------------------------------

std::vector<ComparedKey> differing_keys(const std::vector<ComparedArm>& arms) {
    const Config first = arm_config(arms.front().runs.front().config);
    std::vector<std::vector<KeyDifference>> differences;
    std::vector<ComparedKey> keys;
    for (const ComparedArm& arm : arms) {
        differences.push_back(diff(first, arm_config(arm.runs.front().config)));
        for (const KeyDifference& difference : differences.back()) {
            const auto known =
                std::find_if(keys.begin(), keys.end(), [&](const auto& key) { return key.path == difference.path; });
            if (known == keys.end())
                keys.push_back({difference.path, std::vector<std::string>(arms.size(), difference.a)});
        }
    }
    for (ComparedKey& key : keys)
        for (std::size_t i = 0; i < arms.size(); ++i)
            for (const KeyDifference& difference : differences[i])
                if (difference.path == key.path) key.values[i] = difference.b;
    return keys;
}

std::vector<std::string> differing_facts(const std::vector<ComparedArm>& arms) {
    static constexpr auto kFacts =
        std::to_array<std::pair<std::string_view, std::string Environment::*>>({{"version", &Environment::version},
                                                                                {"processor", &Environment::cpu},
                                                                                {"instruction set", &Environment::simd},
                                                                                {"BLAS", &Environment::blas},
                                                                                {"compiler", &Environment::compiler},
                                                                                {"build", &Environment::build}});
    std::vector<std::string> found;
    const Environment& first = arms.front().runs.front().environment;
    const auto add = [&](std::string_view name, auto Environment::*fact) {
        for (const ComparedArm& arm : arms)
            for (const ComparedRun& run : arm.runs)
                if (run.environment.*fact != first.*fact) {
                    found.emplace_back(name);
                    return;
                }
    };
    for (const auto& fact : kFacts)
        add(fact.first, fact.second);
    add("threads", &Environment::threads);
    return found;
}

void measure(ComparedArm& arm, std::optional<double> target) {
    for (const ComparedRun& run : arm.runs)
        ++arm.verdicts[run.result.summary.verdict];
    const auto summary = [&](double RunSummary::*member) {
        return sample_over(arm.runs, [&](const ComparedRun& run) { return std::optional(run.result.summary.*member); });
    };
    arm.best_loss = sample_over(arm.runs, [](const ComparedRun& run) { return run.result.best_loss; });
    arm.loss_spike_score = summary(&RunSummary::loss_spike_score);
    arm.gradient_spike_score = summary(&RunSummary::gradient_spike_score);
    arm.tokens_per_second = summary(&RunSummary::tokens_per_second);
    arm.steps_to_loss = sample_over(arm.runs, [&](const ComparedRun& run) -> std::optional<double> {
        const std::optional<std::int64_t> step = target ? steps_to_loss(run, *target) : std::nullopt;
        if (!step) return {};
        return static_cast<double>(*step);
    });
    arm.norm_cost = explain(arm.runs.front().config, arm.runs.front().vocab_size).norm_cost;
}

} // namespace

ComparedRun read_compared_run(const fs::path& path) {
    const RunDirectory directory = RunDirectory::open(path);
    ComparedRun run;
    run.path = path;
    run.config = config_from_json(directory.config_json(), directory.config_path());
    run.result = read_result(path, run.config);
    if (!run.result.has_ended())
        throw UsageError(path.string() + ": has not ended; go on with it: ballast resume " + path.string());
    run.steps = read_metrics(directory.metrics_path());
    if (const std::int64_t last = run.steps.empty() ? 0 : run.steps.back().step; last < run.result.summary.step)
        throw IoError(directory.metrics_path().string() + ": ends at step " + std::to_string(last) +
                      ", but the run made " + std::to_string(run.result.summary.step) + " steps; records are lost");
    run.environment = directory.environment();
    read_data_facts(run);
    if (!run.config.init_from.run.empty()) run.grafted = initial_tensors(run);
    return run;
}

std::optional<std::int64_t> steps_to_loss(const ComparedRun& run, double target) {
    if (run.result.by_validation) {
        for (const StepRecord& record : run.steps)
            if (record.val_loss && *record.val_loss <= target) return record.step;
        return {};
    }
    constexpr double kShare = 0.05;
    const auto window = static_cast<std::size_t>(
        std::max<std::int64_t>(1, std::llround(kShare * static_cast<double>(run.config.train.steps))));
    for (std::size_t end = window; end <= run.steps.size(); ++end) {
        double sum = 0;
        for (std::size_t i = end - window; i < end; ++i)
            sum += run.steps[i].loss;
        if (sum / static_cast<double>(window) <= target) return run.steps[end - 1].step;
    }
    return {};
}

RunComparison compare_runs(std::vector<ComparedRun> runs, const CompareOptions& options) {
    RunComparison comparison;
    std::map<std::string, std::size_t> arm_of;
    for (ComparedRun& run : runs) {
        const auto [entry, fresh] = arm_of.emplace(to_json(arm_config(run.config)), comparison.arms.size());
        if (fresh) comparison.arms.emplace_back().letter = letter_of(entry->second);
        ComparedArm& arm = comparison.arms[entry->second];
        if (const ComparedRun* same = run_of_seed(arm, run.config.seed))
            comparison.left_out.push_back({run.path, "has the config and seed of " + same->path.string()});
        else
            arm.runs.push_back(std::move(run));
    }
    std::size_t count = 0;
    for (ComparedArm& arm : comparison.arms) {
        std::sort(arm.runs.begin(), arm.runs.end(),
                  [](const ComparedRun& a, const ComparedRun& b) { return a.config.seed < b.config.seed; });
        count += arm.runs.size();
    }
    if (count < 2) {
        std::string text;
        for (const LeftOut& run : comparison.left_out)
            text += run.path.string() + ": left out: " + run.reason + "\n";
        throw UsageError(text + std::to_string(count) + (count == 1 ? " run is left" : " runs are left") +
                         " to compare; expected at least two that have ended");
    }
    const auto baseline = std::find_if(comparison.arms.begin(), comparison.arms.end(),
                                       [&](const ComparedArm& arm) { return arm.letter == options.baseline; });
    if (baseline == comparison.arms.end())
        throw UsageError("--baseline: " + printable(options.baseline, 60) + " is no arm; expected a letter from a to " +
                         comparison.arms.back().letter);
    comparison.baseline = static_cast<std::size_t>(baseline - comparison.arms.begin());
    comparison.by_validation = baseline->runs.front().result.by_validation;
    comparison.keys = differing_keys(comparison.arms);
    comparison.environment = differing_facts(comparison.arms);

    comparison.target_loss = options.target_loss;
    for (ComparedArm& arm : comparison.arms) {
        arm.final_loss = sample_over(arm.runs, [](const ComparedRun& run) { return run.result.final_loss; });
        if (options.target_loss) continue;
        for (const ComparedRun& run : arm.runs)
            if (const std::optional<double>& loss = run.result.final_loss)
                comparison.target_loss = std::max(comparison.target_loss.value_or(*loss), *loss);
    }
    for (std::size_t i = 0; i < comparison.arms.size(); ++i) {
        measure(comparison.arms[i], comparison.target_loss);
        if (i != comparison.baseline)
            comparison.pairs.push_back(compare_arms(comparison.arms[comparison.baseline], comparison.arms[i], i));
    }
    return comparison;
}

} // namespace ballast
