#include "graft_calibrate.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "graft_sites.h"

namespace ballast {

namespace {

constexpr std::int64_t kTokens = 4096;

/// "blocks.3.ffn.pre_norm" as {"blocks.3.ffn", "pre_norm"}.
struct NormName {
    std::string module;
    std::string slot;

    explicit NormName(std::string_view name) {
        const std::size_t dot = name.rfind('.');
        module = dot == std::string_view::npos ? "" : name.substr(0, dot);
        slot = dot == std::string_view::npos ? name : name.substr(dot + 1);
    }
};

/// What a sublayer adds to the stream.
Var branch_of(const Tape& tape, std::string_view module) {
    for (const Node& node : tape.nodes())
        if (node.site == module && (node.op == &ops::residual_op || node.op == &ops::residual_scaled_op))
            return node.inputs[1];
    return {};
}

/// What a norm hands on to whatever comes next, or, in a model without it, what stands there. Unset for the norms of
/// attention, which see a part of a value each.
Var value_at(const Tape& tape, const NormName& norm) {
    const auto either = [](Var first, Var second) { return first ? first : second; };
    if (norm.slot == "embedding_norm") return either(output_of(tape, norm.slot), output_of(tape, "embedding"));
    if (norm.slot == "final_norm") return input_of(tape, "head");
    if (norm.slot == "pre_norm")
        return either(input_of(tape, norm.module + ".qkv"), input_of(tape, norm.module + ".input"));
    if (norm.slot == "out_norm") return branch_of(tape, norm.module);
    if (norm.slot == "inner_norm") return input_of(tape, norm.module + ".output");
    if (norm.slot == "post_norm") return output_of(tape, norm.module);
    return {};
}

void append(std::vector<float>& out, const Tape& tape, Var value) {
    out.insert(out.end(), tape.data(value), tape.data(value) + tape.shape(value).elements());
}

/// The queries, keys or values: what their norm makes, or, in a model without it, those of the packed projection.
void append_heads(std::vector<float>& out, const Tape& tape, const NormName& norm, const ModelConfig& model) {
    if (const Var normalized = output_of(tape, norm.module + "." + norm.slot)) {
        append(out, tape, normalized);
        return;
    }
    const Var packed = output_of(tape, norm.module + ".qkv");
    if (!packed) return;
    const std::int64_t head_width = model.width / model.heads;
    const std::int64_t first = norm.slot == "q_norm"   ? 0
                               : norm.slot == "k_norm" ? model.heads
                                                       : model.heads + model.kv_heads;
    const std::int64_t count = norm.slot == "q_norm" ? model.heads : model.kv_heads;
    const Shape shape = tape.shape(packed);
    for (std::int64_t row = 0; row < shape.rows(); ++row) {
        const float* const begin = tape.data(packed) + row * shape.width() + first * head_width;
        out.insert(out.end(), begin, begin + count * head_width);
    }
}

/// The best factor and offset of one feature.
struct Fit {
    double factor = 1;
    double offset = 0;
};

/// Least squares of `wanted` on elements `feature`, `feature` + `width`, … of `given`.
Fit fit(const std::vector<float>& given, const std::vector<float>& wanted, std::size_t feature, std::size_t width,
        bool has_offset) {
    double given_mean = 0, wanted_mean = 0, count = 0;
    for (std::size_t i = feature; has_offset && i < given.size(); i += width, ++count) {
        given_mean += static_cast<double>(given[i]);
        wanted_mean += static_cast<double>(wanted[i]);
    }
    if (count > 0) {
        given_mean /= count;
        wanted_mean /= count;
    }
    double products = 0, squares = 0;
    for (std::size_t i = feature; i < given.size(); i += width) {
        const double x = static_cast<double>(given[i]) - given_mean, y = static_cast<double>(wanted[i]) - wanted_mean;
        products += x * y;
        squares += x * x;
    }
    const double factor = products / squares;
    if (!std::isfinite(factor) || !std::isfinite(wanted_mean)) return {};
    return {factor, wanted_mean - factor * given_mean};
}

class Calibration {
public:
    Calibration(const CalibrationModels& models, const Config& config, const Dataset& data)
        : models_(models), data_(data), seed_(config.seed), batch_(config.train.micro_batch),
          time_(std::min(models.before.context(), models.after.context())),
          batches_((kTokens + batch_ * time_ - 1) / (batch_ * time_)), old_tape_(ops::registry()),
          new_tape_(ops::registry()), inputs_(static_cast<std::size_t>(batch_ * time_)), targets_(inputs_.size()) {}

    /// Those of `norms` that the new model runs, in that order.
    std::vector<std::string> in_order_of_the_pass(std::span<const std::string> norms) {
        run(0, false);
        std::vector<std::string> order;
        for (const Node& node : new_tape_.nodes()) {
            const bool wanted = std::find(norms.begin(), norms.end(), node.site) != norms.end();
            if (wanted && (order.empty() || order.back() != node.site)) order.emplace_back(node.site);
        }
        return order;
    }

