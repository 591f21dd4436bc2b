#pragma once

// The network written out with the primitive ops, from the papers' equations, to compare with the fused ops and the
// modules of nn. A new kind of norm is a case in norm_equation or Reference::norm, a new placement a line in
// placement_equation. What is written out follows the config and the names of the parameters, not norm_layout.

#include <cmath>
#include <deque>
#include <limits>
#include <numbers>

#include "tiny_model.h"

namespace equations {

using namespace tiny_model;

/// What a row-wise kind of norm computes before gain and bias; x [rows, width].
inline Var norm_equation(Tape& tape, const NormConfig& norm, Var x) {
    const std::int64_t rows = tape.shape(x)[0], width = tape.shape(x)[1];
    const auto spread = [&](Var column) { return ops::broadcast(tape, column, rows, width); };
    const auto mean = [&](Var value) {
        return ops::affine(tape, ops::row_sum(tape, value), 1.0 / static_cast<double>(tape.shape(value)[1]), 0);
    };
    const auto over_root = [&](Var value, Var mean_square, double eps) {
        return ops::divide(tape, value,
                           spread(ops::unary(tape, ops::Unary::sqrt, ops::affine(tape, mean_square, 1, eps))));
    };
    const auto square = [&](Var value) { return ops::unary(tape, ops::Unary::square, value); };
    switch (norm.kind) {
    case NormKind::none: return x;
    case NormKind::layernorm: {
        const Var centred = ops::subtract(tape, x, spread(mean(x)));
        return over_root(centred, mean(square(centred)), norm.eps);
    }
    case NormKind::rmsnorm: {
        const auto counted = static_cast<std::int64_t>(std::ceil(norm.partial * static_cast<double>(width)));
        return over_root(x, mean(square(ops::slice(tape, x, {0, rows, 0, counted}))), norm.eps);
    }
    case NormKind::scalenorm: return over_root(x, ops::row_sum(tape, square(x)), 0);
    case NormKind::batchnorm:
    case NormKind::dyt:
    case NormKind::derf: break;
    }
    throw Error("not a row-wise kind of norm: " + std::string(to_string(norm.kind)));
}

/// One sublayer in its residual wrapper: `f` is the sublayer with what multiplies its branch, `norm` the norm of a
/// slot, given by its name.
template <class Sublayer, class Norms>
Var placement_equation(Tape& tape, std::string_view placement, double blocks, Var x, Sublayer&& f, Norms&& norm) {
    const auto same = [](Var y) { return y; };
    if (placement == "pre") return ops::add(tape, x, f(norm("pre_norm", x), same));
    if (placement == "post") return norm("post_norm", ops::add(tape, x, f(x, same)));
    if (placement == "none") return ops::add(tape, x, f(x, same));
    const auto out_norm = [&](Var y) { return norm("out_norm", y); };
    if (placement == "sandwich") return ops::add(tape, x, f(norm("pre_norm", x), out_norm));
    if (placement == "branch_out") return ops::add(tape, x, f(x, out_norm));
    if (placement == "deepnorm")
        return norm("post_norm", ops::add(tape, ops::affine(tape, x, std::sqrt(std::sqrt(2 * blocks)), 0), f(x, same)));
    // Slots that are no row of the table.
    if (placement == "slots pre, post") return norm("post_norm", ops::add(tape, x, f(norm("pre_norm", x), same)));
    if (placement == "slots out, post") return norm("post_norm", ops::add(tape, x, f(x, out_norm)));
    if (placement == "slots pre, out, post")
        return norm("post_norm", ops::add(tape, x, f(norm("pre_norm", x), out_norm)));
    throw Error("a placement without an equation: " + std::string(placement));
}

/// f(x) of a feed-forward network; the gate's for the gated kinds.
inline Var activation_equation(Tape& tape, FfnKind kind, Var x) {
    const auto activation = [&](Activation f, Var value) { return ops::activation(tape, value, f); };
    const auto scaled = [&](Var value, double a, double b = 0) { return ops::affine(tape, value, a, b); };
    const auto times = [&](Var a, Var b) { return ops::multiply(tape, a, b); };
    switch (kind) {
    case FfnKind::gelu:
    case FfnKind::geglu: return times(x, scaled(activation(Activation::erf, scaled(x, std::sqrt(0.5))), 0.5, 0.5));
    case FfnKind::gelu_tanh: {
        const Var cubic = ops::add(tape, x, scaled(times(x, times(x, x)), 0.044715));
        const Var tanh = activation(Activation::tanh, scaled(cubic, std::sqrt(2 / std::numbers::pi)));
        return times(x, scaled(tanh, 0.5, 0.5));
    }
    case FfnKind::relu: return activation(Activation::relu, x);
    case FfnKind::relu2: return ops::unary(tape, ops::Unary::square, activation(Activation::relu, x));
    case FfnKind::silu:
    case FfnKind::swiglu: return times(x, activation(Activation::sigmoid, x));
    }
    throw Error("a kind of ffn without an equation: " + std::string(to_string(kind)));
}

/// The whole network on the parameters of a TinyModel, with gradients of its own.
class Reference {
public:
    Reference(const ModelConfig& config, const ParamTable& table)
        : config_(config), table_(table), gradients_(static_cast<std::size_t>(table.size()), op_calls::kNaN),
          tape_(ops::registry()) {
        tape_.begin(Mode::train);
        Var x = one_hot_embedding();
        if (config.embedding.norm) x = norm("embedding_norm", x);
        for (std::int64_t layer = 0; layer < config.layers; ++layer) {
            const std::string block = "blocks." + std::to_string(layer);
            const double depth = static_cast<double>(layer + 1);
            x = sublayer(block, ".attention", depth, x, [&](Var in) { return attention(block + ".attention", in); });
            x = sublayer(block, ".ffn", depth, x, [&](Var in) { return ffn(block + ".ffn", in); });
        }
        if (config.final_norm == Switch::on) x = norm("final_norm", x);
        const Var logits = ops::matmul(tape_, x, parameter("head.weight"), false, true);
        logits_.assign(tape_.data(logits), tape_.data(logits) + tape_.shape(logits).elements());
        const Var loss = cross_entropy(logits);
        loss_ = *tape_.data(loss);
        tape_.backward(loss);
    }

