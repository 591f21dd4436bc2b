#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/data/tokenizer.h"
#include "ballast/nn/params.h"
#include "ballast/train/optimizer.h"
#include "ballast/train/stability.h"

// Checkpoints: directories RUN/checkpoints/step-NNNNNNNN with
//   config.json          the resolved config
//   params.safetensors   every parameter and buffer, under its name in the table
//   optim.safetensors    every moment, as "<parameter>.<moment>"
//   state.json           where training is, and size and checksum of the three files above and of itself
// One is written under a temporary name in checkpoints/, synced, and renamed, so at every moment, through any crash, it
// is absent or whole; whether it still is, its checksums tell.

namespace ballast {

/// Where training is, beside parameters and moments.
struct TrainerState {
    std::int64_t step = 0;                                      ///< finished steps
    std::int64_t tokens = 0;                                    ///< training tokens seen
    double best_loss = std::numeric_limits<double>::infinity(); ///< lowest training loss of a step
    std::int64_t best_loss_step = 0;
    double best_val_loss = std::numeric_limits<double>::infinity(); ///< infinity: not evaluated yet
    std::int64_t best_val_step = 0;
    double seconds = 0;       ///< time spent in training
    std::int64_t resumed = 0; ///< how often the run was taken up again
    std::int64_t rewinds = 0; ///< how often the run went back
    /// Step s trains on batch s + skipped_batches: a rewind leaves out the batches that led to it.
    std::int64_t skipped_batches = 0;
    std::string started; ///< when the run began (utc_time() in run_directory.h)
    std::uint64_t data_fingerprint = 0;
    std::int64_t vocab_size = 0; ///< the model's; at least the tokenizer's
    Tokenizer tokenizer = Tokenizer::bytes();
    StabilityState stability;
};

/// What can be known about a checkpoint before there is a model to load it into.
struct CheckpointInfo {
    TrainerState state;
    std::string config_json;
    std::string version; ///< of the Ballast that wrote it
};

/// "step-00000700": what files and folders of a step are called; more digits where eight are too few.
std::string step_name(std::int64_t step);
std::optional<std::int64_t> step_of_name(const std::string& name); ///< nothing for any other name

/// RUN/checkpoints/step-NNNNNNNN.
std::filesystem::path checkpoint_path(const std::filesystem::path& run, std::int64_t step);

/// Saves the checkpoint of state.step and returns its path; it is on the disk when this returns. A whole checkpoint of
/// that step stays as it is; a damaged one is replaced. Removes what unfinished saves left behind. Throws IoError; then
/// all other checkpoints are as before.
std::filesystem::path save_checkpoint(const std::filesystem::path& run, std::string_view config_json,
                                      const TrainerState& state, const ParamTable& table,
                                      std::span<const Moment> moments, const FileCalls& calls = kSystemCalls);

/// Reads state.json and config.json. Throws CheckpointError.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& checkpoint);

/// Checks everything, then loads everything. Throws CheckpointError with all that is wrong: missing, damaged or newer
/// files; tensors that are missing, unexpected, or of another shape. Then nothing has been loaded. The padding between
/// parameters is left alone.
void load_checkpoint(const std::filesystem::path& checkpoint, TrainerState& state, ParamTable& table,
                     std::span<const Moment> moments);

/// The same for parameters alone, to evaluate or generate: optim.safetensors is not opened. Returns the state.
TrainerState load_parameters(const std::filesystem::path& checkpoint, ParamTable& table);

/// Throws CheckpointError unless all four files have the sizes and checksums that state.json says.
void verify_checkpoint(const std::filesystem::path& checkpoint);

struct NewestCheckpoint {
    std::optional<std::filesystem::path> path; ///< none: the run has no whole checkpoint
    std::vector<std::string> passed_over;      ///< for each newer one that is not whole, a line that says why
    bool other_version = false; ///< one of these is not damaged, but another version's, in its own format
};

/// The newest checkpoint of a run that is whole by its checksums.
NewestCheckpoint newest_checkpoint(const std::filesystem::path& run);

/// Steps of all checkpoints of a run, whole or not, in ascending order; empty when there are none. Throws IoError.
std::vector<std::int64_t> list_checkpoints(const std::filesystem::path& run);

/// Removes all but the `keep` newest checkpoints (0: keeps all) and those of the steps in `spared`. A checkpoint whose
/// files are missing or have the wrong size neither counts as kept nor is removed before `keep` newer good ones are
/// there. Returns the steps that were removed. Throws IoError.
std::vector<std::int64_t> prune_checkpoints(const std::filesystem::path& run, std::int64_t keep,
                                            std::span<const std::int64_t> spared,
                                            const FileCalls& calls = kSystemCalls);

/// Removes all checkpoints of later steps, and that of `step`, newest first. Throws IoError.
void remove_checkpoints_from(const std::filesystem::path& run, std::int64_t step,
                             const FileCalls& calls = kSystemCalls);

} // namespace ballast
