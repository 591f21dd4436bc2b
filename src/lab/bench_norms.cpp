#include <algorithm>
#include <array>
#include <chrono>
#include <string>

#include "ballast/base/arena.h"
#include "ballast/base/error.h"
#include "ballast/base/rng.h"
#include "ballast/kernels/batchnorm.h"
#include "ballast/kernels/norm.h"
#include "ballast/kernels/squash.h"
#include "ballast/lab/bench.h"

namespace ballast {

namespace {

/// What the kernels read and write. The arena leaves its memory untouched, so it is filled here: the first access to a
/// page costs more than any later one.
struct Operands {
    std::int64_t rows, width;
    Arena memory;
    Arena scratch;
    real *x, *y, *dy, *dx, *stats, *gain, *bias, *dgain, *dbias;

    Operands(std::int64_t row_count, std::int64_t row_width) : rows(row_count), width(row_width) {
        x = random(rows * width, "x");
        dy = random(rows * width, "dy");
        gain = random(width, "gain");
        bias = random(width, "bias");
        y = zeros(rows * width);
        dx = zeros(rows * width);
        stats = zeros(std::max(kLayerNormStats * rows, kBatchNormStats * width));
        dgain = zeros(width);
        dbias = zeros(width);
    }

private:
    real* zeros(std::int64_t n) {
        real* values = memory.allocate<real>(n);
        std::fill_n(values, n, real{0});
        return values;
    }
    real* random(std::int64_t n, const char* name) {
        real* values = memory.allocate<real>(n);
        const RandomStream stream(1, std::string("bench/") + name);
        // Normal numbers are slow to draw, and speed does not depend on all of them being different.
        constexpr std::int64_t kDrawn = 1 << 16;
        for (std::int64_t i = 0; i < n; ++i)
            values[i] =
                i < kDrawn ? static_cast<real>(stream.normal(static_cast<std::uint64_t>(i))) : values[i - kDrawn];
        return values;
    }
};

constexpr real kEps = 1e-5F, kAlpha = 0.5F;

void squash_pass(Squash kind, Operands& o, bool forward) {
    if (forward)
        squash_forward(kind, o.y, o.x, kAlpha, 0, o.gain, o.bias, o.rows, o.width);
    else
        squash_backward(kind, {{o.dx}, {o.dgain}, {o.dbias}, {o.stats}, {o.stats + 1}}, o.dy, o.x, kAlpha, 0, o.gain,
                        o.rows, o.width, o.scratch);
}

struct Kind {
    std::string_view name;
    int forward_arrays; ///< read or written, each counted once a pass
    int backward_arrays;
    void (*run)(Operands&, bool forward);
};

constexpr std::array kKinds{
    Kind{"layernorm", 2, 3,
         [](Operands& o, bool forward) {
             if (forward)
                 layernorm_forward(o.y, o.stats, o.x, o.gain, o.bias, o.rows, o.width, kEps);
             else
                 layernorm_backward({o.dx}, {o.dgain}, {o.dbias}, o.dy, o.x, o.gain, o.stats, o.rows, o.width,
                                    o.scratch);
         }},
    Kind{"rmsnorm", 2, 3,
         [](Operands& o, bool forward) {
             if (forward)
                 rmsnorm_forward(o.y, o.stats, o.x, o.gain, o.rows, o.width, kEps);
             else
                 rmsnorm_backward({o.dx}, {o.dgain}, o.dy, o.x, o.gain, o.stats, o.rows, o.width, o.scratch);
         }},
    Kind{"scalenorm", 2, 3,
         [](Operands& o, bool forward) {
             if (forward)
                 scalenorm_forward(o.y, o.stats, o.x, *o.gain, o.rows, o.width, kEps);
             else
                 scalenorm_backward({o.dx}, {o.dgain}, o.dy, o.x, *o.gain, o.stats, o.rows, o.width, kEps, o.scratch);
         }},
    Kind{"batchnorm", 3, 5,
         [](Operands& o, bool forward) {
             if (forward) {
                 batchnorm_statistics(o.stats, o.x, o.rows, o.width, kEps, o.scratch);
                 batchnorm_forward(o.y, o.x, o.stats, o.gain, o.bias, o.rows, o.width);
             } else {
                 batchnorm_backward({o.dx}, {o.dgain}, {o.dbias}, o.dy, o.x, o.gain, o.stats, false, o.rows, o.width,
                                    o.scratch);
             }
         }},
    Kind{"dyt", 2, 3, [](Operands& o, bool forward) { squash_pass(Squash::tanh, o, forward); }},
    Kind{"derf", 2, 3, [](Operands& o, bool forward) { squash_pass(Squash::erf, o, forward); }},
};

constexpr auto kNames = [] {
    std::array<std::string_view, kKinds.size()> names;
    for (std::size_t i = 0; i < names.size(); ++i)
        names[i] = kKinds[i].name;
    return names;
}();

} // namespace

std::span<const std::string_view> norm_kinds() { return kNames; }

NormSpeed measure_norm(std::string_view kind, std::int64_t rows, std::int64_t width, double seconds) {
    using Clock = std::chrono::steady_clock;
    const auto* const known = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& k) { return k.name == kind; });
    if (known == kKinds.end()) throw UsageError("no norm is called '" + std::string(kind) + "'");
    Operands operands(rows, width);
    const auto since = [](Clock::time_point start) {
        return std::chrono::duration<double>(Clock::now() - start).count();
    };
    const auto time = [&](bool forward) {
        const auto start = Clock::now();
        known->run(operands, forward);
        return since(start);
    };
    // Forward and backward in turns: as in training, neither finds in the cache what it has just left there itself.
    double forward = time(true), backward = time(false);
    const auto start = Clock::now();
    for (int tries = 0; tries < 3 || since(start) < seconds; ++tries) {
        forward = std::min(forward, time(true));
        backward = std::min(backward, time(false));
    }
    const double bytes = sizeof(real) * static_cast<double>(rows * width);
    return {known->name, rows, width, forward, backward, bytes * known->forward_arrays, bytes * known->backward_arrays};
}

} // namespace ballast