    const Values& logits() const { return logits_; }
    double loss() const { return loss_; }
    /// With the offsets of the table.
    const Values& gradients() const { return gradients_; }

private:
    bool has(const std::string& name) const { return table_.find(name) != nullptr; }

    Var parameter(const std::string& name) {
        const Param& param = *table_.find(name);
        const Shape shape = param.shape == Shape{1} ? Shape{1, 1} : param.shape; // a scalar, as a matrix
        return tape_.leaf(shape, table_.values() + param.offset, gradients_.data() + param.offset);
    }

    template <class Element>
    Var constant(std::int64_t rows, std::int64_t columns, Element&& element) {
        Values& values = constants_.emplace_back();
        for (std::int64_t row = 0; row < rows; ++row)
            for (std::int64_t column = 0; column < columns; ++column)
                values.push_back(element(row, column));
        return tape_.constant({rows, columns}, values.data());
    }

    Var one_hot(const std::vector<std::int32_t>& ids) {
        return constant(kRows, kVocabulary, [&](std::int64_t row, std::int64_t id) {
            return ids[static_cast<std::size_t>(row)] == id ? 1.0 : 0.0;
        });
    }

    Var one_hot_embedding() {
        Var x = ops::matmul(tape_, one_hot(kTokens), parameter("embedding.tokens"));
        if (config_.embedding.scale == EmbeddingScale::sqrt_width)
            x = ops::affine(tape_, x, std::sqrt(static_cast<double>(config_.width)), 0);
        if (config_.position == PositionKind::learned) {
            const Var place = constant(kRows, kSequences.time, [](std::int64_t row, std::int64_t t) {
                return row % kSequences.time == t ? 1.0 : 0.0;
            });
            x = ops::add(tape_, x, ops::matmul(tape_, place, parameter("embedding.positions")));
        }
        if (config_.position == PositionKind::sinusoidal)
            x = ops::add(tape_, x, constant(kRows, config_.width, [&](std::int64_t row, std::int64_t i) {
                             const auto even = static_cast<double>(i - i % 2);
                             const double angle = static_cast<double>(row % kSequences.time) /
                                                  std::pow(10000.0, even / static_cast<double>(config_.width));
                             return i % 2 == 0 ? std::sin(angle) : std::cos(angle);
                         }));
        return x;
    }

    Var with_bias(const std::string& name, Var y) {
        if (!has(name)) return y;
        return ops::add(tape_, y, ops::broadcast(tape_, parameter(name), tape_.shape(y)[0], tape_.shape(y)[1]));
    }

    Var linear(const std::string& name, Var x) {
        return with_bias(name + ".bias", ops::matmul(tape_, x, parameter(name + ".weight"), false, true));
    }

    Var constant_of(std::int64_t rows, std::int64_t columns, double value) {
        return constant(rows, columns, [&](std::int64_t, std::int64_t) { return value; });
    }

    /// y times a parameter, [1] or [width]; y itself when there is none of that name.
    Var times(const std::string& name, Var y, double offset = 0) {
        if (!has(name)) return y;
        return ops::multiply(tape_, y, ops::affine(tape_, spread(name, tape_.shape(y)), 1, offset));
    }

