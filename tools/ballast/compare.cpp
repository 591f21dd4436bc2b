#include "ballast/lab/compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/lab/sweep.h"
#include "command.h"
#include "errors.h"
#include "format.h"
#include "json.h"
#include "runs.h"
#include "table.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

struct CompareCommand {
    std::vector<std::string> paths;
    CompareOptions options;
    bool json = false;
};

/// The runs that `paths` name, those of sweeps in their order.
std::vector<fs::path> run_paths(const std::vector<std::string>& paths, std::vector<LeftOut>& left_out) {
    std::vector<fs::path> runs;
    for (const std::string& path : paths) {
        if (!is_sweep_directory(path)) {
            runs.emplace_back(path);
            continue;
        }
        for (const SweepRun& run : runs_of_sweep(path)) {
            if (is_run_directory(run.path))
                runs.push_back(run.path);
            else
                left_out.push_back({run.path, "has not begun"});
        }
    }
    return runs;
}

std::vector<ComparedRun> read_runs(const std::vector<fs::path>& paths, std::vector<LeftOut>& left_out) {
    std::vector<ComparedRun> runs;
    for (const fs::path& path : paths) {
        try {
            require_run_directory(path);
            runs.push_back(read_compared_run(path));
        } catch (const Error& error) {
            std::string what = error.what();
            if (const std::string prefix = path.string() + ": "; what.starts_with(prefix)) what.erase(0, prefix.size());
            left_out.push_back({path, std::move(what)});
        }
    }
    return runs;
}

// ---- Text -----------------------------------------------------------------------------------------------------------

std::string sample_text(const Sample& sample, std::string (*text)(double) = four_digits) {
    return sample.count == 0 ? "-" : with_spread(sample.mean, sample.deviation, text);
}

std::string signed_digits(double value) { return (std::signbit(value) ? "" : "+") + four_digits(value); }

std::string verdicts_text(const ComparedArm& arm) {
    std::string text;
    for (const auto& [verdict, count] : arm.verdicts)
        text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + printable(verdict);
    return text;
}

std::string steps_text(const ComparedArm& arm) {
    const auto runs = static_cast<std::int64_t>(arm.runs.size());
    if (arm.steps_to_loss.count == 0) return "never";
    std::string text = sample_text(arm.steps_to_loss, [](double steps) { return format("%.0f", steps); });
    if (arm.steps_to_loss.count < runs)
        text += " (" + std::to_string(arm.steps_to_loss.count) + " of " + std::to_string(runs) + ")";
    return text;
}

void print_keys(const RunComparison& what) {
    if (what.keys.empty()) {
        std::printf("\nno key differs but the seed\n");
        return;
    }
    std::printf("\nwhat differs\n");
    std::vector<std::vector<std::string>> rows{{"key"}};
    for (const ComparedArm& arm : what.arms)
        rows.front().push_back(arm.letter);
    for (const ComparedKey& key : what.keys) {
        rows.push_back({key.path});
        rows.back().insert(rows.back().end(), key.values.begin(), key.values.end());
    }
    // The longer side of the table goes downwards.
    if (what.arms.size() > what.keys.size() + 3) {
        std::vector<std::vector<std::string>> turned(rows.front().size());
        for (const auto& row : rows)
            for (std::size_t i = 0; i < row.size(); ++i)
                turned[i].push_back(row[i]);
        turned.front().front() = "arm";
        rows = std::move(turned);
    }
    print_table(rows, std::vector<bool>(rows.front().size(), false));
}

