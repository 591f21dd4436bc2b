#include "check.h"

#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/config/placement.h"
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

void must_divide(std::string_view part_path, std::int64_t part, std::string_view whole_path, std::int64_t whole,
                 std::vector<Conflict>& out) {
    if (part < 1 || whole < 1 || whole % part == 0) return; // out of range is a mistake of its own
    out.push_back({{part_path, whole_path},
                   amount(part_path, part) + " does not divide " + amount(whole_path, whole) +
                       "; expected a divisor, such as " + near_divisors(part, whole)});
}

bool ends_at_final_lr(ScheduleKind kind) {
    return kind == ScheduleKind::linear || kind == ScheduleKind::cosine || kind == ScheduleKind::wsd;
}

} // namespace

std::vector<Conflict> find_conflicts(const Config& config) {
    std::vector<Conflict> out;
    const ModelConfig& model = config.model;
    if (config.data.path.empty()) {
        out.push_back({{"data.path"}, "is not given; expected a text file or a directory of bin data"});
    }
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
    if (model.norm.bias == Switch::on && model.norm.kind != NormKind::layernorm) {
        out.push_back({{"model.norm.bias", "model.norm.kind"},
                       "model.norm.bias is on, but model.norm.kind " + std::string(to_string(model.norm.kind)) +
                           " has no bias; expected auto or off"});
    }
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
        const bool on = model.bias && model.norm.kind == NormKind::layernorm;
        model.norm.bias = on ? Switch::on : Switch::off;
    }
    if (model.final_norm == Switch::automatic) {
        const bool on = placement_row(model.norm.placement).final_norm && model.norm.kind != NormKind::none;
        model.final_norm = on ? Switch::on : Switch::off;
    }
    if (config.train.micro_batch == 0) config.train.micro_batch = config.train.batch;
}

std::vector<ConfigProblem> validate(const Config& config) {
    using namespace config_io;
    std::vector<ConfigProblem> problems;
    const Field root = config_fields();
    for (const Field* field : leaves(root)) {
        const Value value = field->get(config);
        if (keeps_rule(*field, value)) continue;
        problems.push_back({"", 0, field->path,
                            "is " + printable(value_json(*field, value), 60) + "; expected " + expectation(*field)});
    }
    if (!problems.empty()) return problems; // conflicts among values that are out of range would be noise
    Config resolved = config;
    resolve(resolved);
    for (const Conflict& conflict : find_conflicts(resolved)) {
        problems.push_back({"", 0, std::string(conflict.paths.front()), conflict.message});
    }
    return problems;
}

} // namespace ballast
