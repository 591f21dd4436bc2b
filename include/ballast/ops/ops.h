#pragma once

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>

#include "ballast/autograd/tape.h"
#include "ballast/kernels/activation.h"
#include "ballast/kernels/attention.h"
#include "ballast/kernels/norm.h"

// Every differentiable operation. An op is one file in src/ops: its rules as an OpDef, and the function that records
// it. Values are matrices [rows, width] unless said otherwise; a row is one token of one sequence.
namespace ballast::inline BALLAST_PRECISION::ops {

// ---- The ops of a Transformer --------------------------------------------------------------------------------------

/// y[n] = scale * table[tokens[n]] + positions[n % time]. table [vocabulary, width]; positions [time or more, width],
/// unset for none. `tokens` [batch * time] must outlive the pass; ids outside the vocabulary throw DataError.
extern const OpDef embedding_op;
Var embedding(Tape& tape, Var table, Var positions, std::span<const std::int32_t> tokens, std::int64_t time,
              double scale = 1);

/// y = f(x W^T + b). x [rows, in], weight [out, in] (row-major, PyTorch's layout), bias [out] or unset.
extern const OpDef linear_op;
Var linear(Tape& tape, Var x, Var weight, Var bias = {}, Activation activation = Activation::identity);

/// Ba et al., 1607.06450: over the last extent, biased variance. gain and bias [width] or unset.
extern const OpDef layernorm_op;
Var layernorm(Tape& tape, Var x, Var gain, Var bias, double eps);

using ballast::RmsNormOptions;
/// Zhang & Sennrich, 1910.07467, eps inside the root. gain [width] or unset.
extern const OpDef rmsnorm_op;
Var rmsnorm(Tape& tape, Var x, Var gain, double eps, const RmsNormOptions& options = {});

/// gain * x / max(|x|_2, eps), gain [1] (Nguyen & Salazar, 1910.05895, section 2.2).
extern const OpDef scalenorm_op;
Var scalenorm(Tape& tape, Var x, Var gain, double eps);

/// gain * tanh(alpha * x) + bias (Zhu et al., 2503.10622). alpha [1]; gain and bias [width] or unset.
extern const OpDef dyt_op;
Var dyt(Tape& tape, Var x, Var alpha, Var gain, Var bias);

/// gain * erf(alpha * x + shift) + bias (Chen et al., 2512.10938). alpha and shift [1]; gain and bias [width] or unset.
extern const OpDef derf_op;
Var derf(Tape& tape, Var x, Var alpha, Var shift, Var gain, Var bias);

/// Ioffe & Szegedy, 1502.03167: every column over all rows. Train mode: with mean and biased variance of this call's
/// rows; eval mode, or `frozen`: with running_mean and running_variance [width], which are constants. gain and bias
/// [width] or unset.
extern const OpDef batchnorm_op;
Var batchnorm(Tape& tape, Var x, Var gain, Var bias, Var running_mean, Var running_variance, double eps,
              bool frozen = false);

/// What a batchnorm normalised with: mean and biased variance, [width] each, in memory of the tape. From them the
/// caller keeps the running statistics, before backward(): that gives the memory to others (unless gradients are kept,
/// or this value was its root). Throws Error when another op made the value.
struct BatchStatistics {
    const real* mean;
    const real* variance;
    std::int64_t rows;
    std::int64_t width;
};
BatchStatistics batch_statistics(const Tape& tape, Var batchnorm_output);

/// Causal self-attention of packed queries, keys and values (kernels/attention.h has the layout).
extern const OpDef attention_op;
Var attention(Tape& tape, Var qkv, const AttentionShape& shape);

/// Rotary positions for the queries and keys of a packed qkv. `table` is rope_table's, [time, head_width], constant.
extern const OpDef rope_op;
Var rope(Tape& tape, Var qkv, Var table, const AttentionShape& shape);

/// Every head's columns times its own factor: x [rows, heads * head_width], scale [heads] (NormFormer; Shleifer et al.,
/// 2110.09456, section 2).
extern const OpDef head_scale_op;
Var head_scale(Tape& tape, Var x, Var scale);

/// Elementwise non-linearity.
extern const OpDef activation_op;
Var activation(Tape& tape, Var x, Activation kind);

/// Gated linear unit: x [rows, 2 width], gate first; y = f(gate) * up, [rows, width] (Shazeer, 2002.05202).
extern const OpDef glu_op;
Var glu(Tape& tape, Var x, Activation kind);

/// cap * tanh(x / cap), elementwise, cap > 0 (Gemma 2, 2408.00118, section 2).
extern const OpDef softcap_op;
Var softcap(Tape& tape, Var x, double cap);

/// The residual stream: y = skip_scale * x + branch_scale * branch.
struct ResidualAttributes {
    double skip_scale;
    double branch_scale;
};
extern const OpDef residual_op;
Var residual(Tape& tape, Var x, Var branch, double skip_scale = 1, double branch_scale = 1);

/// The same with a learned factor: y = skip_scale * x + branch_scale * scale * branch. scale is [1] (ReZero,
/// 2003.04887; SkipInit, 2002.10444) or [width] (LayerScale, 2103.17239).
extern const OpDef residual_scaled_op;
Var residual_scaled(Tape& tape, Var x, Var branch, Var scale, double skip_scale = 1, double branch_scale = 1);

/// Inverted dropout: in train mode y = x / (1 - p) with probability 1 - p and 0 otherwise; in eval mode y = x. The
/// mask is a function of the tape's random key, the op's place on the tape and the element.
extern const OpDef dropout_op;
Var dropout(Tape& tape, Var x, double probability);

/// scale * sum over rows with a target of (cross-entropy + z_loss * log_z^2), a scalar. targets [rows], kIgnoredTarget
/// for none; must outlive the pass. For the mean over a batch of several micro-batches, `scale` is one over the number
/// of targets of the whole batch, not of the micro-batch.
extern const OpDef cross_entropy_op;
Var cross_entropy(Tape& tape, Var logits, std::span<const std::int32_t> targets, double scale, double z_loss = 0);

/// What the forward pass of cross_entropy saw, summed in double in row order. Readable also after backward() when the
/// loss was its root.
struct CrossEntropySums {
    std::int64_t targets = 0; ///< rows with a target
    double nll = 0;           ///< sum of cross-entropies over them, nats
    double log_z = 0;         ///< sum of log Z over them
    double log_z_squares = 0;
    double max_log_z = -std::numeric_limits<double>::infinity(); ///< largest log Z
    double max_logit = 0;                                        ///< largest |logit|