void print_arms(const RunComparison& what) {
    const std::string loss = what.by_validation ? "val loss" : "loss";
    std::printf("\nmean over seeds ± standard deviation\n");
    std::vector<std::vector<std::string>> rows{{"arm", "runs", "verdicts", "final " + loss, "best " + loss,
                                                "spike scores", "steps to loss", "tokens/s", "norms", "norm traffic"}};
    for (const ComparedArm& arm : what.arms)
        rows.push_back({arm.letter, std::to_string(arm.runs.size()), verdicts_text(arm), sample_text(arm.final_loss),
                        sample_text(arm.best_loss),
                        format("%.4f, %.4f", arm.loss_spike_score.mean, arm.gradient_spike_score.mean), steps_text(arm),
                        sample_text(arm.tokens_per_second, short_count), std::to_string(arm.norm_cost.norms),
                        byte_size(arm.norm_cost.bytes_per_step)});
    print_table(rows, {false, true, false, true, true, true, true, true, true, true});
    std::printf("  spike scores: of the loss, of the gradient norm");
    if (what.target_loss) std::printf("; steps to a %s of %.4f", loss.c_str(), *what.target_loss);
    std::printf("; norm traffic: of a step\n");
    if (!what.environment.empty()) {
        std::string facts;
        for (const std::string& fact : what.environment)
            facts += (facts.empty() ? "" : ", ") + fact;
        std::printf("  tokens/s does not compare: the runs differ in %s\n", facts.c_str());
    }
}

/// The names of one tensor of every block are one: "blocks.*.ffn.pre_norm.gain [32]".
std::vector<std::string> by_kind(const std::vector<std::string>& names) {
    std::vector<std::string> kinds;
    for (const std::string& name : names) {
        std::string kind = name;
        const std::size_t begin = kind.find('.') + 1;
        const std::size_t end = kind.find('.', begin);
        if (kind.starts_with("blocks.") && end != std::string::npos) kind.replace(begin, end - begin, "*");
        if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(std::move(kind));
    }
    return kinds;
}

std::string first_ones(const std::vector<std::string>& all) {
    const std::vector<std::string> names = by_kind(all);
    constexpr std::size_t kMostShown = 3;
    std::string text;
    for (std::size_t i = 0; i < std::min(names.size(), kMostShown); ++i)
        text += (i == 0 ? "" : ", ") + names[i];
    return names.size() > kMostShown ? text + " and " + std::to_string(names.size() - kMostShown) + " more" : text;
}

/// What the pairs share, in one line, and whether it is all that it should be.
void print_pairing(const RunComparison& what, const ArmPair& pair) {
    const std::string& baseline = what.arms[what.baseline].letter;
    const std::string& arm = what.arms[pair.arm].letter;
    if (!pair.refused.empty()) {
        std::printf("  %s: no paired figures: %s\n", arm.c_str(), pair.refused.c_str());
        return;
    }
    std::string text = "same data";
    if (pair.caveats.empty()) text += " in the same order";
    const std::string shared = std::to_string(pair.shared_tensors) + " shared tensors start";
    if (pair.other_start.empty())
        text += "; " + shared + " alike";
    else if (static_cast<std::int64_t>(pair.other_start.size()) == pair.shared_tensors)
        text += "; none of " + shared + "s alike";
    else
        text += "; " + shared + " alike but " + std::to_string(pair.other_start.size()) + " (" +
                first_ones(pair.other_start) + ")";
    if (!pair.only_in_baseline.empty()) text += "; only in " + baseline + ": " + first_ones(pair.only_in_baseline);
    if (!pair.only_in_arm.empty()) text += "; only in " + arm + ": " + first_ones(pair.only_in_arm);
    std::printf("  %s: %s\n", arm.c_str(), text.c_str());
    for (const std::string& caveat : pair.caveats)
        std::printf("  %s: %s\n", arm.c_str(), caveat.c_str());
}

std::vector<std::string> difference_words(const PairedDifference& difference, const std::string& baseline) {
    if (difference.sample.count == 0) return {"0", "-", "", "no pair with this loss"};
    std::string verdict = "one pair: no interval";
    if (difference.verdict == "open") verdict = "no difference shown";
    if (difference.verdict == "lower" || difference.verdict == "higher")
        verdict = difference.verdict + " than " + baseline;
    return {std::to_string(difference.sample.count), signed_digits(difference.sample.mean),
            difference.interval
                ? "[" + signed_digits(difference.interval->low) + ", " + signed_digits(difference.interval->high) + "]"
                : "",
            verdict};
}

