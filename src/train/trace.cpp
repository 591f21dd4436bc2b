#include "ballast/train/trace.h"

#include <cmath>

namespace ballast {

namespace {

/// Reads a tape on which backward() has kept the gradients.
class Tracer {
public:
    Tracer(const Tape& tape, const ParamTable& table) : tape_(tape), table_(table) {}

    std::vector<TraceEntry> read() {
        for (const Node& node : tape_.nodes())
            read_value(node);
        for (std::size_t i = tape_.nodes().size(); i-- > 0;)
            read_gradients(i);
        return std::move(entries_);
    }

private:
    std::string name_of(Var value) const {
        for (const Node& node : tape_.nodes())
            if (node.output.index == value.index) return place_of(node);
        for (const Param& param : table_.params())
            if (table_.values() + param.offset == tape_.data(value)) return param.name;
        return "constant";
    }

    static std::string place_of(const Node& node) {
        return (node.site.empty() ? "" : std::string(node.site) + ": ") + std::string(node.op->name);
    }

    Range value_range(Var value) const { return range_of(tape_.data(value), tape_.shape(value).elements()); }
    Range gradient_range(Var value) const { return range_of(tape_.gradient(value), tape_.shape(value).elements()); }

    std::vector<TraceInput> inputs_of(const Node& node) const {
        std::vector<TraceInput> inputs;
        for (std::size_t i = 0; i < node.input_count; ++i)
            inputs.push_back({name_of(node.inputs[i]), value_range(node.inputs[i])});
        return inputs;
    }

    TraceEntry& add(const Node& node, Var tensor) {
        TraceEntry& entry = entries_.emplace_back();
        entry.op = node.op->name;
        entry.site = node.site;
        entry.shape = tape_.shape(tensor).text();
        entry.inputs = inputs_of(node);
        return entry;
    }

    void read_value(const Node& node) { add(node, node.output).range = value_range(node.output); }

    /// Gradients of the inputs that nobody reads before this op, so that its backward is the last to add to them.
    void read_gradients(std::size_t index) {
        const Node& node = tape_.nodes()[index];
        if (tape_.gradient(node.output) == nullptr) return;
        for (std::size_t i = 0; i < node.input_count; ++i) {
            const Var input = node.inputs[i];
            if (tape_.gradient(input) == nullptr || is_read_before(input, index)) continue;
            TraceEntry& entry = add(node, input);
            entry.backward = true;
            entry.made = name_of(input);
            entry.range = gradient_range(input);
            entry.inputs.insert(entry.inputs.begin(), {"gradient of " + place_of(node), gradient_range(node.output)});
        }
    }

    bool is_read_before(Var value, std::size_t index) const {
        for (std::size_t i = 0; i < index; ++i)
            for (std::size_t input = 0; input < tape_.nodes()[i].input_count; ++input)
                if (tape_.nodes()[i].inputs[input].index == value.index) return true;
        return false;
    }

    const Tape& tape_;
    const ParamTable& table_;
    std::vector<TraceEntry> entries_;
};

} // namespace

Range range_of(const real* values, std::int64_t count) {
    Range range;
    double squares = 0;
    range.min = range.max = std::nan("");
    for (std::int64_t i = 0; i < count; ++i) {
        const auto value = static_cast<double>(values[i]);
        squares += value * value;
        if (!std::isfinite(value)) {
            ++range.not_finite;
            continue;
        }
        range.min = std::fmin(range.min, value); // of a NaN and a number, the number
        range.max = std::fmax(range.max, value);
    }
    range.rms = std::sqrt(squares / static_cast<double>(count));
    return range;
}

std::vector<TraceEntry> trace_of(const Tape& tape, const ParamTable& table) { return Tracer(tape, table).read(); }

const TraceEntry* first_not_finite(const std::vector<TraceEntry>& trace) {
    for (const TraceEntry& entry : trace)
        if (entry.range.not_finite > 0) return &entry;
    return nullptr;
}

} // namespace ballast
