#include "check.h"

#include <algorithm>
#include <array>
#include <utility>

#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/config/norm_layout.h"
#include "fields.h"

namespace ballast {

namespace config_io {

namespace {

std::string amount(std::string_view path, std::int64_t value) {
    return std::string(path) + " " + std::to_string(value);
}

/// "4 or 6" for 5 and 12: the divisors of `whole` on either side of `part`.
std::string near_divisors(std::int64_t part, std::int64_t whole) {
    std::int64_t below = part < whole ? part : whole, above = below;
    while (whole % below != 0)
        --below;
    while (whole % above != 0)
        ++above;
    return below == above ? std::to_string(below) : std::to_string(below) + " or " + std::to_string(above);
}

void must_divide(const std::string& part_path, std::int64_t part, const std::string& whole_path, std::int64_t whole,
                 std::vector<Conflict>& out) {
    if (part < 1 || whole < 1 || whole % part == 0) return; // out of range is a mistake of its own
    out.push_back({{part_path, whole_path},
                   amount(part_path, part) + " does not divide " + amount(whole_path, whole) +
                       "; expected a divisor, such as " + near_divisors(part, whole)});
}

bool ends_at_final_lr(ScheduleKind kind) {
    return kind == ScheduleKind::linear || kind == ScheduleKind::cosine || kind == ScheduleKind::wsd;
}

/// Entries of model.norm.layers that cover no block, or are not in the order of depth. False when there are any.
bool depths_fit(const ModelConfig& model, std::vector<Conflict>& out) {
    const std::size_t before = out.size();
    for (std::size_t i = 0; i < model.norm.layers.size(); ++i) {
        const double until = model.norm.layers[i].until;
        const std::string item = "model.norm.layers[" + std::to_string(i) + "]", path = item + ".until";
        if (until <= 0) {
            out.push_back({{path, item}, path + " is not given; expected the share of the depth where this ends"});
            continue;
        }
        DepthPlacementConfig nothing;
        nothing.until = until;
        if (model.norm.layers[i] == nothing)
            out.push_back({{item, item + ".placement"},
                           item + " gives no placement; expected placement, attn or ffn beside until"});
        const double start = i > 0 ? model.norm.layers[i - 1].until : 0;
        const std::string blocks = amount("model.layers", model.layers);
        if (until <= start)
            out.push_back({{path, item},
                           path + " " + number_text(until) + " overlaps the entry before, which ends at " +
                               number_text(start) + "; expected above that"});
        else if (blocks_until(model, i) <= (i > 0 ? blocks_until(model, i - 1) : 0))
            out.push_back({{path, item, "model.layers"},
                           path + " " + number_text(until) + " of " + blocks + ", after " + number_text(start) +
                               ", covers no block; expected a larger share, or no such entry"});
    }
    return out.size() == before;
}

/// The model with at least two blocks: in a single one, a scale by depth is 1 and looks like none.
NormLayout layout_of(ModelConfig model) {
    if (model.norm.layers.empty()) model.layers = std::max<std::int64_t>(model.layers, 2);
    return norm_layout(model);
}

/// Keys that decide where norms stand and what they compute.
bool is_about_norms(std::string_view path) {
    constexpr auto kOthers =
        std::to_array<std::string_view>({"model.final_norm", "model.qk_norm", "model.v_norm", "model.embedding.norm",
                                         "model.ffn.inner_norm", "model.layerscale_init"});
    if (path.ends_with(".until")) return false; // depths_fit looks at it
    return path.starts_with("model.norm.") || std::find(kOthers.begin(), kOthers.end(), path) != kOthers.end();
}

/// Other values that the key may have, enough to tell whether it matters.
std::vector<Value> others(const Field& field, const Config& config) {
    std::vector<Value> values = {field.initial};
    const Value value = field.get(config);
    if (const auto* on = std::get_if<bool>(&value)) values.emplace_back(!*on);
    if (const auto* number = std::get_if<double>(&value)) values.emplace_back(*number / 2);
    for (std::size_t i = 0; i < field.labels.size(); ++i)
        values.emplace_back(Choice{i});
    return values;
}

/// Keys that were given a value where none makes a difference to the model's norms.
void find_ignored_norm_keys(const Field& section, const Config& config, const NormLayout& layout,
                            std::vector<Conflict>& out) {
    const auto with = [&](const Field& field, const Value& value) {
        Config changed = config;
        field.set(changed, value);
        resolve(changed);
        return changed;
    };
    for (const Field* field : leaves(section)) {
        if (!is_about_norms(field->path)) continue;
        if (field->is_list()) {
            for (std::size_t i = 0; i < field->list.size(config); ++i)
                find_ignored_norm_keys(field->list.item(i), config, layout, out);
            continue;
        }
        const Value value = field->get(config);
        const auto* choice = std::get_if<Choice>(&value);
        const bool asks_for_nothing = choice != nullptr && field->labels.at(choice->index).name == "none";
        // Where `resolve` puts the value in again, it is the default.
        if (value == field->initial || asks_for_nothing || with(*field, field->initial) == config) continue;
        const std::vector<Value> values = others(*field, config);
        const bool matters = std::any_of(values.begin(), values.end(), [&](const Value& other) {
            return !layout_of(with(*field, other).model).same_as(layout);
        });
        if (matters) continue;
        out.push_back({{field->path, "model.norm.kind", "model.norm.placement"},
                       field->path + " " + field_json(*field, config) +
                           " changes nothing in this model (model.norm.kind " +
                           std::string(to_string(config.model.norm.kind)) + ", model.norm.placement " +
                           std::string(to_string(config.model.norm.placement)) + "); expected " +
                           value_json(*field, field->initial) + ", or a model that uses it"});
    }
}

constexpr auto kOwnNorms = std::to_array<std::pair<std::string_view, OwnNormConfig NormConfig::*>>({
    {"model.norm.pre", &NormConfig::pre},
    {"model.norm.out", &NormConfig::out},
    {"model.norm.post", &NormConfig::post},
    {"model.norm.final", &NormConfig::final},
    {"model.norm.embedding", &NormConfig::embedding},
    {"model.norm.qk", &NormConfig::qk},
    {"model.norm.v", &NormConfig::v},
    {"model.norm.inner", &NormConfig::inner},
});

/// A value that is none where it is 0.
void must_not_be_lost(const std::string& path, double value, std::vector<Conflict>& out) {
    if (value == 0 || value >= kLeastEps) return;
    out.push_back(
        {{path},
         path + " " + number_text(value) + " is lost in float; expected 0 or at least " + number_text(kLeastEps)});
}

void find_own_norm_conflicts(const std::string& path, const NormConfig& norm, const OwnNormConfig& own,
                             std::vector<Conflict>& out) {
    must_not_be_lost(path + ".eps", own.eps, out);
    const NormKind kind = own.kind == OwnNormKind::automatic ? norm.kind : static_cast<NormKind>(own.kind);
    if (kind == NormKind::scalenorm && own.gain == Switch::off) {
        out.push_back({{path + ".gain", path + ".kind", "model.norm.kind"},
                       path + ".gain is off, but the gain is all that a scalenorm has; expected auto or on"});
    }
    if (own.bias == Switch::on && !norm_traits(kind).bias) {
        out.push_back(
            {{path + ".bias", path + ".kind", "model.norm.kind"},
             path + ".bias is on, but " + std::string(to_string(kind)) + " has no bias; expected auto or off"});
    }
}

void find_norm_conflicts(const Config& config, std::vector<Conflict>& out) {
    const ModelConfig& model = config.model;
    const NormConfig& norm = model.norm;
    if (norm.kind == NormKind::scalenorm && !norm.gain) {
        out.push_back({{"model.norm.gain", "model.norm.kind"},
                       "model.norm.gain is false, but the gain is all that a scalenorm has; expected true"});
    }
    for (const auto& [path, own] : kOwnNorms)
        find_own_norm_conflicts(std::string(path), norm, norm.*own, out);
    must_not_be_lost("model.norm.attention_alpha", norm.attention_alpha, out);
    must_not_be_lost("model.logit_softcap", model.logit_softcap, out);
    must_not_be_lost("model.layerscale_init", model.layerscale_init, out);
    if (model.residual == ResidualKind::fixup && model.init.kind == InitKind::deepnorm) {
        out.push_back({{"model.residual", "model.init.kind"},
                       "model.residual fixup and model.init.kind deepnorm both scale the branches' matrices; expected "
                       "one of them"});
    }
    if (model.init.kind != InitKind::gpt2 && model.init.std != InitConfig{}.std) {
        out.push_back({{"model.init.std", "model.init.kind"},
                       "model.init.std " + number_text(model.init.std) + " is not used by model.init.kind " +
                           std::string(to_string(model.init.kind)) + "; expected gpt2, or no model.init.std"});
    }
    if (norm.bias == Switch::on && !norm_traits(norm.kind).bias) {
        out.push_back({{"model.norm.bias", "model.norm.kind"},
                       "model.norm.bias is on, but model.norm.kind " + std::string(to_string(norm.kind)) +
                           " has no bias; expected auto or off"});
    }
    // A key that is wrong already is not said to be ignored, too.
    const std::size_t before = out.size();
    if (!depths_fit(model, out)) return;
    std::vector<Conflict> ignored;
    find_ignored_norm_keys(config_fields(), config, layout_of(model), ignored);
    for (Conflict& conflict : ignored) {
        const auto known = [&](const Conflict& other) { return other.paths.front() == conflict.paths.front(); };
        if (std::none_of(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(before), known))
            out.push_back(std::move(conflict));
    }
}

/// What the length of a task's sequences must be, as "2 or more, even"; empty: `context` is such a length.
std::string task_context_problem(TaskKind task, std::int64_t symbols, std::int64_t context) {
    switch (task) {
    case TaskKind::none: break;
    case TaskKind::majority:
        if (context < 3) return "3 or more";
        break;
    case TaskKind::copy:
        if (context < 2 || context % 2 != 0) return "an even number of tokens";
        break;
    case TaskKind::induction:
        if (context < 8 || context % 4 != 0 || context / 4 > symbols)
            return "a multiple of 4, from 8 to 4 times data.task.symbols";
        break;
    case TaskKind::modular_addition:
        if (context != 3) return "3";
        break;
    }
    return {};
}

void find_data_conflicts(const Config& config, std::vector<Conflict>& out) {
    const DataConfig& data = config.data;
    const std::string task(to_string(data.task.kind));
    if (data.task.kind == TaskKind::none) {
        if (data.path.empty())
            out.push_back({{"data.path"}, "is not given; expected a text file or a directory of bin data"});
        if (data.task.symbols != TaskConfig{}.symbols)
            out.push_back({{"data.task.symbols", "data.task.kind"},
                           "data.task.symbols changes nothing without data.task.kind; expected one of its tasks"});
        return;
    }
    if (!data.path.empty())
        out.push_back({{"data.path", "data.task.kind"},
                       "data.path and data.task.kind " + task + " are both given; expected one of them"});
    if (data.vocab_size != 0)
        out.push_back({{"data.vocab_size", "data.task.kind"},
                       "data.vocab_size is for token files; data.task.kind " + task + " has a vocabulary of its own"});
    const std::string expected = task_context_problem(data.task.kind, data.task.symbols, config.model.context);
    if (!expected.empty())
        out.push_back({{"model.context", "data.task.kind", "data.task.symbols"},
                       amount("model.context", config.model.context) + " does not fit data.task.kind " + task +
                           "; expected " + expected});
}

void find_init_from_conflicts(const InitFromConfig& init, std::vector<Conflict>& out) {
    const bool is_step = !init.checkpoint.empty() && std::all_of(init.checkpoint.begin(), init.checkpoint.end(),
                                                                 [](char c) { return c >= '0' && c <= '9'; });
    if (!is_step && init.checkpoint != "newest" && init.checkpoint != "best")
        out.push_back({{"init_from.checkpoint"},
                       "is " + ballast::quoted(printable(init.checkpoint, 60)) + "; expected a step, newest or best"});
    if (!init.run.empty()) return;
    const InitFromConfig initial;
    const auto must_be_initial = [&](const char* key, bool is_initial) {
        if (!is_initial)
            out.push_back({{key, "init_from.run"},
                           std::string(key) + " changes nothing without init_from.run; expected a run to start from"});
    };
    must_be_initial("init_from.checkpoint", init.checkpoint == initial.checkpoint);
    must_be_initial("init_from.calibrate", init.calibrate == initial.calibrate);
    must_be_initial("init_from.new_norm_lr_scale", init.new_norm_lr_scale == initial.new_norm_lr_scale);
    must_be_initial("init_from.new_norm_warmup", init.new_norm_warmup == initial.new_norm_warmup);
}

} // namespace

std::vector<Conflict> find_conflicts(const Config& config) {
    std::vector<Conflict> out;
    const ModelConfig& model = config.model;
    find_data_conflicts(config, out);
    find_init_from_conflicts(config.init_from, out);
    must_divide("model.heads", model.heads, "model.width", model.width, out);
    must_divide("model.kv_heads", model.kv_heads, "model.heads", model.heads, out);
    must_divide("train.micro_batch", config.train.micro_batch, "train.batch", config.train.batch, out);
    if (model.position == PositionKind::rope && model.heads > 0 && model.width % model.heads == 0 &&
        model.width / model.heads % 2 != 0) {
        out.push_back({{"model.position", "model.width", "model.heads"},
                       "rope rotates pairs of features, but " + amount("model.width", model.width) + " / " +
                           amount("model.heads", model.heads) + " is odd; expected an even number per head"});
    }
    if (model.position == PositionKind::sinusoidal && model.width % 2 != 0) {
        out.push_back({{"model.position", "model.width"},
                       "sinusoidal positions are pairs of sine and cosine, but " + amount("model.width", model.width) +
                           " is odd; expected an even width"});
    }
    find_norm_conflicts(config, out);
    const StabilityConfig& stability = config.stability;
    if (stability.on_divergence == Policy::skip) {
        out.push_back({{"stability.on_divergence"},
                       "is skip, but no single update makes a loss diverge; expected stop, rewind or continue"});
    }
    if (stability.on_stall == Policy::skip || stability.on_stall == Policy::rewind) {
        out.push_back({{"stability.on_stall"},
                       "is " + std::string(to_string(stability.on_stall)) +
                           ", but no single batch makes a run stall; expected stop or continue"});
    }
    if (ends_at_final_lr(config.schedule.kind) && config.schedule.final_lr > config.optimizer.lr) {
        out.push_back({{"schedule.final_lr", "optimizer.lr"},
                       "schedule.final_lr " + number_text(config.schedule.final_lr) + " is above optimizer.lr " +
                           number_text(config.optimizer.lr) + ", but " + std::string(to_string(config.schedule.kind)) +
                           " falls to it; expected at most optimizer.lr"});
    }
    return out;
}

} // namespace config_io

void resolve(Config& config) {
    ModelConfig& model = config.model;
    if (model.kv_heads == 0) model.kv_heads = model.heads;
    if (model.ffn.width == 0) {
        const bool gated = model.ffn.kind == FfnKind::swiglu || model.ffn.kind == FfnKind::geglu;
        model.ffn.width = gated ? 8 * ((model.width + 2) / 3) : 4 * model.width;
    }
    if (model.norm.bias == Switch::automatic) {
        const bool on = norm_traits(model.norm.kind).own_bias || (model.bias && model.norm.kind == NormKind::layernorm);
        model.norm.bias = on ? Switch::on : Switch::off;
    }
    if (model.final_norm == Switch::automatic) model.final_norm = wants_final_norm(model) ? Switch::on : Switch::off;
    if (config.train.micro_batch == 0) config.train.micro_batch = config.train.batch;
}

namespace {
void check_values(const config_io::Field& section, const Config& config, std::vector<ConfigProblem>& problems) {
    using namespace config_io;
    for (const Field* field : leaves(section)) {
        if (field->is_list()) {
            for (std::size_t i = 0; i < field->list.size(config); ++i)
                check_values(field->list.item(i), config, problems);
            continue;
        }
        const Value value = field->get(config);
        if (keeps_rule(*field, value)) continue;
        problems.push_back({"", 0, field->path,
                            "is " + printable(value_json(*field, value), 60) + "; expected " + expectation(*field)});
    }
}
} // namespace

std::vector<ConfigProblem> validate(const Config& config) {
    using namespace config_io;
    std::vector<ConfigProblem> problems;
    const Field root = config_fields();
    check_values(root, config, problems);
    if (!problems.empty()) return problems; // conflicts among values that are out of range would be noise
    Config resolved = config;
    resolve(resolved);
    for (const Conflict& conflict : find_conflicts(resolved)) {
        problems.push_back({"", 0, conflict.paths.front(), conflict.message});
    }
    return problems;
}

} // namespace ballast
