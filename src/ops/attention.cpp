#include "ballast/kernels/attention.h"

#include "ballast/ops/ops.h"

namespace ballast::inline BALLAST_PRECISION::ops {

namespace {

Shape infer_shape(std::span<const Shape> in, const Attributes& attributes) {
    const auto s = attributes.as<AttentionShape>();
    require_shape(s.kv_heads > 0 && s.heads % s.kv_heads == 0, "attention", "kv_heads divides heads", in);
    require_shape(s.queries >= 0 && s.queries <= s.time, "attention", "there are at most as many queries as tokens",
                  in);
    const Shape packed{s.batch * s.time, s.packed_width()};
    require_shape(
        in[0] == packed, "attention",
        [&] { return "qkv is [batch * time, (heads + 2 kv_heads) * head_width] = " + packed.text(); }, in);
    return {s.batch * s.query_count(), s.output_width()};
}

std::int64_t saved_size(std::span<const Shape>, const Attributes& attributes) {
    const auto s = attributes.as<AttentionShape>();
    return s.batch * s.heads * s.query_count();
}

void forward(const ForwardCall& call) {
    attention_forward(call.output, call.saved, call.inputs[0].data, call.attributes.as<AttentionShape>());
}

void backward(const BackwardCall& call) {
    attention_backward(call.input_grads[0], call.output_grad, call.output.data, call.saved, call.inputs[0].data,
                       call.attributes.as<AttentionShape>());
}

Flops flops(std::span<const Shape>, const Attributes& attributes) {
    const auto s = attributes.as<AttentionShape>();
    // Two products forward and five backward, half of each masked.
    const double product =
        static_cast<double>(s.batch * s.heads * s.head_width) * static_cast<double>(s.query_count() * s.time);
    return {2 * product, 5 * product};
}

std::vector<OpSample> samples() {
    return {
        {"one head", {{5, 9}}, AttentionShape{1, 5, 1, 1, 3}},
        {"multi-head", {{10, 24}}, AttentionShape{2, 5, 4, 4, 2}},
        {"grouped-query", {{8, 24}}, AttentionShape{2, 4, 4, 2, 3}},
        {"multi-query, ALiBi", {{12, 10}}, AttentionShape{2, 6, 3, 1, 2, true}},
        {"capped", {{10, 18}}, AttentionShape{2, 5, 4, 1, 3, false, 0.4}},
        {"capped, ALiBi", {{9, 24}}, AttentionShape{1, 9, 4, 4, 2, true, 0.6}},
        {"capped, more than one block", {{67, 6}}, AttentionShape{1, 67, 1, 1, 2, false, 0.5}},
        {"one token", {{2, 6}}, AttentionShape{2, 1, 1, 1, 2}},
        {"more than one block", {{67, 6}}, AttentionShape{1, 67, 1, 1, 2}},
        {"the last tokens ask", {{14, 16}}, AttentionShape{2, 7, 4, 2, 2, true, 0, 3}},
        {"the last tokens ask, more than one block", {{70, 6}}, AttentionShape{1, 70, 1, 1, 2, false, 0, 66}},
    };
}

} // namespace

const OpDef attention_op{"attention", infer_shape, saved_size, forward, backward, flops, samples, BackwardReads{}};

Var attention(Tape& tape, Var qkv, const AttentionShape& shape) { return tape.record(attention_op, {qkv}, shape); }

} // namespace ballast::inline BALLAST_PRECISION::ops
