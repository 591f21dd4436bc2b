// Attention and rotary positions against the naive computation in double.

#include "ballast/kernels/attention.h"

#include "ballast/kernels/gemm.h"
#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

/// Times below, at and above the blocks of 64 queries; heads that share keys; single tokens and features.
const AttentionShape kShapes[] = {
    {1, 1, 1, 1, 1},           {2, 7, 3, 3, 5},
    {2, 9, 4, 2, 4, true},     {1, 64, 2, 1, 8},
    {1, 65, 2, 2, 16, true},   {2, 66, 6, 3, 3},
    {1, 130, 12, 1, 2, true},  {3, 128, 2, 2, 32},
    {2, 7, 4, 2, 8, false, 2}, {1, 70, 2, 2, 16, true, 1.5},
};

struct Naive {
    Doubles out, log_z, dqkv;
};

/// softmax(cap tanh(q k^T / sqrt(width) / cap) - slope distance) v, and the gradient of out . dout, written out.
Naive naive_attention(const Reals& qkv, const Reals& dout, const AttentionShape& s) {
    Naive result{Doubles(index(s.batch * s.time * s.output_width())), Doubles(index(s.batch * s.heads * s.time)),
                 Doubles(qkv.size())};
    const double scale = 1 / std::sqrt(static_cast<double>(s.head_width));
    for (std::int64_t batch = 0; batch < s.batch; ++batch)
        for (std::int64_t head = 0; head < s.heads; ++head) {
            const std::int64_t kv_head = head / (s.heads / s.kv_heads);
            const auto q = [&](std::int64_t t) {
                return (batch * s.time + t) * s.packed_width() + head * s.head_width;
            };
            const auto k = [&](std::int64_t t) {
                return (batch * s.time + t) * s.packed_width() + (s.heads + kv_head) * s.head_width;
            };
            const auto v = [&](std::int64_t t) { return k(t) + s.kv_heads * s.head_width; };
            const double slope = s.alibi ? alibi_slope(head, s.heads) : 0;
            for (std::int64_t t = 0; t < s.time; ++t) {
                Doubles p, cap_slopes;
                double sum = 0;
                for (std::int64_t j = 0; j <= t; ++j) {
                    double logit = 0;
                    for (std::int64_t i = 0; i < s.head_width; ++i)
                        logit += double{qkv[index(q(t) + i)]} * double{qkv[index(k(j) + i)]};
                    logit *= scale;
                    const double cap = s.logit_softcap;
                    cap_slopes.push_back(cap > 0 ? 1 / std::pow(std::cosh(logit / cap), 2) : 1);
                    if (cap > 0) logit = cap * std::tanh(logit / cap);
                    p.push_back(std::exp(logit - slope * static_cast<double>(t - j)));
                    sum += p.back();
                }
                result.log_z[index((batch * s.heads + head) * s.time + t)] = std::log(sum);
                const std::int64_t o = (batch * s.time + t) * s.output_width() + head * s.head_width;
                double delta = 0; // sum of p dp over the keys
                Doubles dp(p.size());
                for (std::size_t j = 0; j < p.size(); ++j) {
                    p[j] /= sum;
                    const std::int64_t value = v(static_cast<std::int64_t>(j));
                    for (std::int64_t i = 0; i < s.head_width; ++i) {
                        result.out[index(o + i)] += p[j] * double{qkv[index(value + i)]};
                        result.dqkv[index(value + i)] += p[j] * double{dout[index(o + i)]};
                        dp[j] += double{dout[index(o + i)]} * double{qkv[index(value + i)]};
                    }
                    delta += p[j] * dp[j];
                }
                for (std::size_t j = 0; j < p.size(); ++j) {
                    const double ds = p[j] * (dp[j] - delta) * cap_slopes[j] * scale;
                    const std::int64_t key = k(static_cast<std::int64_t>(j));
                    for (std::int64_t i = 0; i < s.head_width; ++i) {
                        result.dqkv[index(q(t) + i)] += ds * double{qkv[index(key + i)]};
                        result.dqkv[index(key + i)] += ds * double{qkv[index(q(t) + i)]};
                    }
                }
            }
        }
    return result;
}

struct Case {
    Reals qkv, dout, out, log_z, dqkv;

