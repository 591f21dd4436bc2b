#include "ballast/autograd/tape.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "ballast/base/error.h"

namespace ballast::inline BALLAST_PRECISION {

void require_shape(bool fits, std::string_view op, std::string_view expectation, std::span<const Shape> inputs) {
    if (fits) return;
    std::string message = "[" + std::string(op) + "] " + std::string(expectation) + "; got ";
    for (std::size_t i = 0; i < inputs.size(); ++i)
        message += (i > 0 ? ", " : "") + inputs[i].text();
    throw ShapeError(message);
}

std::int64_t saves_nothing(std::span<const Shape>, const Attributes&) { return 0; }

Flops one_flop_per_input_element(std::span<const Shape> inputs, const Attributes&) {
    double elements = 0;
    for (const Shape& shape : inputs)
        elements += static_cast<double>(shape.elements());
    return {elements, elements};
}

namespace {
struct Inputs {
    std::array<Tensor, kMaxInputs> tensors;
    std::array<Shape, kMaxInputs> shapes;
    std::size_t count;

    Inputs(const Tape& tape, std::span<const Var> vars) : count(vars.size()) {
        for (std::size_t i = 0; i < count; ++i) {
            shapes[i] = tape.shape(vars[i]);
            tensors[i] = {shapes[i], tape.data(vars[i])};
        }
    }
    std::span<const Tensor> as_tensors() const { return {tensors.data(), count}; }
    std::span<const Shape> as_shapes() const { return {shapes.data(), count}; }
};

/// Calls `run` and adds the seconds that it takes to `sum`, unless that is null.
template <class Run>
void timed(double* sum, Run&& run) {
    using Clock = std::chrono::steady_clock;
    if (sum == nullptr) return run();
    const auto start = Clock::now();
    run();
    *sum += std::chrono::duration<double>(Clock::now() - start).count();
}

std::span<const Var> inputs_of(const Node& node) { return {node.inputs.data(), node.input_count}; }

bool reads_input(const OpDef& op, std::size_t input) { return (op.reads.inputs >> input & 1) != 0; }
bool overwrites_input(const OpDef& op, std::size_t input) { return (op.reads.overwrites >> input & 1) != 0; }

/// Rounded up to whole cache lines, as in an arena.
std::int64_t in_lines(std::int64_t elements) {
    constexpr std::int64_t kLine = 64 / sizeof(real);
    return (elements + kLine - 1) / kLine * kLine;
}
} // namespace

void Tape::time_nodes(bool on) {
    times_ = on;
    seconds_.clear();
}

void Tape::begin(Mode mode, RandomKey random, bool keep_values) {
    mode_ = mode;
    keep_values_ = keep_values;
    random_ = random;
    backward_done_ = false;
    arena_.reset();
    values_.clear();
    nodes_.clear();
    leaves_.clear();
    free_.clear();
}

const Tape::Value& Tape::value(Var v) const {
    if (v.index < 0 || static_cast<std::size_t>(v.index) >= values_.size())
        throw Error("a Var was used that is not on this tape (an unset one, or from before begin())");
    return values_[static_cast<std::size_t>(v.index)];
}

Tape::Value& Tape::value(Var v) { return const_cast<Value&>(std::as_const(*this).value(v)); }

const Node& Tape::producer(Var v) const {
    const std::int32_t node = value(v).node;
    if (node < 0) throw Error("a leaf has no producer");
    return nodes_[static_cast<std::size_t>(node)];
}

Var Tape::constant(const Shape& shape, const real* data) {
    values_.push_back({shape, data, nullptr, -1, false, false});
    return {static_cast<std::int32_t>(values_.size() - 1)};
}

Var Tape::leaf(const Shape& shape, const real* data, real* gradient) {
    for (const Var known : leaves_)
        if (value(known).data == data) {
            require_shape(value(known).shape == shape, "leaf", "a tensor has one shape",
                          std::array{value(known).shape, shape});
            return known;
        }
    values_.push_back({shape, data, gradient, -1, gradient != nullptr, false});
    leaves_.push_back({static_cast<std::int32_t>(values_.size() - 1)});
    return leaves_.back();
}

Var Tape::record(const OpDef& op, std::span<const Var> inputs, const Attributes& attributes) {
    if (std::find(registry_.begin(), registry_.end(), &op) == registry_.end())
        throw Error("op '" + std::string(op.name) + "' is not in the registry of this tape");
    if (inputs.size() > kMaxInputs)
        throw Error("op '" + std::string(op.name) + "' was given more than " + std::to_string(kMaxInputs) + " inputs");
    if (std::any_of(inputs.begin(), inputs.end(), [&](Var v) { return value(v).is_free; }))
        throw Error("op '" + std::string(op.name) + "' was given a value that was released: its memory has another");

    const Inputs in(*this, inputs);
    const Shape shape = op.infer_shape(in.as_shapes(), attributes);
    real* output = take_buffer(shape.elements());
    const std::int64_t saved_size = op.saved_size(in.as_shapes(), attributes);
    real* saved = saved_size > 0 ? take_buffer(saved_size) : nullptr;

    const auto node = static_cast<std::int32_t>(nodes_.size());
    const auto place = static_cast<std::size_t>(node);
    if (times_ && seconds_.size() <= place) seconds_.resize(place + 1);
    if (!plans()) {
        const Arena::Mark mark(scratch_);
        timed(times_ ? &seconds_[place].forward : nullptr, [&] {
            op.forward({in.as_tensors(), output, saved, attributes, mode_, random_, place, scratch_});
        });
    }

    const bool needs_gradient = mode_ == Mode::train && std::any_of(inputs.begin(), inputs.end(),
                                                                    [&](Var v) { return value(v).needs_gradient; });
    values_.push_back({shape, output, nullptr, node, needs_gradient, false, op.reads.output ? node : kNobody});
    for (std::size_t i = 0; i < inputs.size(); ++i) {
        std::int32_t& last_reader = value(inputs[i]).last_reader;
        if (reads_input(op, i)) last_reader = std::min(last_reader, node);
    }
    const Var result{static_cast<std::int32_t>(values_.size() - 1)};

    Node record{&op, {}, static_cast<std::uint8_t>(inputs.size()), result, saved, saved_size, attributes, site_};
    std::copy(inputs.begin(), inputs.end(), record.inputs.begin());
    nodes_.push_back(record);
    return result;
}

void Tape::release(Var v) {
    Value& released = value(v);
    const bool is_read = mode_ == Mode::train && released.last_reader != kNobody;
    if (!keep_values_ && !is_read) free_value(released);
}

real* Tape::take_buffer(std::int64_t elements) {
    elements = in_lines(elements);
    // The smallest that is large enough; of equals the newest, as it is still cached. Tensors of a network have few
    // distinct sizes, so an exact fit is the rule. A buffer is not cut for less than half of it.
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
        if (it->elements >= elements && it->elements <= 2 * elements &&
            (best == free_.end() || it->elements <= best->elements))
            best = it;
    if (best == free_.end()) return arena_.allocate<real>(elements);
    real* const data = best->data;
    best->data += elements;
    best->elements -= elements;
    if (best->elements == 0) free_.erase(best);
    return data;
}

void Tape::give_buffer(real* data, std::int64_t elements) { free_.push_back({data, in_lines(elements)}); }

/// Leaves are the caller's.
void Tape::free_value(Value& value) {
    if (value.node < 0 || value.is_free) return;
    value.is_free = true;
    give_buffer(const_cast<real*>(value.data), value.shape.elements());
}

/// Memory for the gradient of an input: that of its value, if the op can do with that and nobody reads the value later.
real* Tape::take_gradient(std::size_t node_index, std::size_t input, bool keep_values) {
    const Node& node = nodes_[node_index];
    Value& of = value(node.inputs[input]);
    const auto uses = std::count_if(node.inputs.begin(), node.inputs.begin() + node.input_count,
                                    [&](Var v) { return v.index == node.inputs[input].index; });
    const bool overwrites = overwrites_input(*node.op, input) && uses == 1 && of.node >= 0 &&
                            of.last_reader == static_cast<std::int32_t>(node_index);
    if (keep_values || !overwrites) return take_buffer(of.shape.elements());
    of.is_free = true;
    return const_cast<real*>(of.data);
}

void Tape::run_backward(std::size_t node_index, bool keep_gradient) {
    const Node& node = nodes_[node_index];
    const Value& output = value(node.output);
    const Inputs in(*this, inputs_of(node));

    // An input that appears twice gets one buffer: the place that the op comes to first writes, the other adds.
    std::array<Grad, kMaxInputs> grads{};
    for (const bool is_last : {false, true})
        for (std::size_t i = 0; i < in.count; ++i) {
            Value& input = value(node.inputs[i]);
            if (!input.needs_gradient || overwrites_input(*node.op, i) != is_last) continue;
            if (input.gradient == nullptr) input.gradient = take_gradient(node_index, i, keep_gradient);
            grads[i] = {input.gradient, input.has_gradient};
            input.has_gradient = true;
        }

    if (plans()) return;
    const Arena::Mark mark(scratch_);
    real* output_gradient = output.gradient;
    if (keep_gradient) { // the op may overwrite what it is given
        output_gradient = scratch_.allocate<real>(output.shape.elements());
        std::copy_n(output.gradient, output.shape.elements(), output_gradient);
    }
    timed(times_ ? &seconds_[node_index].backward : nullptr, [&] {
        node.op->backward({in.as_tensors(),
                           {output.shape, output.data},
                           node.saved,
                           output_gradient,
                           {grads.data(), in.count},
                           node.attributes,
                           random_,
                           node_index,
                           scratch_});
    });
}

void Tape::backward(Var root, const BackwardOptions& options) {
    if (mode_ != Mode::train) throw Error("backward() on a tape in eval mode: begin(Mode::train) records gradients");
    if (value(root).node < 0) throw Error("backward() from a leaf: nothing was computed");
    if (backward_done_) throw Error("backward() was already called on this tape: begin() a new pass first");
    backward_done_ = true;

    for (const Var v : leaves_)
        value(v).has_gradient = options.accumulate;

    Value& top = value(root);
    if (top.needs_gradient) {
        const auto free_what_is_read_last_by = [&](Var v, std::int32_t node) {
            if (value(v).last_reader == node && v.index != root.index) free_value(value(v));
        };
        for (std::int32_t v = 0; !options.keep_gradients && v < static_cast<std::int32_t>(values_.size()); ++v)
            free_what_is_read_last_by({v}, kNobody);
        const std::int64_t elements = top.shape.elements();
        top.gradient = take_buffer(elements);
        top.has_gradient = true;
        if (!plans()) {
            if (options.cotangent != nullptr)
                std::copy_n(options.cotangent, elements, top.gradient);
            else
                std::fill_n(top.gradient, elements, real{1});
        }

        for (std::int32_t i = top.node; i >= 0; --i) {
            const Node& node = nodes_[static_cast<std::size_t>(i)];
            Value& output = value(node.output);
            const bool runs = output.has_gradient; // else the root does not depend on it
            if (runs) run_backward(static_cast<std::size_t>(i), options.keep_gradients);
            if (options.keep_gradients) continue;
            if (runs) {
                give_buffer(output.gradient, output.shape.elements());
                output.gradient = nullptr;
            }
            if (node.saved_count > 0 && node.output.index != root.index) give_buffer(node.saved, node.saved_count);
            free_what_is_read_last_by(node.output, i);
            for (const Var input : inputs_of(node))
                free_what_is_read_last_by(input, i);
        }
    }

    for (const Var v : leaves_) {
        const Value& leaf = value(v);
        if (leaf.gradient != nullptr && !leaf.has_gradient && !plans())
            std::fill_n(leaf.gradient, leaf.shape.elements(), real{0});
    }
}

Flops Tape::flops() const {
    Flops total;
    for (const Node& node : nodes_) {
        const Inputs in(*this, inputs_of(node));
        const Flops flops = node.op->flops(in.as_shapes(), node.attributes);
        total.forward += flops.forward;
        total.backward += flops.backward;
    }
    return total;
}

} // namespace ballast::inline BALLAST_PRECISION
