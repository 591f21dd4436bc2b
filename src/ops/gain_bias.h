#pragma once

#include <algorithm>
#include <array>
#include <initializer_list>
#include <span>
#include <string_view>

#include "ballast/autograd/tape.h"

namespace ballast::inline BALLAST_PRECISION::ops {

/// Which of gain and bias an op was given: they are optional, [width of x], and come after x among its inputs.
struct GainBias {
    bool has_gain;
    bool has_bias;

    /// The two among `in`, inputs or their gradients of an op that was given so many.
    template <class T>
    T gain(std::span<const T> in) const {
        return has_gain ? in[1] : T{};
    }
    template <class T>
    T bias(std::span<const T> in) const {
        return has_bias ? in[has_gain ? 2 : 1] : T{};
    }
    /// What comes after them.
    template <class T>
    std::span<const T> others(std::span<const T> in) const {
        return in.subspan(1 + (has_gain ? 1 : 0) + (has_bias ? 1 : 0));
    }

    /// For infer_shape.
    void require_shapes(std::string_view op, std::span<const Shape> in) const {
        require_shape((!has_gain || gain(in) == Shape{in[0].width()}) &&
                          (!has_bias || bias(in) == Shape{in[0].width()}),
                      op, "gain and bias are [width of x]", in);
    }
};

inline GainBias given(Var gain, Var bias) { return {static_cast<bool>(gain), static_cast<bool>(bias)}; }

/// Records an op with x, those of gain and bias that are set, and its other inputs.
inline Var record_with(Tape& tape, const OpDef& op, Var x, Var gain, Var bias, std::initializer_list<Var> others,
                       const Attributes& attributes) {
    std::array<Var, kMaxInputs> inputs{x};
    Var* end = inputs.data() + 1;
    for (const Var v : {gain, bias})
        if (v) *end++ = v;
    end = std::copy(others.begin(), others.end(), end);
    return tape.record(op, std::span<const Var>(inputs.data(), end), attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
