#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/autograd/tape.h"
#include "ballast/base/arena.h"

namespace ballast::inline BALLAST_PRECISION {

/// How a parameter starts.
struct ParamInit {
    enum class Kind : std::uint8_t {
        constant, ///< every element is `value`
        normal,   ///< normal with mean 0 and standard deviation `value`
        uniform,  ///< uniform in [-value, value]
    };
    Kind kind = Kind::constant;
    double value = 0;
    /// Elements from `tail` on (-1: none) are multiplied by `tail_scale`: stacked matrices may start differently.
    std::int64_t tail = -1;
    double tail_scale = 1;

    static ParamInit constant(double value) { return {Kind::constant, value}; }
    static ParamInit normal(double deviation) { return {Kind::normal, deviation}; }
    static ParamInit uniform(double limit) { return {Kind::uniform, limit}; }
};

/// Whether weight decay applies; stated by whoever adds a parameter.
enum class DecayGroup : std::uint8_t { decay, no_decay };

struct Param {
    std::string name;
    Shape shape;
    ParamInit init;
    DecayGroup group;
    std::int64_t offset = -1; ///< of its first element in values() and gradients(); set by allocate()
};

/// A second name for a parameter.
struct ParamTie {
    std::string name;
    std::size_t param; ///< index into params()
};

class ParamTable;

/// A module's handle on a tensor that is not trained, such as a batchnorm's running mean.
class Buffer {
public:
    Buffer() = default; ///< none: puts an unset Var on the tape
    Buffer(const ParamTable& table, std::size_t index) : table_(&table), index_(index) {}

    explicit operator bool() const { return table_ != nullptr; }
    /// The buffer as a constant of this pass.
    Var operator()(Tape& tape) const;

private:
    const ParamTable* table_ = nullptr;
    std::size_t index_ = 0;
};

/// A module's handle on one of its parameters.
class Parameter {
public:
    Parameter() = default; ///< none: puts an unset Var on the tape
    Parameter(const ParamTable& table, std::size_t index) : table_(&table), index_(index) {}

    explicit operator bool() const { return table_ != nullptr; }
    const Param& param() const;
    std::size_t index() const { return index_; }

    /// The parameter as a leaf of this pass; with a gradient when the table has gradients and the tape trains.
    Var operator()(Tape& tape) const;

private:
    const ParamTable* table_ = nullptr;
    std::size_t index_ = 0;
};

/// All parameters of a model: first a list that modules add to, then (allocate) one contiguous array of values and one
/// of gradients with the same offsets. Optimizer, clipping, checkpoint and statistics are loops over these arrays.
///
/// Parameters that decay come first, so each decay group is one range. Every parameter starts at a multiple of 64
/// bytes; the padding between them is zero and stays zero. Modules keep pointers to the table, so it does not move.
///
/// Behind the parameters stand the buffers: tensors that belong to the model's state and to its checkpoints, but are
/// not trained. They have no gradients, and neither size() nor count() includes them.
class ParamTable {
public:
    /// With Backing::none, a table that plans: allocate() lays the parameters out, and there are no values.
    explicit ParamTable(Arena::Backing backing = Arena::Backing::memory) : permanent_(backing) {}
    ParamTable(const ParamTable&) = delete;
    ParamTable& operator=(const ParamTable&) = delete;

    /// Throws Error when the name is taken or the table is already allocated.
    Parameter add(std::string name, const Shape& shape, ParamInit init, DecayGroup group);
    /// A tensor that is not trained, every element `value` at the start. Throws as add() does.
    Buffer add_buffer(std::string name, const Shape& shape, double value);
    /// Gives `existing` a second name.
    Parameter tie(std::string name, Parameter existing);

    /// Lays the parameters out and draws their initial values. A parameter's values are a function of (seed, its name,
    /// its init) alone: two models that share a tensor's name and shape start with the same tensor, whatever else
    /// differs between them.
    void allocate(std::uint64_t seed);
    /// Adds the gradients' array (zeros), which only training needs.
    void allocate_gradients();

    std::span<const Param> params() const { return params_; }
    std::span<const Param> buffers() const { return buffers_; }
    std::span<const ParamTie> ties() const { return ties_; }
    /// Null when there is no such name; second names count.
    const Param* find(std::string_view name) const;

    real* values() const { return values_; }
    real* gradients() const { return gradients_; } ///< null before allocate_gradients()
    /// Reals in each array, padding included; the first decay_size() of them belong to decaying parameters.
    std::int64_t size() const { return size_; }
    std::int64_t decay_size() const { return decay_size_; }
    /// Reals in values() with the buffers: all of a model's state.
    std::int64_t state_size() const { return state_size_; }
    /// Number of trained scalars, without padding; shared ones counted once.
    std::int64_t count() const;

private:
    void require_new(const std::string& name) const;

    Arena permanent_;
    std::vector<Param> params_;
    std::vector<Param> buffers_;
    std::vector<ParamTie> ties_;
    real* values_ = nullptr;
    real* gradients_ = nullptr;
    std::int64_t size_ = 0;
    std::int64_t decay_size_ = 0;
    std::int64_t state_size_ = 0;
};

} // namespace ballast::inline BALLAST_PRECISION