    /// A parameter, [1] or [width], in every row (and column) of a matrix.
    Var spread(const std::string& name, const Shape& shape) {
        Var value = parameter(name);
        if (table_.find(name)->shape == Shape{1}) value = ops::matmul(tape_, constant_of(shape[0], 1, 1), value);
        return ops::broadcast(tape_, value, shape[0], shape[1]);
    }

    Var norm(const std::string& name, Var x) {
        const Shape shape = tape_.shape(x);
        const NormConfig& norm = config_.norm;
        Var y{};
        if (norm.kind == NormKind::batchnorm) {
            const auto mean = [&](Var value) {
                const Var row =
                    ops::matmul(tape_, constant_of(1, shape[0], 1.0 / static_cast<double>(shape[0])), value);
                return ops::broadcast(tape_, row, shape[0], shape[1]);
            };
            const Var centred = ops::subtract(tape_, x, mean(x));
            const Var variance = mean(ops::unary(tape_, ops::Unary::square, centred));
            y = ops::divide(tape_, centred,
                            ops::unary(tape_, ops::Unary::sqrt, ops::affine(tape_, variance, 1, norm.eps)));
        } else if (norm.kind == NormKind::dyt) {
            y = ops::activation(tape_, times(name + ".alpha", x), Activation::tanh);
        } else if (norm.kind == NormKind::derf) {
            const Var shifted = ops::add(tape_, times(name + ".alpha", x), spread(name + ".shift", shape));
            y = ops::activation(tape_, shifted, Activation::erf);
        } else {
            y = norm_equation(tape_, norm, x);
        }
        return with_bias(name + ".bias", times(name + ".gain", y, norm.unit_offset ? 1 : 0));
    }

    /// `count` heads from head `first` of the packed rows, normalized; each by itself or all together.
    Var normalized_heads(const std::string& name, HeadNorm rows, Var packed, std::int64_t first, std::int64_t count) {
        const std::int64_t width = config_.width / config_.heads;
        const Var heads = ops::slice(tape_, packed, {0, kRows, first * width, count * width});
        if (rows == HeadNorm::none) return heads;
        if (rows == HeadNorm::full) return norm(name, heads);
        // The heads below one another: one norm for all of their rows.
        Var column{}, back{};
        for (std::int64_t head = 0; head < count; ++head) {
            const Var part = ops::slice(tape_, heads, {0, kRows, head * width, width});
            const Var placed = ops::place(tape_, part, head * kRows, 0, count * kRows, width);
            column = column ? ops::add(tape_, column, placed) : placed;
        }
        column = norm(name, column);
        for (std::int64_t head = 0; head < count; ++head) {
            const Var part = ops::slice(tape_, column, {head * kRows, kRows, 0, width});
            const Var placed = ops::place(tape_, part, 0, head * width, kRows, count * width);
            back = back ? ops::add(tape_, back, placed) : placed;
        }
        return back;
    }

    template <class Sublayer>
    Var sublayer(const std::string& block, const std::string& part, double depth, Var x, Sublayer&& f) {
        const bool scaled = config_.norm.depth_scale == DepthScale::inv_sqrt;
        const auto branch = [&](Var in, const auto& out_norm) {
            const Var y = out_norm(f(scaled ? ops::affine(tape_, in, 1 / std::sqrt(depth), 0) : in));
            return times(block + ".residual_scale", times(block + part + ".branch_scale", y));
        };
        const bool normless = config_.norm.kind == NormKind::none;
        return placement_equation(tape_, normless ? "none" : placement_row(config_.norm.placement).name,
                                  static_cast<double>(config_.layers), x, branch,
                                  [&](const char* slot, Var in) { return norm(block + part + "." + slot, in); });
    }

    /// Rows rotated in the planes (i, i + width/2) by an angle that grows with the row's number.
    Var rotated(Var x) {
        const std::int64_t time = tape_.shape(x)[0], width = tape_.shape(x)[1], half = width / 2;
        const auto angle = [&](std::int64_t t, std::int64_t i) {
            return static_cast<double>(t) *
                   std::pow(config_.rope.theta, -2.0 * static_cast<double>(i % half) / static_cast<double>(width));
        };
        const Var cosines = constant(time, width, [&](auto t, auto i) { return std::cos(angle(t, i)); });
        const Var sines = constant(time, width, [&](auto t, auto i) { return std::sin(angle(t, i)); });
        // (a, b) -> (-b, a)
        const Var quarter_turn = constant(width, width, [&](auto from, auto to) {
            return from == to + half ? -1.0 : from + half == to ? 1.0 : 0.0;
        });
        return ops::add(tape_, ops::multiply(tape_, x, cosines),
                        ops::multiply(tape_, ops::matmul(tape_, x, quarter_turn), sines));
    }

