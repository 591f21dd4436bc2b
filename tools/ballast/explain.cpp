#include "ballast/lab/explain.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/peak.h"
#include "ballast/train/graft.h"
#include "command.h"
#include "format.h"
#include "json.h"
#include "table.h"
#include "training.h"
#include "vocabulary.h"

using namespace ballast;

namespace {

struct ExplainOptions {
    std::string config;
    std::string other;
    std::vector<std::string> overrides;
    bool json = false;
};

/// What share of a training step the norms take, by this machine's limits: their bytes at its bandwidth, and all else
/// at its peak of floating-point operations. Real steps are slower in both, so it is an estimate.
struct NormShare {
    double bandwidth = 0; ///< bytes per second
    double peak = 0;      ///< floating-point operations per second
    double share = 0;
};

NormShare share_of(const NormCost& cost) {
    NormShare result;
    if (cost.norms == 0) return result;
    pin_blas();
    constexpr double kSeconds = 0.2;
    result.bandwidth = measure_bandwidth(kSeconds);
    result.peak = measure_peak_flops(kSeconds);
    const double norms = cost.bytes_per_step / result.bandwidth, rest = cost.model_flops_per_step / result.peak;
    result.share = norms / (norms + rest);
    return result;
}

std::string shape_text(const Shape& shape) {
    std::string text = shape.text();
    return text.size() > 2 && text.front() == '[' ? text.substr(1, text.size() - 2) : text;
}

std::string blocks_text(const Config& config, const BlockEquations& block, std::size_t groups) {
    if (groups == 1) return std::to_string(config.model.layers) + " times";
    if (block.first == block.last) return "block " + std::to_string(block.first);
    return "blocks " + std::to_string(block.first) + " to " + std::to_string(block.last);
}

void print_warning(const NormWarning& warning) {
    std::printf("warning: %s: %s (%s)\n", warning.message.c_str(), warning.reason.c_str(), warning.source.c_str());
}

void print_cost(const Config& config, const NormCost& cost) {
    if (cost.norms == 0) {
        std::printf("\nnorms: none\n");
        return;
    }
    const NormShare share = share_of(cost);
    std::printf("\nnorms: %lld, with %s parameters; a step of %s tokens moves %s for them\n",
                static_cast<long long>(cost.norms), grouped(cost.parameters).c_str(),
                grouped(config.train.batch * config.model.context).c_str(), byte_size(cost.bytes_per_step).c_str());
    std::printf("       about %.1f %% of a step: an estimate from this machine's limits, %.3g GB/s and %.3g GFLOP/s\n",
                100 * share.share, share.bandwidth / 1e9, share.peak / 1e9);
}

void print_text(const Config& config, const Explanation& what, const Vocabulary& vocabulary,
                const std::string& source_unread) {
    std::printf("%s\n", what.equations.embedding.c_str());
    for (const BlockEquations& block : what.equations.blocks)
        std::printf("%s:\n    %s\n    %s\n", blocks_text(config, block, what.equations.blocks.size()).c_str(),
                    block.attention.c_str(), block.ffn.c_str());
    std::printf("%s\n\n", what.equations.output.c_str());
    for (const std::string& line : what.equations.meanings)
        std::printf("%s\n", line.c_str());

    std::printf("\nparameters, with a vocabulary of %s%s\n", grouped(vocabulary.size).c_str(),
                vocabulary.assumed_because.empty() ? "" : " (assumed, see below)");
    std::vector<std::vector<std::string>> rows = {{"name", "shape", "", "count", "init", "weight decay"}};
    for (const ParamRow& row : what.parameters)
        rows.push_back({row.name, shape_text(row.shape), row.repeats > 1 ? "× " + std::to_string(row.repeats) : "",
                        grouped(row.count), row.init, row.decays ? "yes" : "no"});
    for (const TieRow& tie : what.ties)
        rows.push_back({tie.name, "", "", "", "is " + tie.same_as, ""});
    for (const ParamRow& row : what.buffers)
        rows.push_back({row.name, shape_text(row.shape), row.repeats > 1 ? "× " + std::to_string(row.repeats) : "",
                        "not trained", row.init, "no"});
    rows.push_back({"in all", "", "", grouped(what.parameter_count), "", grouped(what.decayed_count)});
    print_table(rows, {false, false, false, true, false, true});

    print_cost(config, what.norm_cost);
    if (!vocabulary.assumed_because.empty())
        std::printf("\nnote: the vocabulary is assumed, as the data cannot be read: %s\n",
                    vocabulary.assumed_because.c_str());
    if (!source_unread.empty())
        std::printf("\nnote: the run to start from cannot be read, so nothing is said of its eps: %s\n",
                    source_unread.c_str());
    if (!what.warnings.empty()) std::printf("\n");
    for (const NormWarning& warning : what.warnings)
        print_warning(warning);
}

std::string texts(const std::vector<std::string>& lines) {
    std::vector<std::string> items;
    for (const std::string& line : lines)
        items.push_back(json::text(line));
    return json::array(items);
}

std::string json_rows(const std::vector<ParamRow>& rows) {
    std::vector<std::string> items;
    for (const ParamRow& row : rows) {
        std::vector<std::string> shape;
        for (int i = 0; i < row.shape.rank; ++i)
            shape.push_back(json::number(row.shape[i]));
        items.push_back(json::object({{"name", json::text(row.name)},
                                      {"shape", json::array(shape)},
                                      {"repeats", json::number(row.repeats)},
                                      {"count", json::number(row.count)},
                                      {"init", json::text(row.init)},
                                      {"decays", json::boolean(row.decays)}}));
    }
    return json::array(items);
}

std::string json_warnings(const std::vector<NormWarning>& warnings) {
    std::vector<std::string> items;
    for (const NormWarning& warning : warnings)
        items.push_back(json::object({{"name", json::text(warning.name)},
                                      {"message", json::text(warning.message)},
                                      {"reason", json::text(warning.reason)},
                                      {"source", json::text(warning.source)}}));
    return json::array(items);
}

std::string json_cost(const NormCost& cost) {
    const NormShare share = share_of(cost);
    return json::object({{"norms", json::number(cost.norms)},
                         {"parameters", json::number(cost.parameters)},
                         {"bytes_per_step", json::number(cost.bytes_per_step)},
                         {"share_of_step_estimated", json::number(share.share)},
                         {"bandwidth", json::number(share.bandwidth)},
                         {"peak_flops", json::number(share.peak)}});
}

void print_json(const Config& config, const Explanation& what, const Vocabulary& vocabulary,
                const std::string& source_unread) {
    std::vector<std::string> blocks, ties;
    for (const BlockEquations& block : what.equations.blocks)
        blocks.push_back(json::object({{"first", json::number(block.first)},
                                       {"last", json::number(block.last)},
                                       {"attention", json::text(block.attention)},
                                       {"ffn", json::text(block.ffn)}}));
    for (const TieRow& tie : what.ties)
        ties.push_back(json::object({{"name", json::text(tie.name)}, {"same_as", json::text(tie.same_as)}}));
    const std::string line = json::object({{"name", json::text(config.name)},
                                           {"layers", json::number(config.model.layers)},
                                           {"embedding", json::text(what.equations.embedding)},
                                           {"blocks", json::array(blocks)},
                                           {"output", json::text(what.equations.output)},
                                           {"meanings", texts(what.equations.meanings)},
                                           {"vocabulary", json::number(vocabulary.size)},
                                           {"vocabulary_assumed", json::boolean(!vocabulary.assumed_because.empty())},
                                           {"parameters", json_rows(what.parameters)},
                                           {"buffers", json_rows(what.buffers)},
                                           {"ties", json::array(ties)},
                                           {"parameter_count", json::number(what.parameter_count)},
                                           {"decayed_count", json::number(what.decayed_count)},
                                           {"norm_cost", json_cost(what.norm_cost)},
                                           {"source_read", json::boolean(source_unread.empty())},
                                           {"warnings", json_warnings(what.warnings)}});
    std::printf("%s\n", line.c_str());
}

std::string or_dash(const std::string& text) { return text.empty() ? "-" : text; }

void print_comparison(const ExplainOptions& options, const Comparison& what) {
    std::printf("a: %s\nb: %s\n", options.config.c_str(), options.other.c_str());
    if (what.keys.empty()) std::printf("\nno key differs\n");
    if (!what.equations.empty()) std::printf("\nequations\n");
    for (const EquationDifference& difference : what.equations)
        std::printf("  %s\n    a  %s\n    b  %s\n", difference.where.c_str(), or_dash(difference.a).c_str(),
                    or_dash(difference.b).c_str());
    if (!what.keys.empty()) {
        std::printf("\nkeys\n");
        std::vector<std::vector<std::string>> rows = {{"key", "a", "b"}};
        for (const KeyDifference& difference : what.keys)
            rows.push_back({difference.path, difference.a, difference.b});
        print_table(rows, {false, false, false});
    }
    for (const auto& [name, warnings] : {std::pair{"a", &what.only_a}, {"b", &what.only_b}}) {
        if (warnings->empty()) continue;
        std::printf("\nin %s alone\n", name);
        for (const NormWarning& warning : *warnings)
            print_warning(warning);
    }
}

void print_comparison_json(const ExplainOptions& options, const Comparison& what) {
    std::vector<std::string> keys, equations;
    for (const KeyDifference& difference : what.keys)
        keys.push_back(json::object(
            {{"path", json::text(difference.path)}, {"a", difference.a}, {"b", difference.b}})); // JSON already
    for (const EquationDifference& difference : what.equations)
        equations.push_back(json::object({{"where", json::text(difference.where)},
                                          {"a", json::text(difference.a)},
                                          {"b", json::text(difference.b)}}));
    const std::string line = json::object({{"a", json::text(options.config)},
                                           {"b", json::text(options.other)},
                                           {"equations", json::array(equations)},
                                           {"keys", json::array(keys)},
                                           {"warnings_a", json_warnings(what.only_a)},
                                           {"warnings_b", json_warnings(what.only_b)}});
    std::printf("%s\n", line.c_str());
}

int explain_difference(const ExplainOptions& options) {
    const Config a = load_config_to_use(options.config, options.overrides);
    const Config b = load_config_to_use(options.other, options.overrides);
    const Comparison what = compare_configs(a, b);
    if (options.json)
        print_comparison_json(options, what);
    else
        print_comparison(options, what);
    return kDone;
}

/// Adds the warnings that come of the run that a config starts from. Returns why that run cannot be read, which is no
/// mistake: it may be trained later.
std::string add_source_warnings(const Config& config, Explanation& what) {
    if (config.init_from.run.empty()) return {};
    try {
        const GraftSourceInfo source = read_graft_source(config.init_from);
        for (NormWarning& warning : source_warnings(config.model, source.config.model))
            what.warnings.push_back(std::move(warning));
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

int explain_config(const ExplainOptions& options) {
    const Config config = load_config_to_use(options.config, options.overrides);
    const Vocabulary vocabulary = vocabulary_of(config);
    Explanation what = explain(config, vocabulary.size);
    const std::string source_unread = add_source_warnings(config, what);
    if (options.json)
        print_json(config, what, vocabulary, source_unread);
    else
        print_text(config, what, vocabulary, source_unread);
    return kDone;
}

} // namespace

void add_explain(CLI::App& app, Action& action) {
    auto options = std::make_shared<ExplainOptions>();
    CLI::App* command = app.add_subcommand(
        "explain", "The equations, parameters, norm costs and warnings of a config, or what differs between two");
    command->add_option("CONFIG", options->config, "Config file")->required()->type_name("");
    command->add_option("OTHER", options->other, "Another one: only what differs is shown")->type_name("");
    add_set_option(*command, options->overrides);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast explain configs/quickstart.json configs/norm/peri_ln.json");
    command->callback([options, &action] {
        action = [options] { return options->other.empty() ? explain_config(*options) : explain_difference(*options); };
    });
}
