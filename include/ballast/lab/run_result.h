#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

#include "ballast/config/config.h"
#include "ballast/train/run_directory.h"

namespace ballast {

enum class RunState : std::uint8_t {
    missing,    ///< has not begun
    unfinished, ///< goes on, was interrupted, or died
    done,       ///< made all its steps, or was stopped by a policy of its config
    diverged,   ///< ended by divergence or a value that is not finite: a result, too
};
/// "missing", "unfinished", "done", "diverged".
std::string_view to_string(RunState state);

/// What a run came to, in the same terms for every run. Losses are in nats per token.
struct RunResult {
    RunState state = RunState::missing;
    RunSummary summary;                 ///< of a run that is done or diverged
    std::optional<double> initial_loss; ///< of the weights at the start: the training loss of step 1
    /// The validation loss after the last step; of a run without validation, the mean training loss of its last 5 % of
    /// steps. Unset when not all steps were made, or the loss is not finite.
    std::optional<double> final_loss;
    std::optional<double> best_loss; ///< the lowest validation loss, without validation the lowest training loss
    bool by_validation = false;      ///< what final_loss and best_loss are

    bool has_ended() const { return state == RunState::done || state == RunState::diverged; }
};

/// Reads it from a run directory, or from where one will be. Throws IoError for records that are damaged.
RunResult read_result(const std::filesystem::path& run, const Config& config);

} // namespace ballast
