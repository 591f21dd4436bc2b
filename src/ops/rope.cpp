#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto s = attributes.as<AttentionShape>();
    require_shape(s.head_width % 2 == 0, "rope", "the head width is even", in);
    require_shape(in[0] == Shape{s.batch * s.time, s.packed_width()}, "rope",
                  "qkv is [batch * time, (heads + 2 kv_heads) * head_width]", in);
    require_shape(in[1].rank == 2 && in[1][0] >= s.time && in[1][1] == s.head_width, "rope",
                  "table is [time or more, head_width]", in);
    return in[0];
}

void forward(const ForwardCall& call) {
    rope_rotate({call.output, false}, call.inputs[0].data, call.inputs[1].data, call.attributes.as<AttentionShape>(),
                false);
}

/// The gradient of a rotation is the rotation back; the table is a constant.
void backward(const BackwardCall& call) {
    if (call.input_grads[0])
        rope_rotate(call.input_grads[0], call.output_grad, call.inputs[1].data, call.attributes.as<AttentionShape>(),
                    true);
}

Flops flops(std::span<const Shape> in, const Attributes&) {
    const auto elements = static_cast<double>(in[0].elements());
    return {3 * elements, 3 * elements};
}

std::vector<OpSample> samples() {
    // Any table will do: the op is linear in x whatever the table.
    return {
        {"multi-head", {{6, 24}, {3, 4}}, AttentionShape{2, 3, 2, 2, 4}, -1, 1, {1}},
        {"grouped-query, longer table", {{4, 8}, {7, 2}}, AttentionShape{1, 4, 2, 1, 2}, -1, 1, {1}},
    };
}

} // namespace

const OpDef rope_op{"rope", infer_shape, saves_nothing, forward, backward, flops, samples, BackwardReads{0b10, false}};

Var rope(Tape& tape, Var qkv, Var table, const AttentionShape& shape) {
    return tape.record(rope_op, {qkv, table}, shape);
}

} // namespace ballast::inline BALLAST_PRECISION::ops
