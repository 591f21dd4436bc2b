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

const Param* ParamTable::find(std::string_view name) const {
    for (const Param& param : params_)
        if (param.name == name) return &param;
    for (const ParamTie& tie : ties_)
        if (tie.name == name) return &params_[tie.param];
    return nullptr;
}

Parameter ParamTable::add(std::string name, const Shape& shape, ParamInit init, DecayGroup group) {
    if (values_ != nullptr) throw Error("parameter '" + name + "' comes after the table was allocated");
    if (find(name) != nullptr) throw Error("two parameters are called '" + name + "'");
    params_.push_back({std::move(name), shape, init, group});
    return {*this, params_.size() - 1};
}

Parameter ParamTable::tie(std::string name, Parameter existing) {
    if (find(name) != nullptr) throw Error("two parameters are called '" + name + "'");
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
            values[i] = static_cast<real>(value);
        }
    });
}
} // namespace

void ParamTable::allocate(std::uint64_t seed) {
    if (values_ != nullptr) throw Error("the parameter table is already allocated");
    constexpr std::int64_t kAligned = 64 / sizeof(real);
    for (const DecayGroup group : {DecayGroup::decay, DecayGroup::no_decay}) {
        for (Param& param : params_) {
            if (param.group != group) continue;
            param.offset = size_;
            size_ += (param.shape.elements() + kAligned - 1) / kAligned * kAligned;
        }
        if (group == DecayGroup::decay) decay_size_ = size_;
    }
    values_ = permanent_.allocate<real>(size_);
    if (permanent_.backing() == Arena::Backing::none) return;
    std::fill_n(values_, size_, real{0});
    for (const Param& param : params_)
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
