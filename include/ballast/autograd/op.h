#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ballast/autograd/shape.h"
#include "ballast/base/arena.h"
#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

enum class Mode : std::uint8_t { train, eval };

/// Most inputs an op can have.
inline constexpr std::size_t kMaxInputs = 6;

/// The parameters of one recorded op that are not tensors: a small trivially copyable struct of the op's own, such as
/// LinearAttributes, kept as plain bytes. The op that reads it is the op that wrote it.
class Attributes {
public:
    Attributes() = default;

    template <class T>
        requires(!std::is_same_v<std::remove_cvref_t<T>, Attributes>)
    Attributes(const T& value) { // NOLINT(google-explicit-constructor): the point is to pass a plain struct
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(bytes_));
        std::memcpy(bytes_.data(), &value, sizeof(T));
    }

    template <class T>
    T as() const {
        static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(bytes_));
        T value;
        std::memcpy(&value, bytes_.data(), sizeof(T));
        return value;
    }

private:
    std::array<std::byte, 64> bytes_{};
};

/// A value as an op sees it.
struct Tensor {
    Shape shape;
    const real* data = nullptr;
};

/// Key of every random number drawn in one forward and backward pass.
struct RandomKey {
    std::uint64_t seed = 0;
    std::uint64_t step = 0; ///< counts micro-batches, so that no two passes of a run share a key
};

struct ForwardCall {
    std::span<const Tensor> inputs;
    real* output; ///< to be written whole
    real* saved;  ///< OpDef::saved_size reals, kept for backward
    const Attributes& attributes;
    Mode mode;
    RandomKey random;
    std::uint64_t node; ///< index of this op on the tape: the stream of its random numbers
    Arena& scratch;     ///< given back after the call
};

struct BackwardCall {
    std::span<const Tensor> inputs;
    Tensor output;
    const real* saved;
    real* output_grad; ///< complete; may be overwritten, nobody reads it afterwards (a copy where it is to be kept)
    std::span<const Grad> input_grads;
    const Attributes& attributes;
    RandomKey random;
    std::uint64_t node;
    Arena& scratch;
};

/// Floating-point operations of one call, a multiply-add counted as two, for reports and benchmarks.
struct Flops {
    double forward = 0;
    double backward = 0;
};

/// One way of calling an op, for the loops over all ops: gradient checks and invariance tests.
struct OpSample {
    std::string label;
    std::vector<Shape> inputs;
    Attributes attributes;
    double low = -1; ///< inputs are drawn uniformly from [low, high], away from points without a derivative
    double high = 1;
    std::vector<std::size_t> constants = {}; ///< inputs that the op takes as constants: no gradient
};

/// Which values an op's backward reads, beside what forward has saved: memory of others is used for something else.
/// Bit i stands for input i. An op that says nothing reads everything.
struct BackwardReads {
    std::uint8_t inputs = 0xff;
    bool output = true;
    /// Inputs whose gradient may be put where their value is: no element is read after it has been written. Theirs is
    /// written after the gradients of the other inputs, which are written in order.
    std::uint8_t overwrites = 0;
};

/// A differentiable operation, as a value. All state of a call is in the call.
struct OpDef {
    std::string_view name;
    /// Shape of the output; throws ShapeError naming the op and the shapes when the inputs do not fit.
    Shape (*infer_shape)(std::span<const Shape> inputs, const Attributes&);
    /// Reals that forward keeps for backward.
    std::int64_t (*saved_size)(std::span<const Shape> inputs, const Attributes&);
    void (*forward)(const ForwardCall&);
    /// Puts the gradient of every input whose Grad is set where it says, writing or adding as it says.
    void (*backward)(const BackwardCall&);
    Flops (*flops)(std::span<const Shape> inputs, const Attributes&);
    std::vector<OpSample> (*samples)();
    BackwardReads reads = {};
};

/// For infer_shape: throws ShapeError "[op] what; got [2, 3], [4]" unless `fits`.
void require_shape(bool fits, std::string_view op, std::string_view expectation, std::span<const Shape> inputs);

/// The same for an expectation that names extents: a function that returns it, not called when all is well, as a step
/// of training allocates nothing.
template <std::invocable Expectation>
void require_shape(bool fits, std::string_view op, const Expectation& expectation, std::span<const Shape> inputs) {
    if (!fits) require_shape(false, op, expectation(), inputs);
}

/// For ops whose backward does not read their output, or no value at all.
inline constexpr BackwardReads kReadsInputs{0xff, false};
inline constexpr BackwardReads kReadsNothing{0, false};

/// For ops that keep nothing.
std::int64_t saves_nothing(std::span<const Shape> inputs, const Attributes&);

/// For elementwise ops: a given count an output element is left to the caller; this one counts one.
Flops one_flop_per_input_element(std::span<const Shape> inputs, const Attributes&);

} // namespace ballast::inline BALLAST_PRECISION