void print_pairs(const RunComparison& what) {
    if (what.pairs.empty()) return;
    const std::string& baseline = what.arms[what.baseline].letter;
    std::printf("\nagainst %s, what the pairs of equal seed share\n", baseline.c_str());
    std::vector<std::vector<std::string>> rows{{"arm", "loss", "n", "difference", "95 % interval", ""}};
    for (const ArmPair& pair : what.pairs) {
        print_pairing(what, pair);
        if (!pair.refused.empty()) continue;
        for (const auto& [name, difference] : {std::pair("final", &pair.final_loss), {"best", &pair.best_loss}}) {
            std::vector<std::string> row{what.arms[pair.arm].letter, name};
            for (std::string& word : difference_words(*difference, baseline))
                row.push_back(std::move(word));
            rows.push_back(std::move(row));
        }
    }
    if (rows.size() == 1) return;
    std::printf("\npaired differences: the arm's loss minus that of %s\n", baseline.c_str());
    print_table(rows, {false, false, true, true, false, false});
}

/// Its file or folder, or "task copy".
std::string data_name(const DataConfig& data) {
    if (data.task.kind == TaskKind::none) return data.path;
    return "task " + std::string(to_string(data.task.kind));
}

void print_text(const RunComparison& what) {
    for (const ComparedArm& arm : what.arms) {
        std::string seeds;
        for (const ComparedRun& run : arm.runs)
            seeds += (seeds.empty() ? "" : ", ") + std::to_string(run.config.seed);
        const fs::path& first = arm.runs.front().path;
        std::printf("%s: %s%s; seed%s %s\n", arm.letter.c_str(), first.c_str(),
                    arm.runs.size() > 1 ? (" and " + std::to_string(arm.runs.size() - 1) + " more").c_str() : "",
                    arm.runs.size() > 1 ? "s" : "", seeds.c_str());
    }
    const ComparedRun& first = what.arms[what.baseline].runs.front();
    std::printf("data: %s, tokenizer %s, vocabulary %s, fingerprint %s\n", data_name(first.config.data).c_str(),
                first.tokenizer.c_str(), grouped(first.vocab_size).c_str(), hex_digits(first.data_fingerprint).c_str());
    print_keys(what);
    print_arms(what);
    print_pairs(what);
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

std::string json_of(const std::optional<double>& value) { return value ? json::number(*value) : "null"; }

std::string json_of(const Sample& sample) {
    return json::object({{"n", json::number(sample.count)},
                         {"mean", sample.count > 0 ? json::number(sample.mean) : "null"},
                         {"standard_deviation", json_of(sample.deviation)}});
}

std::string json_of(const std::vector<std::string>& words) {
    std::vector<std::string> items;
    for (const std::string& word : words)
        items.push_back(json::text(word));
    return json::array(items);
}

std::string json_of(const PairedDifference& difference) {
    const auto& interval = difference.interval;
    return json::object({{"n", json::number(difference.sample.count)},
                         {"mean", difference.sample.count > 0 ? json::number(difference.sample.mean) : "null"},
                         {"low", interval ? json::number(interval->low) : "null"},
                         {"high", interval ? json::number(interval->high) : "null"},
                         {"verdict", json::text(difference.verdict)}});
}

std::string json_of(const ComparedArm& arm) {
    std::vector<std::string> runs;
    for (const ComparedRun& run : arm.runs)
        runs.push_back(json::object({{"path", json::text(run.path.string())},
                                     {"seed", std::to_string(run.config.seed)},
                                     {"verdict", json::text(run.result.summary.verdict)},
                                     {"step", json::number(run.result.summary.step)},
                                     {"final_loss", json_of(run.result.final_loss)},
                                     {"best_loss", json_of(run.result.best_loss)}}));
    return json::object({{"arm", json::text(arm.letter)},
                         {"runs", json::array(runs)},
                         {"final_loss", json_of(arm.final_loss)},
                         {"best_loss", json_of(arm.best_loss)},
                         {"loss_spike_score", json_of(arm.loss_spike_score)},
                         {"gradient_spike_score", json_of(arm.gradient_spike_score)},
                         {"steps_to_loss", json_of(arm.steps_to_loss)},
                         {"tokens_per_second", json_of(arm.tokens_per_second)},
                         {"norms", json::number(arm.norm_cost.norms)},
                         {"norm_parameters", json::number(arm.norm_cost.parameters)},
                         {"norm_bytes_per_step", json::number(arm.norm_cost.bytes_per_step)}});
}

std::string json_of(const RunComparison& what, const ArmPair& pair) {
    std::vector<std::string> seeds;
    for (const std::uint64_t seed : pair.seeds)
        seeds.push_back(std::to_string(seed));
    return json::object({{"arm", json::text(what.arms[pair.arm].letter)},
                         {"refused", json::text(pair.refused)},
                         {"seeds", json::array(seeds)},
                         {"caveats", json_of(pair.caveats)},
                         {"shared_tensors", json::number(pair.shared_tensors)},
                         {"other_start", json_of(pair.other_start)},
                         {"only_in_baseline", json_of(pair.only_in_baseline)},
                         {"only_in_arm", json_of(pair.only_in_arm)},
                         {"final_loss", json_of(pair.final_loss)},
                         {"best_loss", json_of(pair.best_loss)}});
}

void print_json(const RunComparison& what) {
    std::vector<std::string> arms, keys, pairs, left_out;
    for (const ComparedArm& arm : what.arms)
        arms.push_back(json_of(arm));
    for (const ComparedKey& key : what.keys)
        keys.push_back(json::object({{"path", json::text(key.path)}, {"values", json::array(key.values)}})); // are JSON
    for (const ArmPair& pair : what.pairs)
        pairs.push_back(json_of(what, pair));
    for (const LeftOut& run : what.left_out)
        left_out.push_back(json::object({{"path", json::text(run.path.string())}, {"reason", json::text(run.reason)}}));
    const std::string line = json::object({{"baseline", json::text(what.arms[what.baseline].letter)},
                                           {"by_validation", json::boolean(what.by_validation)},
                                           {"target_loss", json_of(what.target_loss)},
                                           {"keys", json::array(keys)},
                                           {"arms", json::array(arms)},
                                           {"pairs", json::array(pairs)},
                                           {"differing_environment", json_of(what.environment)},
                                           {"left_out", json::array(left_out)}});
    std::printf("%s\n", line.c_str());
}

int compare(const CompareCommand& command) {
    std::vector<LeftOut> left_out;
    const std::vector<fs::path> paths = run_paths(command.paths, left_out);
    if (paths.size() + left_out.size() < 2)
        throw UsageError(command.paths.front() + ": one run; expected at least two, or a sweep's directory");
    std::vector<ComparedRun> runs = read_runs(paths, left_out);
    const auto name_left_out = [](const std::vector<LeftOut>& some) {
        for (const LeftOut& run : some)
            print_error(run.path.string() + ": left out: " + run.reason);
    };
    name_left_out(left_out);
    RunComparison what = compare_runs(std::move(runs), command.options);
    name_left_out(what.left_out);
    what.left_out.insert(what.left_out.end(), left_out.begin(), left_out.end());
    if (command.json)
        print_json(what);
    else
        print_text(what);
    return kDone;
}

} // namespace

void add_compare(CLI::App& app, Action& action) {
    auto options = std::make_shared<CompareCommand>();
    CLI::App* command = app.add_subcommand(
        "compare", "Runs side by side: what differs, losses over seeds, paired differences with their intervals");
    command->add_option("RUN", options->paths, "Run directories, or those of sweeps")->required()->type_name("");
    command->add_option("--baseline", options->options.baseline, "Letter of the arm that the others are compared with")
        ->type_name("ARM")
        ->capture_default_str();
    command
        ->add_option("--to-loss", options->options.target_loss,
                     "Loss whose first step is told [the highest final loss]")
        ->type_name("LOSS");
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast compare runs/quickstart runs/post");
    command->callback([options, &action] { action = [options] { return compare(*options); }; });
}
