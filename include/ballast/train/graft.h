#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "ballast/base/log.h"
#include "ballast/config/config.h"
#include "ballast/data/dataset.h"
#include "ballast/nn/transformer.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/graft_record.h"

// A run that starts from the weights of another, of the same architecture or not (`init_from` in a config).
//
// What becomes of the tensors, by their names:
// - in both models, in one shape: reused, to the bit. An output matrix that the source ties to the embedding is copied
//   where it is not tied here. A gain is shifted by 1 where one of the models has a unit offset.
// - embedding.positions of another length: the first ones are reused, further ones drawn.
// - in both, in another shape: as the config draws it.
// - only here: as the config draws it. Further layers are drawn; norms have gain 1 and bias 0.
// - only in the source: dropped, such as the norms of another placement and the last layers of a deeper model.
// Moments, steps, schedule and batches begin anew: nothing of the source's optimizer is carried over.

namespace ballast {

/// What is known of a source before its tensors are loaded.
struct GraftSourceInfo {
    std::filesystem::path run;
    Config config;
    TrainerState state;
};

/// A model to start from.
struct GraftSource : GraftSourceInfo {
    std::uint64_t checksum = 0; ///< of params.safetensors
    ParamTable table;
    std::unique_ptr<Transformer> model;
};

/// Reads what `init_from` names; throws as load_graft_source().
GraftSourceInfo read_graft_source(const InitFromConfig& init, const Log& log = {});

/// Throws as graft() where a model of `config`, with that vocabulary, cannot start from the source.
void require_fit(const GraftSourceInfo& source, const Config& config, const Tokenizer& tokenizer,
                 std::int64_t vocab_size);

/// Loads what `init_from` names. Throws UsageError when there is no such run or checkpoint, or a process works on the
/// run; CheckpointError when the checkpoint is damaged.
std::unique_ptr<GraftSource> load_graft_source(const InitFromConfig& init, const Log& log = {});

/// Puts the source's weights into a model of `config` whose `table` has just been allocated, calibrates new norms if
/// the config asks for it, and measures how far the new model is from the source on the data of `config`. Throws
/// DataError when the vocabularies differ, UsageError when the streams have different widths.
GraftRecord graft(const GraftSource& source, const Config& config, const Dataset& data, ParamTable& table,
                  const Transformer& model);

} // namespace ballast
