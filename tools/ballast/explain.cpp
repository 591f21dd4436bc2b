#include "ballast/lab/explain.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/data/dataset.h"
#include "ballast/train/learner.h"
#include "command.h"
#include "format.h"
#include "json.h"
#include "training.h"

using namespace ballast;

namespace {

struct ExplainOptions {
    std::string config;
    std::vector<std::string> overrides;
    bool json = false;
};

struct Vocabulary {
    std::int64_t size = 0;
    std::string assumed_because; ///< empty: it is that of the data
};

/// What a vocabulary is likely to be while the data is not there.
std::int64_t likely_vocabulary(const DataConfig& data) {
    constexpr std::int64_t kShakespeareCharacters = 65;
    if (data.vocab_size > 0) return data.vocab_size;
    return data.tokenizer.kind == TokenizerKind::byte ? 256 : kShakespeareCharacters;
}

Vocabulary vocabulary_of(const Config& config) {
    DataOptions options = data_options(config);
    // Whether the data is long enough is not asked here.
    options.context = 1;
    try {
        return {Dataset(options).vocab_size(), ""};
    } catch (const Error& error) {
        return {likely_vocabulary(config.data), error.what()};
    }
}

std::string shape_text(const Shape& shape) {
    std::string text = shape.text();
    return text.size() > 2 && text.front() == '[' ? text.substr(1, text.size() - 2) : text;
}

void print_table(const std::vector<std::vector<std::string>>& rows, const std::vector<bool>& right) {
    std::vector<std::size_t> widths;
    for (const auto& row : rows)
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (i == widths.size()) widths.push_back(0);
            widths[i] = std::max(widths[i], columns_of(row[i]));
        }
    for (const auto& row : rows) {
        std::string line;
        for (std::size_t i = 0; i < row.size(); ++i) {
            const std::string padding(widths[i] - columns_of(row[i]), ' ');
            line += (i > 0 ? "  " : "") + (right[i] ? padding + row[i] : row[i] + padding);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        std::printf("  %s\n", line.c_str());
    }
}

void print_text(const Config& config, const Explanation& what, const Vocabulary& vocabulary) {
    std::printf("%s\n", what.equations.embedding.c_str());
    std::printf("%lld times:\n", static_cast<long long>(config.model.layers));
    for (const std::string& line : what.equations.block)
        std::printf("    %s\n", line.c_str());
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
    rows.push_back({"in all", "", "", grouped(what.parameter_count), "", grouped(what.decayed_count)});
    print_table(rows, {false, false, false, true, false, true});

    const NormCost& cost = what.norm_cost;
    if (cost.norms > 0)
        std::printf("\nnorms: %lld, with %s parameters; a step of %s tokens moves %s for them\n",
                    static_cast<long long>(cost.norms), grouped(cost.parameters).c_str(),
                    grouped(config.train.batch * config.model.context).c_str(), byte_size(cost.bytes_per_step).c_str());
    else
        std::printf("\nnorms: none\n");
    if (!vocabulary.assumed_because.empty())
        std::printf("\nnote: the vocabulary is assumed, as the data cannot be read: %s\n",
                    vocabulary.assumed_because.c_str());
    if (!what.warnings.empty()) std::printf("\n");
    for (const NormWarning& warning : what.warnings)
        std::printf("warning: %s: %s (%s)\n", warning.message.c_str(), warning.reason.c_str(), warning.source.c_str());
}

std::string texts(const std::vector<std::string>& lines) {
    std::vector<std::string> items;
    for (const std::string& line : lines)
        items.push_back(json::text(line));
    return json::array(items);
}

void print_json(const Config& config, const Explanation& what, const Vocabulary& vocabulary) {
    std::vector<std::string> parameters, ties, warnings;
    for (const ParamRow& row : what.parameters) {
        std::vector<std::string> shape;
        for (int i = 0; i < row.shape.rank; ++i)
            shape.push_back(json::number(row.shape[i]));
        parameters.push_back(json::object({{"name", json::text(row.name)},
                                           {"shape", json::array(shape)},
                                           {"repeats", json::number(row.repeats)},
                                           {"count", json::number(row.count)},
                                           {"init", json::text(row.init)},
                                           {"decays", json::boolean(row.decays)}}));
    }
    for (const TieRow& tie : what.ties)
        ties.push_back(json::object({{"name", json::text(tie.name)}, {"same_as", json::text(tie.same_as)}}));
    for (const NormWarning& warning : what.warnings)
        warnings.push_back(json::object({{"name", json::text(warning.name)},
                                         {"message", json::text(warning.message)},
                                         {"reason", json::text(warning.reason)},
                                         {"source", json::text(warning.source)}}));
    const std::string norms = json::object({{"norms", json::number(what.norm_cost.norms)},
                                            {"parameters", json::number(what.norm_cost.parameters)},
                                            {"bytes_per_step", json::number(what.norm_cost.bytes_per_step)}});
    const std::string line = json::object({{"name", json::text(config.name)},
                                           {"layers", json::number(config.model.layers)},
                                           {"embedding", json::text(what.equations.embedding)},
                                           {"block", texts(what.equations.block)},
                                           {"output", json::text(what.equations.output)},
                                           {"meanings", texts(what.equations.meanings)},
                                           {"vocabulary", json::number(vocabulary.size)},
                                           {"vocabulary_assumed", json::boolean(!vocabulary.assumed_because.empty())},
                                           {"parameters", json::array(parameters)},
                                           {"ties", json::array(ties)},
                                           {"parameter_count", json::number(what.parameter_count)},
                                           {"decayed_count", json::number(what.decayed_count)},
                                           {"norm_cost", norms},
                                           {"warnings", json::array(warnings)}});
    std::printf("%s\n", line.c_str());
}

int explain_config(const ExplainOptions& options) {
    const Config config = load_config_to_use(options.config, options.overrides);
    const Vocabulary vocabulary = vocabulary_of(config);
    const Explanation what = explain(config, vocabulary.size);
    if (options.json)
        print_json(config, what, vocabulary);
    else
        print_text(config, what, vocabulary);
    return kDone;
}

} // namespace

void add_explain(CLI::App& app, Action& action) {
    auto options = std::make_shared<ExplainOptions>();
    CLI::App* command =
        app.add_subcommand("explain", "The equations, parameters and norm warnings of a config, without training");
    command->add_option("CONFIG", options->config, "Config file")->required()->type_name("");
    add_set_option(*command, options->overrides);
    command->add_flag("--json", options->json, "Print one JSON object");
    command->footer("Example: ballast explain configs/quickstart.json --set model.norm.placement=post");
    command->callback([options, &action] { action = [options] { return explain_config(*options); }; });
}