    /// False when the old model has no such place.
    bool calibrate(const std::string& name) {
        set_running_statistics(name);
        std::vector<float> given, wanted;
        bool hands_on_as_it_is = true; // nothing, such as a scale by depth, comes between the norm and the place
        for (std::int64_t i = 0; i < batches_; ++i) {
            run(i, true);
            const Var output = output_of(new_tape_, name);
            const NormName place(place_of(name));
            if (const Var value = value_at(new_tape_, place)) {
                hands_on_as_it_is = value.index == output.index;
                append(given, new_tape_, value);
                if (const Var old = value_at(old_tape_, place)) append(wanted, old_tape_, old);
            } else {
                append(given, new_tape_, output);
                append_heads(wanted, old_tape_, place, models_.old_config);
            }
        }
        if (given.size() != wanted.size()) return false;
        set(name, given, wanted, hands_on_as_it_is);
        return true;
    }

private:
    void run(std::int64_t batch, bool both) {
        data_.batch(seed_, batch + 1, batch_, time_, inputs_.data(), targets_.data());
        const TokenBatch tokens{inputs_, {batch_, time_}};
        new_tape_.begin(Mode::eval);
        models_.after(new_tape_, tokens);
        if (!both) return;
        old_tape_.begin(Mode::eval);
        models_.before(old_tape_, tokens);
    }

    /// A norm behind the last sum is all that stands before the output layer where there is no final norm: there it
    /// does what the old model's final norm did, if that had one.
    std::string place_of(const std::string& name) const {
        const bool is_last = output_of(new_tape_, name).index == input_of(new_tape_, "head").index;
        return is_last ? "final_norm" : name;
    }

    void set_running_statistics(const std::string& name) {
        const auto buffer = [&](const char* part) -> float* {
            for (const Param& param : models_.table.buffers())
                if (param.name == name + part) return models_.table.values() + param.offset;
            return nullptr;
        };
        float* const mean = buffer(".running_mean");
        float* const variance = buffer(".running_variance");
        if (mean == nullptr) return;
        std::vector<float> seen;
        std::size_t width = 0;
        for (std::int64_t i = 0; i < batches_; ++i) {
            run(i, false);
            const Var input = input_of(new_tape_, name);
            width = static_cast<std::size_t>(new_tape_.shape(input).width());
            append(seen, new_tape_, input);
        }
        const std::size_t row_count = seen.size() / width;
        const auto rows = static_cast<double>(row_count);
        for (std::size_t feature = 0; feature < width; ++feature) {
            double sum = 0, squares = 0;
            for (std::size_t i = feature; i < seen.size(); i += width)
                sum += static_cast<double>(seen[i]);
            for (std::size_t i = feature; i < seen.size(); i += width)
                squares += std::pow(static_cast<double>(seen[i]) - sum / rows, 2);
            mean[feature] = static_cast<float>(sum / rows);
            variance[feature] = static_cast<float>(squares / rows);
        }
    }

    void set(const std::string& name, const std::vector<float>& given, const std::vector<float>& wanted,
             bool may_offset) {
        const Param* const gain = models_.table.find(name + ".gain");
        const Param* const bias = may_offset ? models_.table.find(name + ".bias") : nullptr;
        if (gain == nullptr) return;
        const auto width = static_cast<std::size_t>(gain->shape.elements());
        const double one = gain->init.value == 0 ? 1 : 0; // with a unit offset, the factor is 1 + gain
        float* const gains = models_.table.values() + gain->offset;
        for (std::size_t i = 0; i < width; ++i) {
            const Fit found = fit(given, wanted, i, width, bias != nullptr);
            gains[i] = static_cast<float>((static_cast<double>(gains[i]) + one) * found.factor - one);
            if (bias == nullptr) continue;
            float& offset = models_.table.values()[bias->offset + static_cast<std::int64_t>(i)];
            offset = static_cast<float>(static_cast<double>(offset) * found.factor + found.offset);
        }
    }

    const CalibrationModels& models_;
    const Dataset& data_;
    std::uint64_t seed_;
    std::int64_t batch_;
    std::int64_t time_;
    std::int64_t batches_;
    Tape old_tape_;
    Tape new_tape_;
    std::vector<std::int32_t> inputs_;
    std::vector<std::int32_t> targets_;
};

} // namespace

std::vector<std::string> calibrate_norms(const CalibrationModels& models, std::span<const std::string> norms,
                                         const Config& config, const Dataset& data) {
    Calibration calibration(models, config, data);
    std::vector<std::string> fitted;
    for (const std::string& name : calibration.in_order_of_the_pass(norms))
        if (calibration.calibrate(name)) fitted.push_back(name);
    return fitted;
}

} // namespace ballast
