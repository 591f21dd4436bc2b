#include "ballast/kernels/attention.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "ballast/base/arena.h"
#include "ballast/base/parallel.h"
#include "ballast/kernels/activation.h"
#include "ballast/kernels/gemm.h"
#include "ballast/kernels/softmax.h"

namespace ballast::inline BALLAST_PRECISION {

namespace {

constexpr std::int64_t kQueryBlock = 64; // rows of queries worked on at once

/// One head of one sequence: where its rows start in the packed tensor.
struct HeadView {
    const real* q;
    const real* k;
    const real* v;
};

HeadView head_view(const real* qkv, const AttentionShape& s, std::int64_t batch, std::int64_t head) {
    const real* row = qkv + batch * s.time * s.packed_width();
    const std::int64_t kv_head = head / (s.heads / s.kv_heads);
    return {row + head * s.head_width, row + (s.heads + kv_head) * s.head_width,
            row + (s.heads + s.kv_heads + kv_head) * s.head_width};
}

/// logits[rows, keys] of queries begin.. against keys 0..keys, scaled, capped, with the positional bias, not yet
/// masked. With a cap, `uncapped` receives them as they were before it, unless it is null.
void block_logits(real* logits, real* uncapped, const HeadView& view, const AttentionShape& s, std::int64_t begin,
                  std::int64_t rows, std::int64_t keys, double slope) {
    const real scale = 1 / std::sqrt(static_cast<real>(s.head_width));
    const std::int64_t stride = s.packed_width();
    real* const products = uncapped != nullptr ? uncapped : logits;
    gemm_in_task(rows, keys, s.head_width, scale, {view.q + begin * stride, stride}, {view.k, stride, true}, 0,
                 products, keys);
    if (s.logit_softcap > 0) softcap_forward(logits, products, static_cast<real>(s.logit_softcap), rows * keys);
    if (slope == 0) return;
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t j = 0; j <= begin + r; ++j)
            logits[r * keys + j] -= static_cast<real>(slope) * static_cast<real>(begin + r - j);
}

double slope_of(const AttentionShape& s, std::int64_t head) { return s.alibi ? alibi_slope(head, s.heads) : 0; }

} // namespace

double alibi_slope(std::int64_t head, std::int64_t heads) {
    const auto floor_power = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(heads)));
    if (head < floor_power) return std::exp2(-8.0 * static_cast<double>(head + 1) / static_cast<double>(floor_power));
    const std::int64_t odd = 2 * (head - floor_power) + 1;
    return std::exp2(-8.0 * static_cast<double>(odd) / static_cast<double>(2 * floor_power));
}

void attention_forward(real* out, real* log_z, const real* qkv, const AttentionShape& s) {
    const std::int64_t queries = s.query_count();
    const std::int64_t blocks = (queries + kQueryBlock - 1) / kQueryBlock;
    const std::int64_t stride = s.packed_width();
    parallel_for(s.batch * s.heads * blocks, [&](std::int64_t task) {
        // Later blocks have more keys; starting with them keeps the last tasks short.
        const std::int64_t first_query = (blocks - 1 - task / (s.batch * s.heads)) * kQueryBlock;
        const std::int64_t batch = task % (s.batch * s.heads) / s.heads;
        const std::int64_t head = task % s.heads;
        const std::int64_t begin = s.time - queries + first_query;
        const std::int64_t rows = std::min(kQueryBlock, s.time - begin);
        const std::int64_t keys = begin + rows;
        const HeadView view = head_view(qkv, s, batch, head);

        Arena& scratch = worker_scratch();
        const Arena::Mark mark(scratch);
        real* p = scratch.allocate<real>(rows * keys);
        auto* sums = scratch.allocate<real>(rows);
        block_logits(p, nullptr, view, s, begin, rows, keys, slope_of(s, head));
        for (std::int64_t r = 0; r < rows; ++r) {
            real* row = p + r * keys;
            const std::int64_t visible = begin + r + 1;
            real max = 0;
            sums[r] = exp_row(row, visible, max);
            std::fill(row + visible, row + keys, real{0});
            log_z[(batch * s.heads + head) * queries + first_query + r] = max + std::log(sums[r]);
        }
        real* o = out + (batch * queries + first_query) * s.output_width() + head * s.head_width;
        gemm_in_task(rows, s.head_width, keys, 1, {p, keys}, {view.v, stride}, 0, o, s.output_width());
        for (std::int64_t r = 0; r < rows; ++r)
            scale_row(o + r * s.output_width(), o + r * s.output_width(), 1 / sums[r], s.head_width);
    });
}

