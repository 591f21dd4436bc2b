#pragma once

#include <cstdint>

#include "ballast/base/real.h"
#include "ballast/kernels/grad.h"

namespace ballast::inline BALLAST_PRECISION {

/// Extents of one call of causal self-attention. Queries, keys and values come packed, as the projection writes them:
/// qkv is [batch * time, (heads + 2 kv_heads) * head_width], every row [q of all heads | k | v].
struct AttentionShape {
    std::int64_t batch;
    std::int64_t time;
    std::int64_t heads;
    std::int64_t kv_heads; ///< divides heads; below heads, several query heads share one (Ainslie, 2305.13245)
    std::int64_t head_width;
    bool alibi = false; ///< adds -slope * (query - key) to the logits (Press et al., 2108.12409)
    /// Above 0, a logit s becomes cap * tanh(s / cap), before ALiBi and the mask (Gemma 2, 2408.00118, section 2).
    double logit_softcap = 0;
    /// Only the last `queries` tokens of every sequence ask, those before them are but asked; 0: all ask.
    std::int64_t queries = 0;

    std::int64_t query_count() const { return queries > 0 ? queries : time; }
    std::int64_t packed_width() const { return (heads + 2 * kv_heads) * head_width; }
    std::int64_t output_width() const { return heads * head_width; }
};

/// ALiBi's slope of a head: the geometric sequence 2^(-8/n), 2^(-16/n), ... for n a power of two; otherwise the
/// sequence of the next lower power of two followed by every other term of the next higher one (the paper's code).
double alibi_slope(std::int64_t head, std::int64_t heads);

/// out[batch * query_count(), heads * head_width] = softmax(cap(q k^T / sqrt(head_width)) + mask) v for each head,
/// causal. log_z [batch, heads, query_count()] receives log sum exp of each row of logits, which is all that backward
/// needs. Works in blocks of query rows (in the manner of FlashAttention, 2205.14135): at no time do the T x T
/// probabilities of a head exist, let alone of all heads, and blocks above the diagonal are never computed.
void attention_forward(real* out, real* log_z, const real* qkv, const AttentionShape& shape);

/// dqkv has the layout of qkv.
void attention_backward(Grad dqkv, const real* dout, const real* out, const real* log_z, const real* qkv,
                        const AttentionShape& shape);

/// Rotates q and k of a packed qkv by their position (RoPE; Su et al., 2104.09864) and copies v. Pairs are (i, i +
/// head_width/2), the rotate-half form of the LLaMA code. `table` is rope_table's; y may not be x.
/// `inverse` rotates back, which is the gradient.
void rope_rotate(Grad y, const real* x, const real* table, const AttentionShape& shape, bool inverse);

/// Cosines then sines of position * theta^(-2i/head_width): [time, head_width], the first half of a row the cosines.
void rope_table(real* table, std::int64_t time, std::int64_t head_width, double theta);

} // namespace ballast::inline BALLAST_PRECISION
