// Optimizer steps against the papers' equations in double precision.

#include "ballast/kernels/update.h"

#include "kernel_test.h"

using namespace ballast;
using namespace kernel_test;

namespace {

const std::int64_t kSizes[] = {1, 3, 7, 8, 33, 16384, 16385, 50001};

struct State {
    Reals p, m, v, gradient;

    explicit State(std::int64_t n)
        : p(random_reals(n, 1)), m(index(n), 0), v(index(n), 0), gradient(random_reals(n, 2)) {}
};

AdamWStep adamw_step(int t) {
    AdamWStep step{};
    step.lr = real(1e-2);
    step.beta1 = real(0.9);
    step.beta2 = real(0.95);
    step.eps = real(1e-8);
    step.correction1 = static_cast<real>(1 / (1 - std::pow(0.9, t)));
    step.correction2 = static_cast<real>(1 / (1 - std::pow(0.95, t)));
    step.decay = real(1e-3);
    step.gradient_scale = real(0.5);
    return step;
}

SgdStep sgd_step(double momentum, bool nesterov) {
    SgdStep step{};
    step.lr = real(0.1);
    step.momentum = static_cast<real>(momentum);
    step.nesterov = nesterov;
    step.decay = real(1e-2);
    step.gradient_scale = real(0.25);
    return step;
}

/// The statistics are exact sums over what is in memory, whatever `real` is.
void check_stats(const UpdateStats& stats, const Reals& before, const Reals& after) {
    double updates = 0, parameters = 0;
    for (std::size_t i = 0; i < after.size(); ++i) {
        const double change = after[i] - before[i]; // rounded to real, as in the kernel; mostly exact
        updates += change * change;
        parameters += static_cast<double>(after[i]) * after[i];
    }
    CHECK(stats.update_squares == Approx(updates).epsilon(1e-12).margin(0));
    CHECK(stats.parameter_squares == Approx(parameters).epsilon(1e-12).margin(0));
    CHECK(stats.finite);
}

} // namespace

TEST_CASE("AdamW follows its equations", "[kernels][update]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(n);
            State state(n);
            for (int t = 1; t <= 3; ++t) {
                CAPTURE(t);
                const AdamWStep step = adamw_step(t);
                state.gradient = random_reals(n, 10 + static_cast<std::uint64_t>(t));
                const State before = state;
                const UpdateStats stats =
                    adamw_update(state.p.data(), state.m.data(), state.v.data(), state.gradient.data(), n, step);
                Doubles p, m, v, p_scale, m_scale, v_scale;
                for (std::size_t i = 0; i < state.p.size(); ++i) {
                    const double g = static_cast<double>(step.gradient_scale) * before.gradient[i];
                    const double beta1 = step.beta1, beta2 = step.beta2;
                    m.push_back(beta1 * before.m[i] + (1 - beta1) * g);
                    v.push_back(beta2 * before.v[i] + (1 - beta2) * g * g);
                    const double change =
                        step.lr * m.back() * step.correction1 / (std::sqrt(v.back() * step.correction2) + step.eps);
                    p.push_back(before.p[i] - static_cast<double>(step.decay) * before.p[i] - change);
                    m_scale.push_back(std::abs(before.m[i]) + std::abs(g));
                    v_scale.push_back(v.back());
                    p_scale.push_back(std::abs(before.p[i]) + static_cast<double>(step.lr));
                }
                CHECK(worst_error(state.m, m, m_scale) < 2);
                CHECK(worst_error(state.v, v, v_scale) < 4);
                CHECK(worst_error(state.p, p, p_scale) < 2);
                CHECK(same_bits(state.gradient, before.gradient));
                check_stats(stats, before.p, state.p);
            }
        }
    });
}

TEST_CASE("AdamW's first step has the size of the learning rate, whatever the gradient's", "[kernels][update]") {
    const double size = GENERATE(1e-4, 1.0, 1e4);
    State state(100);
    for (std::size_t i = 0; i < 100; ++i)
        state.gradient[i] = static_cast<real>(i % 2 == 0 ? size : -size);
    state.p.assign(100, 0);
    AdamWStep step = adamw_step(1);
    step.eps = 0;
    adamw_update(state.p.data(), state.m.data(), state.v.data(), state.gradient.data(), 100, step);
    for (std::size_t i = 0; i < 100; ++i)
        CHECK(state.p[i] == Approx(i % 2 == 0 ? -1e-2 : 1e-2).epsilon(20 * kEpsilon));
}