void attention_backward(Grad dqkv, const real* dout, const real* out, const real* log_z, const real* qkv,
                        const AttentionShape& s) {
    if (!dqkv) return;
    const std::int64_t queries = s.query_count();
    const std::int64_t blocks = (queries + kQueryBlock - 1) / kQueryBlock;
    const std::int64_t group = s.heads / s.kv_heads;
    const std::int64_t stride = s.packed_width();
    const std::int64_t out_stride = s.output_width();
    const real scale = 1 / std::sqrt(static_cast<real>(s.head_width));
    const real beta = dqkv.add ? 1 : 0;

    // A task owns one key-value head of one sequence, so the sums over queries need no partial buffers.
    parallel_for(s.batch * s.kv_heads, [&](std::int64_t task) {
        const std::int64_t batch = task / s.kv_heads;
        const std::int64_t kv_head = task % s.kv_heads;
        real* drow = dqkv.data + batch * s.time * stride;
        real* dk = drow + (s.heads + kv_head) * s.head_width;
        real* dv = drow + (s.heads + s.kv_heads + kv_head) * s.head_width;

        Arena& scratch = worker_scratch();
        const Arena::Mark mark(scratch);
        real* p = scratch.allocate<real>(kQueryBlock * s.time);
        real* ds = scratch.allocate<real>(kQueryBlock * s.time);
        real* uncapped = s.logit_softcap > 0 ? scratch.allocate<real>(kQueryBlock * s.time) : nullptr;

        for (std::int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const HeadView view = head_view(qkv, s, batch, head);
            const double slope = slope_of(s, head);
            for (std::int64_t row = 0; row < s.time - queries && !dqkv.add; ++row)
                std::fill_n(drow + row * stride + head * s.head_width, s.head_width, real{0});
            // From the last block to the first: the last sees every key, so the group's first head writes all of dk and
            // dv there, and everything after it adds.
            for (std::int64_t block = blocks; block-- > 0;) {
                const std::int64_t first_query = block * kQueryBlock;
                const std::int64_t begin = s.time - queries + first_query;
                const std::int64_t rows = std::min(kQueryBlock, s.time - begin);
                const std::int64_t keys = begin + rows;
                const bool first = head == kv_head * group && block == blocks - 1;
                const real kv_beta = first ? beta : 1;
                const std::int64_t out_offset = (batch * queries + first_query) * out_stride + head * s.head_width;
                const MatrixRef d_o{dout + out_offset, out_stride};

                block_logits(p, uncapped, view, s, begin, rows, keys, slope);
                gemm_in_task(rows, keys, s.head_width, 1, d_o, {view.v, stride, true}, 0, ds, keys);
                for (std::int64_t r = 0; r < rows; ++r) {
                    const std::int64_t visible = begin + r + 1;
                    exp_shifted_row(p + r * keys, visible, log_z[(batch * s.heads + head) * queries + first_query + r]);
                    std::fill(p + r * keys + visible, p + (r + 1) * keys, real{0});
                    const real delta =
                        dot_row(dout + out_offset + r * out_stride, out + out_offset + r * out_stride, s.head_width);
                    real* const ds_row = ds + r * keys;
                    softmax_backward_row(ds_row, p + r * keys, ds_row, delta, scale, visible);
                    if (uncapped != nullptr)
                        softcap_backward({ds_row, false}, ds_row, uncapped + r * keys,
                                         static_cast<real>(s.logit_softcap), visible);
                    std::fill(ds_row + visible, ds_row + keys, real{0});
                }
                gemm_in_task(rows, s.head_width, keys, 1, {ds, keys}, {view.k, stride}, beta,
                             drow + begin * stride + head * s.head_width, stride);
                gemm_in_task(keys, s.head_width, rows, 1, {ds, keys, true}, {view.q + begin * stride, stride}, kv_beta,
                             dk, stride);
                gemm_in_task(keys, s.head_width, rows, 1, {p, keys, true}, d_o, kv_beta, dv, stride);
            }
        }
    });
}

void rope_table(real* table, std::int64_t time, std::int64_t head_width, double theta) {
    const std::int64_t half = head_width / 2;
    for (std::int64_t t = 0; t < time; ++t)
        for (std::int64_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(t) *
                                 std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
            table[t * head_width + i] = static_cast<real>(std::cos(angle));
            table[t * head_width + half + i] = static_cast<real>(std::sin(angle));
        }
}

void rope_rotate(Grad y, const real* x, const real* table, const AttentionShape& s, bool inverse) {
    const std::int64_t half = s.head_width / 2;
    const std::int64_t width = s.packed_width();
    const real direction = inverse ? -1 : 1;
    const auto put = [&](real& target, real value) { target = y.add ? target + value : value; };
    parallel_ranges(s.batch * s.time, rows_per_task(width), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t row = begin; row < end; ++row) {
            const real* cosines = table + (row % s.time) * s.head_width;
            const real* sines = cosines + half;
            for (std::int64_t head = 0; head < s.heads + s.kv_heads; ++head) {
                const real* in = x + row * width + head * s.head_width;
                real* out = y.data + row * width + head * s.head_width;
                for (std::int64_t i = 0; i < half; ++i) {
                    const real sine = direction * sines[i];
                    put(out[i], in[i] * cosines[i] - in[half + i] * sine);
                    put(out[half + i], in[half + i] * cosines[i] + in[i] * sine);
                }
            }
            for (std::int64_t i = (s.heads + s.kv_heads) * s.head_width; i < width; ++i)
                put(y.data[row * width + i], x[row * width + i]);
        }
    });
}

} // namespace ballast::inline BALLAST_PRECISION