    explicit Case(const AttentionShape& s, double deviation = 1)
        : qkv(random_reals(s.batch * s.time * s.packed_width(), 1, deviation)),
          dout(random_reals(s.batch * s.time * s.output_width(), 2)), out(dout.size(), kNaN),
          log_z(index(s.batch * s.heads * s.time), kNaN), dqkv(qkv.size(), kNaN) {
        pin_blas();
    }
    void forward(const AttentionShape& s) { attention_forward(out.data(), log_z.data(), qkv.data(), s); }
    void backward(const AttentionShape& s, bool add) {
        attention_backward({dqkv.data(), add}, dout.data(), out.data(), log_z.data(), qkv.data(), s);
    }
};

} // namespace

TEST_CASE("attention equals the naive computation", "[kernels][attention]") {
    on_every_target([] {
        for (const AttentionShape& s : kShapes) {
            CAPTURE(s.batch, s.time, s.heads, s.kv_heads, s.head_width, s.alibi, s.logit_softcap);
            Case c(s);
            c.forward(s);
            const Naive naive = naive_attention(c.qkv, c.dout, s);
            CHECK(worst_error(c.out, naive.out) < 16);
            CHECK(worst_error(c.log_z, naive.log_z) < 16);

            c.backward(s, false);
            CHECK(worst_error(c.dqkv, naive.dqkv) < 64);

            const Reals base = random_reals(static_cast<std::int64_t>(c.dqkv.size()), 5);
            Doubles expected = naive.dqkv;
            for (std::size_t i = 0; i < expected.size(); ++i)
                expected[i] += double{base[i]};
            c.dqkv = base;
            c.backward(s, true);
            CHECK(worst_error(c.dqkv, expected) < 64);
        }
    });
}

TEST_CASE("attention has the same bits at any number of threads", "[kernels][attention]") {
    for (const AttentionShape& s : kShapes)
        check_same_bits_at_any_thread_count([&] {
            Case c(s);
            c.forward(s);
            c.backward(s, false);
            return std::vector<Reals>{c.out, c.log_z, c.dqkv};
        });
}

TEST_CASE("attention with logits of hundreds is one-hot, not infinite", "[kernels][attention]") {
    const AttentionShape s{1, 70, 2, 2, 4};
    Case c(s, 40);
    c.forward(s);
    c.backward(s, false);
    const auto finite = [](const Reals& values) {
        return std::all_of(values.begin(), values.end(), [](real x) { return std::isfinite(x); });
    };
    CHECK(finite(c.out));
    CHECK(finite(c.log_z));
    CHECK(finite(c.dqkv));
    // The first token sees itself alone: its output is its value.
    for (std::int64_t i = 0; i < s.output_width(); ++i)
        CHECK(c.out[index(i)] == Approx(c.qkv[index(2 * s.output_width() + i)]).epsilon(1e-6));
}

TEST_CASE("a cap far above the logits changes nothing, and one far below binds", "[kernels][attention]") {
    AttentionShape s{1, 20, 2, 2, 8};
    const auto output = [&](double cap) {
        s.logit_softcap = cap;
        Case c(s, 3);
        c.forward(s);
        return c;
    };
    const Case plain = output(0);
    CHECK(worst_error(output(1e9).out, to_doubles(plain.out)) < 300);
    Doubles mean(plain.out.size()); // every visible key weighs the same
    for (std::int64_t row = 0; row < s.time; ++row)
        for (std::int64_t i = 0; i < s.output_width(); ++i)
            for (std::int64_t key = 0; key <= row; ++key)
                mean[index(row * s.output_width() + i)] +=
                    static_cast<double>(plain.qkv[index(key * s.packed_width() + 2 * s.output_width() + i)]) /
                    static_cast<double>(row + 1);
    CHECK(worst_error(output(1e-13).out, mean) < 64);
}

TEST_CASE("a NaN in one sequence stays in it", "[kernels][attention]") {
    const AttentionShape s{2, 10, 2, 1, 4};
    Case c(s);
    c.qkv[0] = kNaN; // the first query of the first head
    c.forward(s);
    CHECK(std::isnan(c.out[0]));
    const auto second = c.out.begin() + s.time * s.output_width();
    CHECK(std::all_of(second, c.out.end(), [](real x) { return std::isfinite(x); }));
}