    /// Adds what another micro-batch saw. A NaN carries through, maxima included.
    CrossEntropySums& operator+=(const CrossEntropySums& other);
};
CrossEntropySums cross_entropy_sums(const Tape& tape, Var loss);

// ---- Other views of the same numbers, as copies --------------------------------------------------------------------

/// The elements of x in their order, in another shape.
extern const OpDef reshape_op;
Var reshape(Tape& tape, Var x, const Shape& shape);

/// A window of a matrix: rows [row, row + rows), columns [column, column + columns).
struct Window {
    std::int64_t row, rows, column, columns;
};
extern const OpDef slice_op;
Var slice(Tape& tape, Var x, const Window& window);

/// Columns [begin, begin + count) of a matrix.
inline Var columns(Tape& tape, Var x, std::int64_t begin, std::int64_t count) {
    return slice(tape, x, {0, tape.shape(x).rows(), begin, count});
}

/// Matrices of as many rows each, side by side; at most kMaxInputs.
extern const OpDef concat_columns_op;
Var concat_columns(Tape& tape, std::initializer_list<Var> parts);

// ---- Primitives, from which tests write every fused op and every block out again -----------------------------------

enum class Binary : std::uint8_t { add, subtract, multiply, divide };
/// Elementwise, both inputs of one shape.
extern const OpDef binary_op;
Var binary(Tape& tape, Binary kind, Var a, Var b);
inline Var add(Tape& tape, Var a, Var b) { return binary(tape, Binary::add, a, b); }
inline Var subtract(Tape& tape, Var a, Var b) { return binary(tape, Binary::subtract, a, b); }
inline Var multiply(Tape& tape, Var a, Var b) { return binary(tape, Binary::multiply, a, b); }
inline Var divide(Tape& tape, Var a, Var b) { return binary(tape, Binary::divide, a, b); }

enum class Unary : std::uint8_t { log, sqrt, square, reciprocal };
/// Elementwise functions that are not activations.
extern const OpDef unary_op;
Var unary(Tape& tape, Unary kind, Var x);

/// y = a x + b with constants a, b.
extern const OpDef affine_op;
Var affine(Tape& tape, Var x, double a, double b);

/// [rows, width] -> [rows, 1].
extern const OpDef row_sum_op;
Var row_sum(Tape& tape, Var x);

/// [rows, 1] or [width] or [1, width] -> [rows, width].
extern const OpDef broadcast_op;
Var broadcast(Tape& tape, Var x, std::int64_t rows, std::int64_t width);

/// op(a) op(b) of two matrices.
extern const OpDef matmul_op;
Var matmul(Tape& tape, Var a, Var b, bool transpose_a = false, bool transpose_b = false);

/// The opposite of slice: a matrix [rows, width] of zeros with x in a window of it.
extern const OpDef place_op;
Var place(Tape& tape, Var x, std::int64_t row, std::int64_t column, std::int64_t rows, std::int64_t width);

} // namespace ballast::inline BALLAST_PRECISION::ops