    Var attention(const std::string& name, Var x) {
        const std::int64_t heads = config_.heads, kv_heads = config_.kv_heads, width = config_.width / heads;
        const std::int64_t time = kSequences.time;
        const Var packed = linear(name + ".qkv", x);
        const Var queries = normalized_heads(name + ".q_norm", config_.qk_norm, packed, 0, heads);
        const Var keys = normalized_heads(name + ".k_norm", config_.qk_norm, packed, heads, kv_heads);
        const Var values = normalized_heads(name + ".v_norm", config_.v_norm, packed, heads + kv_heads, kv_heads);
        Var out{};
        for (std::int64_t batch = 0; batch < kSequences.batch; ++batch)
            for (std::int64_t head = 0; head < heads; ++head) {
                const std::int64_t kv_head = head * kv_heads / heads;
                const auto part = [&](Var of, std::int64_t index) {
                    return ops::slice(tape_, of, {batch * time, time, index * width, width});
                };
                Var q = part(queries, head), k = part(keys, kv_head);
                const Var v = part(values, kv_head);
                if (config_.position == PositionKind::rope) {
                    q = rotated(q);
                    k = rotated(k);
                }
                const double slope = config_.position == PositionKind::alibi
                                         ? std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(heads))
                                         : 0;
                const Var mask = constant(time, time, [&](std::int64_t query, std::int64_t key) {
                    constexpr double kNever = -1e5; // its exponential is 0
                    return key > query ? kNever : -slope * static_cast<double>(query - key);
                });
                const Var products = ops::matmul(tape_, q, k, false, true);
                Var logits = ops::affine(tape_, products, 1 / std::sqrt(static_cast<double>(width)), 0);
                if (const double cap = config_.logit_softcap; cap > 0) {
                    const Var squashed =
                        ops::activation(tape_, ops::affine(tape_, logits, 1 / cap, 0), Activation::tanh);
                    logits = ops::affine(tape_, squashed, cap, 0);
                }
                logits = ops::add(tape_, logits, mask);
                const Var weights = ops::activation(tape_, logits, Activation::exp);
                const Var sums = ops::broadcast(tape_, ops::row_sum(tape_, weights), time, time);
                Var mixed = ops::matmul(tape_, ops::divide(tape_, weights, sums), v);
                if (has(name + ".head_scale")) {
                    const Var pick = constant(heads, 1, [&](auto i, auto) { return i == head ? 1.0 : 0.0; });
                    const Var row = ops::broadcast(tape_, parameter(name + ".head_scale"), time, heads);
                    const Var factor = ops::matmul(tape_, row, pick);
                    mixed = ops::multiply(tape_, mixed, ops::broadcast(tape_, factor, time, width));
                }
                const Var y = ops::place(tape_, mixed, batch * time, head * width, kRows, config_.width);
                out = out ? ops::add(tape_, out, y) : y;
            }
        return linear(name + ".output", out);
    }

    Var ffn(const std::string& name, Var x) {
        Var hidden = linear(name + ".input", x);
        const std::int64_t width = config_.ffn.width;
        if (config_.ffn.kind == FfnKind::swiglu || config_.ffn.kind == FfnKind::geglu) {
            const Var gate = ops::slice(tape_, hidden, {0, kRows, 0, width});
            const Var up = ops::slice(tape_, hidden, {0, kRows, width, width});
            hidden = ops::multiply(tape_, activation_equation(tape_, config_.ffn.kind, gate), up);
        } else {
            hidden = activation_equation(tape_, config_.ffn.kind, hidden);
        }
        if (config_.ffn.inner_norm) hidden = norm(name + ".inner_norm", hidden);
        return linear(name + ".output", hidden);
    }

    /// scale * sum over rows with a target of (log Z - logit of the target + z_loss log^2 Z)
    Var cross_entropy(Var logits) {
        const Var exponentials = ops::activation(tape_, logits, Activation::exp);
        const Var log_z = ops::unary(tape_, ops::Unary::log, ops::row_sum(tape_, exponentials));
        const Var hit = ops::row_sum(tape_, ops::multiply(tape_, logits, one_hot(kTargets)));
        const Var penalty = ops::affine(tape_, ops::unary(tape_, ops::Unary::square, log_z), kZLoss, 0);
        const Var losses = ops::add(tape_, ops::subtract(tape_, log_z, hit), penalty);
        const Var weights = constant(1, kRows, [](std::int64_t, std::int64_t row) {
            return kTargets[static_cast<std::size_t>(row)] == kIgnoredTarget ? 0.0 : kLossScale;
        });
        return ops::matmul(tape_, weights, losses);
    }

    const ModelConfig& config_;
    const ParamTable& table_;
    Values gradients_;
    Values logits_;
    double loss_ = 0;
    std::deque<Values> constants_;
    Tape tape_;
};

} // namespace equations
