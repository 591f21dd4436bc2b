#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "ballast/autograd/op.h"

namespace ballast::inline BALLAST_PRECISION {

/// A value on a tape. Valid until the tape begins again.
struct Var {
    std::int32_t index = -1;
    explicit operator bool() const { return index >= 0; }
};

/// One recorded op: plain data.
struct Node {
    const OpDef* op;
    std::array<Var, kMaxInputs> inputs;
    std::uint8_t input_count;
    Var output;
    real* saved;
    std::int64_t saved_count;
    Attributes attributes;
    std::string_view site; ///< the module that recorded it (Tape::Site); empty: none
};

/// Seconds that a recorded op took.
struct NodeSeconds {
    double forward = 0;
    double backward = 0;
};

/// Records ops as they run and differentiates them in reverse (reverse-mode automatic differentiation; Griewank &
/// Walther, "Evaluating Derivatives", chapter 3). Nodes stand in the order of their execution, so backward is a loop
/// from the last to the first.
///
/// Memory: values and gradients live in an arena that begin() resets, so a steady-state step allocates nothing. From
/// the beginning of backward() on, memory serves the gradients of earlier nodes once it is dead: a value, when the
/// last backward that reads it has run (OpDef::reads); a gradient and saved state, when the backward of their node has.
/// After backward() only the leaves and the root (value and saved state) are readable, unless gradients are kept.
///
/// Not thread-safe; independent tapes are independent.
class Tape {
public:
    /// `registry` is the explicit list of all ops (ops/registry.h); record() refuses an op that is not in it, so an op
    /// that the tests' loops do not see cannot be used.
    explicit Tape(std::span<const OpDef* const> registry) : Tape(registry, Arena::Backing::memory) {}
    /// With Backing::none, a tape that plans: it records ops and goes through backward without running any, so that
    /// activation_bytes() is what a tape that runs them would take. Values must not be read.
    Tape(std::span<const OpDef* const> registry, Arena::Backing backing) : registry_(registry), arena_(backing) {}
    Tape(const Tape&) = delete;
    Tape& operator=(const Tape&) = delete;

    /// Forgets everything recorded. `mode` is explicit and fixed until the next begin(). `keep_values` makes release()
    /// do nothing.
    void begin(Mode mode, RandomKey random = {}, bool keep_values = true);
    Mode mode() const { return mode_; }

    /// A leaf without gradient. The memory stays the caller's and must outlive the pass.
    Var constant(const Shape& shape, const real* data);

    /// A leaf with a gradient in the caller's memory. The same `data` gives the same Var within one pass, so a tensor
    /// used in two places (tied embeddings) gets the sum of both gradients.
    Var leaf(const Shape& shape, const real* data, real* gradient);

    /// Runs `op` and records it. Throws ShapeError when the inputs do not fit, Error when the op is not registered.
    Var record(const OpDef& op, std::span<const Var> inputs, const Attributes& attributes = {});
    Var record(const OpDef& op, std::initializer_list<Var> inputs, const Attributes& attributes = {}) {
        return record(op, std::span(inputs.begin(), inputs.size()), attributes);
    }

    /// Says that neither an op nor anybody else will be given `v` again. Where no backward reads it, the next ops use
    /// its memory.
    void release(Var v);

    /// Names what is recorded while it lives after the module that records it, "blocks.3.attention.qkv", for whoever
    /// reads values off the tape. The innermost name counts. The name must outlive the pass.
    class Site {
    public:
        Site(Tape& tape, std::string_view name) : tape_(tape), outer_(std::exchange(tape.site_, name)) {}
        ~Site() { tape_.site_ = outer_; }
        Site(const Site&) = delete;
        Site& operator=(const Site&) = delete;

    private:
        Tape& tape_;
        std::string_view outer_;
    };

    struct BackwardOptions {
        /// Leaf gradients are added to what their memory holds (a later micro-batch) rather than overwritten.
        bool accumulate = false;
        /// Keeps every value and gradient readable after backward(), at the price of memory.
        bool keep_gradients = false;
        /// Cotangent of the root, as many reals as it has elements; null stands for ones.
        const real* cotangent = nullptr;
    };

    /// Puts d(root . cotangent)/d(leaf) where every leaf wants it. Leaves that the root does not depend on get zeros
    /// (unless accumulating). Throws Error on a tape in eval mode, when called twice, and when the root is a leaf.
    void backward(Var root, const BackwardOptions& options);
    void backward(Var root) { backward(root, BackwardOptions{}); }

    /// By value, since recording moves what the tape holds.
    Shape shape(Var v) const { return value(v).shape; }
    const real* data(Var v) const { return value(v).data; }
    /// Gradient of a value after backward() with keep_gradients, or of a leaf; null when it has none.
    const real* gradient(Var v) const { return value(v).gradient; }
    /// What has been recorded so far. It, and a node of it, ends with the next record().
    std::span<const Node> nodes() const { return nodes_; }
    /// The node that produced `v`; throws Error for a leaf.
    const Node& producer(Var v) const;

    /// From the next begin() on, measures the time of each op, or no longer. Off at first. The seconds start at zero
    /// and add up, node by node, over passes that record the same ops, such as the micro-batches of a step.
    void time_nodes(bool on);
    /// One for each node of nodes(); none when time is not measured.
    std::span<const NodeSeconds> node_seconds() const { return seconds_; }

    /// Work of the recorded ops, forward and backward.
    Flops flops() const;
    /// Bytes of values, gradients and saved state at the most so far, and of scratch memory.
    std::size_t activation_bytes() const { return arena_.high_water(); }
    std::size_t scratch_bytes() const { return scratch_.high_water(); }

private:
    struct Value {
        Shape shape;
        const real* data;
        real* gradient;
        std::int32_t node; ///< index of the producer, -1 for a leaf
        bool needs_gradient;
        bool has_gradient; ///< something has been written to `gradient` in this backward pass
        /// The first node whose backward reads the value, and so the last to do so; kNobody: there is none.
        std::int32_t last_reader = kNobody;
        bool is_free = false; ///< its memory serves something else
    };
    static constexpr std::int32_t kNobody = std::numeric_limits<std::int32_t>::max();
    struct FreeBuffer {
        real* data;
        std::int64_t elements;
    };

    const Value& value(Var v) const;
    Value& value(Var v);
    bool plans() const { return arena_.backing() == Arena::Backing::none; }
    real* take_buffer(std::int64_t elements);
    void give_buffer(real* data, std::int64_t elements);
    void free_value(Value& value);
    real* take_gradient(std::size_t node_index, std::size_t input, bool keep_values);
    void run_backward(std::size_t node_index, bool keep_gradient);

    std::span<const OpDef* const> registry_;
    Mode mode_ = Mode::eval;
    bool keep_values_ = true;
    RandomKey random_;
    bool backward_done_ = false;
    std::string_view site_;
    Arena arena_;
    Arena scratch_;
    std::vector<Value> values_;
    std::vector<Node> nodes_;
    std::vector<Var> leaves_;
    std::vector<FreeBuffer> free_;
    bool times_ = false;
    std::vector<NodeSeconds> seconds_;
};

} // namespace ballast::inline BALLAST_PRECISION
