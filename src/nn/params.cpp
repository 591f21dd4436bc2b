#include "ballast/nn/params.h"

#include <algorithm>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/base/rng.h"

namespace ballast::inline BALLAST_PRECISION {

const Param& Parameter::param() const { return table_->params()[index_]; }

Var Parameter::operator()(Tape& tape) const {
    if (table_ == nullptr) return {};
    const Param& p = param();
    const bool wants_gradient = tape.mode() == Mode::train && table_->gradients() != nullptr;
    return tape.leaf(p.shape, table_->values() + p.offset, wants_gradient ? table_->gradients() + p.offset : nullptr);
}

Var Buffer::operator()(Tape& tape) const {
    if (table_ == nullptr) return {};
    const Param& buffer = table_->buffers()[index_];
    return tape.constant(buffer.shape, table_->values() + buffer.offset);
}

const Param* ParamTable::find(std::string_view name) const {
    for (const Param& param : params_)
        if (param.name == name) return &param;
    for (const ParamTie& tie : ties_)
        if (tie.name == name) return &params_[tie.param];
    return nullptr;
}

void ParamTable::require_new(const std::string& name) const {
    if (values_ != nullptr) throw Error("parameter '" + name + "' comes after the table was allocated");
    const auto has_name = [&](const Param& buffer) { return buffer.name == name; };
    if (find(name) != nullptr || std::any_of(buffers_.begin(), buffers_.end(), has_name))
        throw Error("two parameters are called '" + name + "'");
}

Parameter ParamTable::add(std::string name, const Shape& shape, ParamInit init, DecayGroup group) {
    require_new(name);
    params_.push_back({std::move(name), shape, init, group});
    return {*this, params_.size() - 1};
}

Buffer ParamTable::add_buffer(std::string name, const Shape& shape, double value) {
    require_new(name);
    buffers_.push_back({std::move(name), shape, ParamInit::constant(value), DecayGroup::no_decay});
    return {*this, buffers_.size() - 1};
}

Parameter ParamTable::tie(std::string name, Parameter existing) {
    require_new(name);
    ties_.push_back({std::move(name), existing.index()});
    return {*this, existing.index()};
}

namespace {
void draw(real* values, const Param& param, std::uint64_t seed) {
    const RandomStream stream(seed, "init/" + param.name);
    parallel_ranges(param.shape.elements(), 1 << 14, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const auto index = static_cast<std::uint64_t>(i);
            double value = param.init.value;
            if (param.init.kind == ParamInit::Kind::normal) value *= stream.normal(index);
            if (param.init.kind == ParamInit::Kind::uniform) value *= 2 * stream.uniform(index) - 1;
            if (param.init.tail >= 0 && i >= param.init.tail) value *= param.init.tail_scale;
            values[i] = static_cast<real>(value);
        }
    });
}

/// Puts a tensor behind what ends at `end`.
void place(Param& param, std::int64_t& end) {
    constexpr std::int64_t kAligned = 64 / sizeof(real);
    param.offset = end;
    end += (param.shape.elements() + kAligned - 1) / kAligned * kAligned;
}
} // namespace

void ParamTable::allocate(std::uint64_t seed) {
    if (values_ != nullptr) throw Error("the parameter table is already allocated");
    for (const DecayGroup group : {DecayGroup::decay, DecayGroup::no_decay}) {
        for (Param& param : params_)
            if (param.group == group) place(param, size_);
        if (group == DecayGroup::decay) decay_size_ = size_;
    }
    state_size_ = size_;
    for (Param& buffer : buffers_)
        place(buffer, state_size_);
    values_ = permanent_.allocate<real>(state_size_);
    if (permanent_.backing() == Arena::Backing::none) return;
    std::fill_n(values_, state_size_, real{0});
    for (const std::vector<Param>* list : {&params_, &buffers_})
        for (const Param& param : *list)
            draw(values_ + param.offset, param, seed);
}

void ParamTable::allocate_gradients() {
    if (gradients_ != nullptr) return;
    gradients_ = permanent_.allocate<real>(size_);
    if (permanent_.backing() == Arena::Backing::none) return;
    std::fill_n(gradients_, size_, real{0});
}

std::int64_t ParamTable::count() const {
    std::int64_t total = 0;
    for (const Param& param : params_)
        total += param.shape.elements();
    return total;
}

} // namespace ballast::inline BALLAST_PRECISION
