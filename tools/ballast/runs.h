#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ballast/base/log.h"
#include "ballast/config/config.h"
#include "ballast/nn/transformer.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/run_directory.h"

/// Throws UsageError unless `path` is a run directory; says what else it is (a config, a checkpoint, a name that lacks
/// `runs/`) and what to do about it.
void require_run_directory(const std::filesystem::path& path);

/// A trained model, to be used and not trained further.
struct TrainedModel {
    ballast::Config config;
    std::filesystem::path checkpoint;
    ballast::TrainerState state;
    std::unique_ptr<ballast::ParamTable> table;
    std::unique_ptr<ballast::Transformer> model;
};

/// Loads from a checkpoint of a run: a step, "newest", or "best" (that with the lowest validation loss). Throws
/// UsageError, CheckpointError, IoError.
TrainedModel load_model(const std::filesystem::path& run, const std::string& checkpoint, const ballast::Log& log);
