#include <algorithm>
#include <string>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

struct EmbeddingAttributes {
    const std::int32_t* tokens;
    std::int64_t count;
    std::int64_t time;
    double scale;
};

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto a = attributes.as<EmbeddingAttributes>();
    require_shape(in[0].rank == 2, "embedding", "table is [vocabulary, width]", in);
    require_shape(a.count > 0 && a.count % a.time == 0, "embedding", "tokens are whole sequences", in);
    if (in.size() > 1)
        require_shape(
            in[1].rank == 2 && in[1][0] >= a.time && in[1][1] == in[0][1], "embedding",
            [&] { return "positions are [" + std::to_string(a.time) + " or more, width of the table]"; }, in);
    for (std::int64_t n = 0; n < a.count; ++n)
        if (a.tokens[n] < 0 || a.tokens[n] >= in[0][0])
            throw DataError("token id " + std::to_string(a.tokens[n]) + " at position " + std::to_string(n) +
                            " is outside the vocabulary of " + std::to_string(in[0][0]));
    return {a.count, in[0][1]};
}

void forward(const ForwardCall& call) {
    const auto a = call.attributes.as<EmbeddingAttributes>();
    const std::int64_t width = call.inputs[0].shape[1];
    const auto scale = static_cast<real>(a.scale);
    parallel_ranges(a.count, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
            const real* row = call.inputs[0].data + a.tokens[n] * width;
            real* out = call.output + n * width;
            for (std::int64_t i = 0; i < width; ++i)
                out[i] = scale * row[i];
            if (call.inputs.size() == 1) continue;
            const real* position = call.inputs[1].data + n % a.time * width;
            for (std::int64_t i = 0; i < width; ++i)
                out[i] += position[i];
        }
    });
}

/// Clears a gradient that is to be scattered into, unless it already holds something.
void clear_unless_adding(const Grad& grad, std::int64_t elements) {
    if (grad.add) return;
    parallel_ranges(elements, 1 << 16, [&](std::int64_t begin, std::int64_t end) {
        std::fill(grad.data + begin, grad.data + end, real{0});
    });
}

void backward(const BackwardCall& call) {
    const auto a = call.attributes.as<EmbeddingAttributes>();
    const std::int64_t width = call.inputs[0].shape[1];
    const auto scale = static_cast<real>(a.scale);
    // Tokens repeat, so tasks split the columns: each adds its columns of all rows, in row order.
    constexpr std::int64_t kColumns = 32;
    const auto scatter = [&](const Grad& grad, real factor, auto row_of) {
        parallel_ranges(width, kColumns, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t n = 0; n < a.count; ++n) {
                real* target = grad.data + row_of(n) * width;
                const real* source = call.output_grad + n * width;
                for (std::int64_t i = begin; i < end; ++i)
                    target[i] += factor * source[i];
            }
        });
    };
    if (const Grad& table = call.input_grads[0]) {
        clear_unless_adding(table, call.inputs[0].shape.elements());
        scatter(table, scale, [&](std::int64_t n) { return a.tokens[n]; });
    }
    if (call.inputs.size() > 1 && call.input_grads[1]) {
        clear_unless_adding(call.input_grads[1], call.inputs[1].shape.elements());
        scatter(call.input_grads[1], 1, [&](std::int64_t n) { return n % a.time; });
    }
}

Flops flops(std::span<const Shape> in, const Attributes& attributes) {
    const auto elements = static_cast<double>(attributes.as<EmbeddingAttributes>().count * in[0][1]);
    return {2 * elements, 2 * elements};
}

std::vector<OpSample> samples() {
    static constexpr std::array<std::int32_t, 6> tokens{2, 0, 2, 4, 1, 2};
    return {
        {"tokens only", {{5, 7}}, EmbeddingAttributes{tokens.data(), 6, 3, 1.0}},
        {"with positions", {{5, 7}, {3, 7}}, EmbeddingAttributes{tokens.data(), 6, 3, 1.0}},
        {"scaled, longer position table", {{5, 1}, {4, 1}}, EmbeddingAttributes{tokens.data(), 6, 2, 2.5}},
    };
}

} // namespace

const OpDef embedding_op{"embedding", infer_shape, saves_nothing, forward, backward, flops, samples, kReadsNothing};

Var embedding(Tape& tape, Var table, Var positions, std::span<const std::int32_t> tokens, std::int64_t time,
              double scale) {
    const EmbeddingAttributes attributes{tokens.data(), static_cast<std::int64_t>(tokens.size()), time, scale};
    return positions ? tape.record(embedding_op, {table, positions}, attributes)
                     : tape.record(embedding_op, {table}, attributes);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
