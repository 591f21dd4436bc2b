#pragma once

#include <cstdint>
#include <vector>

#include "ballast/nn/params.h"

namespace ballast::inline BALLAST_PRECISION {

/// The running statistics of all batchnorms of a model: the buffers NAME.running_mean and NAME.running_variance of its
/// table. A step takes in the whole batch, whatever its micro-batches: their means and variances are pooled (Chan et
/// al. 1979), the variance counts one row less than there are, and then, once,
///
///     running = (1 - momentum) * running + momentum * statistics of the batch
///
/// (Ioffe & Szegedy, 1502.03167, algorithm 2; PyTorch's convention for the momentum).
class RunningStatistics {
public:
    /// `table` is allocated and outlives this.
    RunningStatistics(const ParamTable& table, double momentum);

    /// Forgets what observe() has seen since the last update.
    void begin();
    /// Takes in the batchnorms of a pass; after its forward and before its backward.
    void observe(const Tape& tape);
    /// Whether all that was observed is finite.
    bool is_finite() const;
    /// Moves the buffers. False, and no change of any, when a statistic is not finite.
    bool update();

private:
    struct Pooled {
        real* running_mean;
        real* running_variance;
        double rows = 0;
        std::vector<double> mean;
        std::vector<double> squares; ///< sums of squared deviations
    };

    double momentum_;
    std::vector<Pooled> norms_;
};

} // namespace ballast::inline BALLAST_PRECISION
