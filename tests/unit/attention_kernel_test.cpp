// Attention against its definition written out head by head in double precision, with the whole matrix of logits.

#include "ballast/kernels/attention.h"

#include "ballast/kernels/gemm.h"
#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

const AttentionShape kShapes[] = {
    {1, 1, 1, 1, 4, false, 0},    {2, 5, 4, 4, 3, false, 0}, {2, 9, 4, 2, 8, true, 0},
    {1, 130, 2, 1, 16, false, 0}, {2, 7, 4, 2, 8, false, 2}, {1, 70, 2, 2, 16, true, 1.5},
};

/// Where element `i` of a head's row of queries, keys or values is in the packed tensor.
struct Packed {
    const AttentionShape& s;

    std::size_t query(std::int64_t row, std::int64_t head, std::int64_t i) const { return at(row, head, i); }
    std::size_t key(std::int64_t row, std::int64_t head, std::int64_t i) const {
        return at(row, s.heads + head / (s.heads / s.kv_heads), i);
    }
    std::size_t value(std::int64_t row, std::int64_t head, std::int64_t i) const {
        return at(row, s.heads + s.kv_heads + head / (s.heads / s.kv_heads), i);
    }
    std::size_t at(std::int64_t row, std::int64_t place, std::int64_t i) const {
        return index(row * s.packed_width() + place * s.head_width + i);
    }
};

struct Reference {
    Doubles out;
    Doubles dqkv;

    Reference(const Doubles& qkv, const Doubles& dout, const AttentionShape& s)
        : out(index(s.batch * s.time * s.output_width())), dqkv(qkv.size()) {
        const Packed at{s};
        const double scale = 1 / std::sqrt(static_cast<double>(s.head_width)), cap = s.logit_softcap;
        for (std::int64_t task = 0; task < s.batch * s.heads * s.time; ++task) {
            const std::int64_t head = task / s.time % s.heads, first = task / s.time / s.heads * s.time;
            const std::int64_t row = first + task % s.time;
            Doubles p, slopes;
            double sum = 0;
            for (std::int64_t key = first; key <= row; ++key) {
                double logit = 0;
                for (std::int64_t i = 0; i < s.head_width; ++i)
                    logit += scale * qkv[at.query(row, head, i)] * qkv[at.key(key, head, i)];
                slopes.push_back(cap > 0 ? 1 / std::pow(std::cosh(logit / cap), 2) : 1);
                if (cap > 0) logit = cap * std::tanh(logit / cap);
                if (s.alibi) logit -= alibi_slope(head, s.heads) * static_cast<double>(row - key);
                p.push_back(std::exp(logit));
                sum += p.back();
            }
            double delta = 0;
            Doubles dp(p.size());
            for (std::int64_t key = first; key <= row; ++key) {
                const std::size_t k = index(key - first);
                p[k] /= sum;
                for (std::int64_t i = 0; i < s.head_width; ++i) {
                    const std::size_t o = index(row * s.output_width() + head * s.head_width + i);
                    out[o] += p[k] * qkv[at.value(key, head, i)];
                    dp[k] += dout[o] * qkv[at.value(key, head, i)];
                    dqkv[at.value(key, head, i)] += p[k] * dout[o];
                }
                delta += p[k] * dp[k];
            }
            for (std::int64_t key = first; key <= row; ++key) {
                const std::size_t k = index(key - first);
                const double ds = p[k] * (dp[k] - delta) * slopes[k] * scale;
                for (std::int64_t i = 0; i < s.head_width; ++i) {
                    dqkv[at.query(row, head, i)] += ds * qkv[at.key(key, head, i)];
                    dqkv[at.key(key, head, i)] += ds * qkv[at.query(row, head, i)];
                }
            }
        }
    }
};

struct Result {
    Reals out, log_z, dqkv;

    Result(const Reals& qkv, const Reals& dout, const AttentionShape& s)
        : out(dout.size(), kNaN), log_z(index(s.batch * s.heads * s.time), kNaN), dqkv(qkv.size(), kNaN) {
        attention_forward(out.data(), log_z.data(), qkv.data(), s);
        attention_backward({dqkv.data(), false}, dout.data(), out.data(), log_z.data(), qkv.data(), s);
    }
};

} // namespace

TEST_CASE("attention equals its definition, forward and backward", "[kernels]") {
    pin_blas();
    on_every_target([] {
        for (const AttentionShape& s : kShapes) {
            CAPTURE(s.time, s.heads, s.kv_heads, s.alibi, s.logit_softcap);
            const Reals qkv = random_reals(s.batch * s.time * s.packed_width(), 1);
            const Reals dout = random_reals(s.batch * s.time * s.output_width(), 2);
            const Reference expected(to_doubles(qkv), to_doubles(dout), s);
            const Result actual(qkv, dout, s);
            CHECK(worst_error(actual.out, expected.out) < 16);
            CHECK(worst_error(actual.dqkv, expected.dqkv) < 64);
        }
    });
}

TEST_CASE("a cap far above the logits changes nothing, and one far below binds", "[kernels]") {
    pin_blas();
    AttentionShape s{1, 20, 2, 2, 8};
    const Reals qkv = random_reals(s.batch * s.time * s.packed_width(), 1, 3);
    const Reals dout = random_reals(s.batch * s.time * s.output_width(), 2);
    const Result plain(qkv, dout, s);
    s.logit_softcap = 1e9;
    CHECK(worst_error(Result(qkv, dout, s).out, to_doubles(plain.out)) < 300);
    s.logit_softcap = 1e-13; // every visible key weighs the same: the output is a mean of values
    const Result even(qkv, dout, s);
    Doubles mean(plain.out.size());
    for (std::int64_t row = 0; row < s.time; ++row)
        for (std::int64_t i = 0; i < s.output_width(); ++i)
            for (std::int64_t key = 0; key <= row; ++key)
                mean[index(row * s.output_width() + i)] +=
                    static_cast<double>(qkv[index(key * s.packed_width() + 2 * s.output_width() + i)]) /
                    static_cast<double>(row + 1);
    CHECK(worst_error(even.out, mean) < 64);
}

TEST_CASE("attention gives the same bits at any thread count", "[kernels]") {
    pin_blas();
    const AttentionShape s{3, 70, 4, 2, 8, true, 2};
    const Reals qkv = random_reals(s.batch * s.time * s.packed_width(), 1);
    const Reals dout = random_reals(s.batch * s.time * s.output_width(), 2);
    check_same_bits_at_any_thread_count([&] {
        const Result result(qkv, dout, s);
        return std::vector<Reals>{result.out, result.log_z, result.dqkv};
    });
}
