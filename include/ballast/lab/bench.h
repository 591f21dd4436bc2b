#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/autograd/op.h"
#include "ballast/train/learner.h"

// Measurements of training steps and kernels on this machine, for whoever prints them.

namespace ballast {

double median(std::vector<double> values);

/// The calls of one op with the same shapes in a training step, all of them together.
struct CallSpeed {
    const OpDef* op;
    std::vector<Shape> inputs;
    std::int64_t calls = 0;
    double forward_seconds = 0;
    double backward_seconds = 0;
    Flops flops;
    /// What the calls are handed, every array counted once: forward inputs, output and what is saved; backward inputs,
    /// what was saved, and the gradients of output and inputs. Of an embedding's table, the rows that are looked up.
    /// An op that need not read all of it, such as the backward of a sum, goes beyond the bandwidth.
    double forward_bytes = 0;
    double backward_bytes = 0;
};

/// How long training steps take: forward, backward, clipping and update.
struct StepSpeed {
    std::vector<double> seconds; ///< of each step
    /// Where the time goes: means over the faster half of the steps, as what other programs take is no property of the
    /// step. The parts add up to `typical_seconds`.
    double typical_seconds = 0;
    std::vector<CallSpeed> calls; ///< in the order of the pass
    double update_seconds = 0;    ///< clipping and optimizer
    /// Operations a second of multiply-adds on registers, the limit that a step is given as a share of: the upper
    /// quartile of short tries between the steps, as a processor's clock changes while it works, and as other programs
    /// may take some of a try.
    double peak_flops = 0;
    double other_seconds = 0; ///< drawing the batch, the tape, norms of gradients, checks
};

/// Makes step `step` + 1, which becomes `step`, and returns its seconds. Throws Error when it is not finite.
double make_step(Learner& learner, std::int64_t& step);

/// Makes steps for about `seconds`, at least three, as make_step does. The first steps of a learner take memory from
/// the system: make some before.
StepSpeed measure_steps(Learner& learner, std::int64_t& step, double seconds);

/// The time that a step takes longer when it is probed and its records are made ready to be written, as a share of the
/// time of a step: the median of pairs of steps with and without, which take turns. Otherwise as measure_steps.
double measure_probe(Learner& learner, std::int64_t& step, double seconds);

/// Operations of the matrix products of a step, (6 parameters without the position table + 12 layers width context) a
/// token: multiply-adds, forward and backward, each counted as two; attention as if it were not causal, as is usual
/// (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
double step_flops(const Learner& learner);

/// How fast one kind of norm is on a matrix [rows, width], with gain and bias where the kind has them.
struct NormSpeed {
    std::string_view kind; ///< as in a config: "layernorm"
    std::int64_t rows = 0;
    std::int64_t width = 0;
    /// Of the fastest call: what other programs take from a try is no property of the kernel.
    double forward_seconds = 0;
    double backward_seconds = 0;
    /// What has to be read and written, every array counted each time a pass over all rows needs it: forward x and y,
    /// backward dy, x and dx. Batch norm's statistics, and the sums of its backward, are passes of their own.
    double forward_bytes = 0;
    double backward_bytes = 0;
};

/// The kinds that measure_norm knows; the op of each has its name.
std::span<const std::string_view> norm_kinds();

/// Times forward and backward of a kind on random numbers, for about `seconds`. Throws UsageError for a kind that is
/// not in norm_kinds().
NormSpeed measure_norm(std::string_view kind, std::int64_t rows, std::int64_t width, double seconds);

/// A time that two benchmarks have in common.
struct FigureChange {
    std::string name; ///< where it stands: the names of the objects around it, and its own, "p1 linear forward_seconds"
    double before = 0;
    double after = 0;
};

struct BenchComparison {
    std::vector<std::string> machine; ///< what differs between the machines: "threads: 1, now 2"
    std::vector<FigureChange> figures;
};

/// Finds the numbers called `...seconds` in two JSON texts that `ballast bench --json` wrote. Throws DataError when
/// `before` is none, or of another benchmark.
BenchComparison compare_benchmarks(std::string_view before, std::string_view after);

} // namespace ballast