TEST_CASE("SGD follows its equations", "[kernels][update]") {
    const double momentum = GENERATE(0.0, 0.9);
    const bool nesterov = GENERATE(false, true);
    on_every_target([&] {
        for (const std::int64_t n : kSizes) {
            CAPTURE(momentum, nesterov, n);
            State state(n);
            const SgdStep step = sgd_step(momentum, nesterov);
            for (int t = 0; t < 2; ++t) {
                const State before = state;
                real* const velocity = momentum == 0 ? nullptr : state.m.data();
                const UpdateStats stats = sgd_update(state.p.data(), velocity, state.gradient.data(), n, step);
                Doubles p, v, p_scale, v_scale;
                for (std::size_t i = 0; i < state.p.size(); ++i) {
                    const double g = static_cast<double>(step.gradient_scale) * before.gradient[i];
                    const double decayed = before.p[i] - static_cast<double>(step.decay) * before.p[i];
                    v.push_back(static_cast<double>(step.momentum) * before.m[i] + g);
                    const double direction = momentum == 0 ? g
                                             : nesterov    ? g + static_cast<double>(step.momentum) * v.back()
                                                           : v.back();
                    p.push_back(decayed - static_cast<double>(step.lr) * direction);
                    v_scale.push_back(std::abs(before.m[i]) + std::abs(g));
                    p_scale.push_back(std::abs(before.p[i]) + std::abs(before.m[i]) + std::abs(g));
                }
                CHECK(worst_error(state.p, p, p_scale) < 2);
                if (momentum != 0) CHECK(worst_error(state.m, v, v_scale) < 2);
                check_stats(stats, before.p, state.p);
            }
        }
    });
}

TEST_CASE("updates say when a parameter is no longer finite", "[kernels][update]") {
    on_every_target([] {
        for (const std::int64_t n : kSizes) {
            for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
                for (const real poison : {kNaN, kInfinity}) {
                    CAPTURE(n, at, poison);
                    State state(n);
                    state.gradient[index(at)] = poison; // inf: the update is inf / inf
                    CHECK_FALSE(adamw_update(state.p.data(), state.m.data(), state.v.data(), state.gradient.data(), n,
                                             adamw_step(1))
                                    .finite);
                    CHECK(std::isnan(state.p[index(at)]));
                    if (n > 1) CHECK(std::isfinite(state.p[index(at == 0 ? n - 1 : 0)]));
                    State plain(n);
                    plain.p[index(at)] = poison;
                    const SgdStep step = sgd_step(0, false);
                    CHECK_FALSE(sgd_update(plain.p.data(), nullptr, plain.gradient.data(), n, step).finite);
                }
            }
        }
    });
}

TEST_CASE("updates of nothing", "[kernels][update]") {
    const UpdateStats stats = adamw_update(nullptr, nullptr, nullptr, nullptr, 0, adamw_step(1));
    CHECK(stats.update_squares == 0);
    CHECK(stats.parameter_squares == 0);
    CHECK(stats.finite);
}

TEST_CASE("updates give the same bits at any thread count", "[kernels][update]") {
    const std::int64_t n = 300007;
    check_same_bits_at_any_thread_count([&] {
        State adam(n), sgd(n);
        const UpdateStats a =
            adamw_update(adam.p.data(), adam.m.data(), adam.v.data(), adam.gradient.data(), n, adamw_step(1));
        const UpdateStats s = sgd_update(sgd.p.data(), sgd.m.data(), sgd.gradient.data(), n, sgd_step(0.9, true));
        const Reals stats = bits_of({a.update_squares, a.parameter_squares, s.update_squares, s.parameter_squares});
        return std::vector<Reals>{adam.p, adam.m, adam.v, sgd.p, sgd.m, stats};
    });
}