TEST_CASE("ALiBi's slopes are those of the paper", "[kernels][attention]") {
    for (std::int64_t head = 0; head < 8; ++head)
        CHECK(alibi_slope(head, 8) == std::exp2(-static_cast<double>(head + 1)));
    CHECK(alibi_slope(0, 1) == std::exp2(-8.0));
    CHECK(alibi_slope(15, 16) == std::exp2(-8.0));
    // 12 heads: the 8 of 8 heads, then every other one of 16.
    const double expected[] = {-1, -2, -3, -4, -5, -6, -7, -8, -0.5, -1.5, -2.5, -3.5};
    for (std::int64_t head = 0; head < 12; ++head)
        CHECK(alibi_slope(head, 12) == Approx(std::exp2(expected[head])));
}

TEST_CASE("the table of rotations has the angles of the paper", "[kernels][attention]") {
    Reals table(5 * 6);
    rope_table(table.data(), 5, 6, 100);
    for (std::int64_t t = 0; t < 5; ++t)
        for (std::int64_t i = 0; i < 3; ++i) {
            const double angle = static_cast<double>(t) / std::pow(100.0, 2.0 * static_cast<double>(i) / 6);
            CHECK(table[index(t * 6 + i)] == Approx(std::cos(angle)).margin(1e-6));
            CHECK(table[index(t * 6 + 3 + i)] == Approx(std::sin(angle)).margin(1e-6));
        }
}

TEST_CASE("rotations turn queries and keys, leave values, and turn back", "[kernels][attention]") {
    for (const AttentionShape& s : {AttentionShape{2, 5, 3, 1, 4}, AttentionShape{1, 700, 4, 2, 16}}) {
        CAPTURE(s.time);
        Reals table(index(s.time * s.head_width));
        rope_table(table.data(), s.time, s.head_width, 10000);
        const Reals x = random_reals(s.batch * s.time * s.packed_width(), 1);
        Reals y(x.size(), kNaN), back(x.size(), kNaN);
        rope_rotate({y.data(), false}, x.data(), table.data(), s, false);
        const std::int64_t half = s.head_width / 2;
        Doubles expected;
        for (std::int64_t row = 0; row < s.batch * s.time; ++row)
            for (std::int64_t column = 0; column < s.packed_width(); ++column) {
                const std::int64_t at = row * s.packed_width() + column, i = column % s.head_width;
                const double value = x[index(at)];
                if (column >= (s.heads + s.kv_heads) * s.head_width) {
                    expected.push_back(value);
                    continue;
                }
                const double angle =
                    static_cast<double>(row % s.time) *
                    std::pow(10000.0, -2.0 * static_cast<double>(i % half) / static_cast<double>(s.head_width));
                const double other = i < half ? -x[index(at + half)] : x[index(at - half)];
                expected.push_back(value * std::cos(angle) + other * std::sin(angle));
            }
        CHECK(worst_error(y, expected) < 8);
        rope_rotate({back.data(), false}, y.data(), table.data(), s, true);
        CHECK(worst_error(back, to_doubles(x)) < 8);

        // Adding.
        Reals sum = x;
        rope_rotate({sum.data(), true}, x.data(), table.data(), s, false);
        for (std::size_t i = 0; i < expected.size(); ++i)
            expected[i] += double{x[i]};
        CHECK(worst_error(sum, expected) < 8);
    }
}

TEST_CASE("products of rotated queries and keys depend on their distance alone", "[kernels][attention]") {
    // One query and one key at every position: q . k of rows t and t + 3 is the same for every t.
    const AttentionShape s{1, 40, 1, 1, 8};
    Reals table(index(s.time * s.head_width));
    rope_table(table.data(), s.time, s.head_width, 10000);
    const Reals row = random_reals(s.packed_width(), 1);
    Reals x, y(index(s.time * s.packed_width()));
    for (std::int64_t t = 0; t < s.time; ++t)
        x.insert(x.end(), row.begin(), row.end());
    rope_rotate({y.data(), false}, x.data(), table.data(), s, false);
    const auto product = [&](std::int64_t query, std::int64_t key) {
        double sum = 0;
        for (std::int64_t i = 0; i < s.head_width; ++i)
            sum += double{y[index(query * s.packed_width() + i)]} *
                   double{y[index(key * s.packed_width() + s.head_width + i)]};
        return sum;
    };
    for (std::int64_t t = 0; t + 3 < s.time; ++t)
        CHECK(product(t + 3, t) == Approx(product(3, 0)).margin(1e-5));
    CHECK(product(3, 0) != Approx(product(4, 0)).margin(1e-5));
}
