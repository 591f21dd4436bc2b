#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "ballast/base/file.h"
#include "ballast/data/task.h"
#include "ballast/data/tokenizer.h"
#include "ballast/data/tokens.h"

namespace ballast {

struct DataOptions {
    enum class Format : std::uint8_t {
        automatic, ///< bin for a directory that holds train.bin, else text
        text,      ///< one text file
        bin,       ///< nanoGPT's: a directory with train.bin and val.bin, or one such file; uint16, no header
    };

    std::filesystem::path path;
    Format format = Format::automatic;
    Tokenizer::Kind tokenizer = Tokenizer::Kind::character; ///< text: character or byte
    /// Share of the tokens, the last ones, kept for validation, from 0 (none) to below 1. A val.bin takes its place.
    double val_fraction = 0.1;
    /// bin: number of ids; 0 takes it from meta.json beside the data, else from the largest id.
    std::int64_t vocab_size = 0;
    /// A split must hold more tokens than this, one window and its last target.
    std::int64_t context = 1;
    /// Read the data with this vocabulary instead of its own: that of a trained model.
    std::optional<Tokenizer> vocabulary;
    /// A synthetic task in the place of a text: of everything above, only val_fraction and context count.
    std::optional<Task> task;
    std::int64_t symbols = 0; ///< of the task
};

/// Token ids for training and validation. Text is read through a memory map and kept in one to two bytes a token;
/// bytes and token files stay in the map, so they are not held in memory twice and must not change while in use.
class Dataset {
public:
    /// Throws IoError for what cannot be read and DataError for what cannot be trained on, in one line that begins
    /// with the path.
    explicit Dataset(const DataOptions& options);

    /// Turns ids into text. May know fewer ids than vocab_size() where the data asked for a larger vocabulary.
    const Tokenizer& tokenizer() const { return tokenizer_; }
    std::int64_t vocab_size() const { return vocab_size_; }

    /// Empty for a task, as the next.
    TokenView train() const { return train_; }
    /// Empty when val_fraction is 0.
    TokenView validation() const { return validation_; }
    /// Null for a text.
    const SyntheticTask* task() const { return task_ ? &*task_ : nullptr; }
    bool has_validation() const { return task_ ? validates_task_ : validation_.size() > 0; }

    /// Training batch `step`: windows of the text (Sampler), or sequences of the task. `inputs` and `targets` are
    /// [batch, context], written whole; without a target, a target is kNoTarget.
    void batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int64_t context, std::int32_t* inputs,
               std::int32_t* targets) const;
    /// Batch `index` of `batches` of the validation split (Sampler::evaluation_batch), or of the training split where
    /// there is no other.
    void evaluation_batch(std::int64_t index, std::int64_t batches, std::int64_t batch, std::int64_t context,
                          std::int32_t* inputs, std::int32_t* targets) const;
    /// Targets in a sequence of `context` tokens.
    std::int64_t targets_per_sequence(std::int64_t context) const {
        return task_ ? task_->targets_per_sequence() : context;
    }

    /// Entropy of the training split's token frequencies in nats: the loss of the best model that sees no context. For
    /// a task, its chance_loss().
    double unigram_entropy() const { return unigram_entropy_; }

    /// Checksum of both splits and the vocabulary size: equal for the same data read in the same way.
    std::uint64_t fingerprint() const { return fingerprint_; }

private:
    void load_text(const DataOptions& options);
    void load_bin(const DataOptions& options);
    void make_task(const DataOptions& options);
    void split(TokenView all, const DataOptions& options);
    void check_lengths(const DataOptions& options) const;
    void measure();

    Tokenizer tokenizer_ = Tokenizer::bytes();
    std::int64_t vocab_size_ = 0;
    std::vector<MappedFile> files_;
    std::optional<TokenArray> tokens_;
    TokenView train_;
    TokenView validation_;
    std::optional<SyntheticTask> task_;
    bool validates_task_ = false;
    double unigram_entropy_ = 0;
    std::uint64_t fingerprint_ = 0;
};

} // namespace ballast
