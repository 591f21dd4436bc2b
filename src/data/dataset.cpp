#include "ballast/data/dataset.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <system_error>
#include <utility>

#include "ballast/base/error.h"
#include "ballast/data/meta.h"
#include "ballast/data/sampler.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const fs::path& path, const std::string& what) { throw DataError(path.string() + ": " + what); }

// What the system refuses to say, opening the file will.
bool is_folder(const fs::path& path) {
    std::error_code ignored;
    return fs::is_directory(path, ignored);
}
bool is_there(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

bool is_bin(const DataOptions& options) {
    if (options.format != DataOptions::Format::automatic) return options.format == DataOptions::Format::bin;
    if (!is_folder(options.path)) return false;
    if (!is_there(options.path / "train.bin"))
        fail(options.path, "a directory without train.bin; expected a text file, or a directory with train.bin "
                           "and val.bin");
    return true;
}

/// The uint16 ids of a mapped token file.
TokenView ids_of(const fs::path& path, const MappedFile& file) {
    const std::size_t bytes = file.bytes().size();
    if (bytes == 0) fail(path, "empty; expected uint16 token ids");
    if (bytes % 2 != 0)
        fail(path, std::to_string(bytes) + " bytes, an odd number; expected uint16 token ids, two bytes each");
    return {file.bytes().data(), 2, static_cast<std::int64_t>(bytes / 2)};
}

std::int64_t largest_id(TokenView ids) {
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < ids.size(); ++i)
        largest = std::max(largest, ids[i]);
    return largest;
}

void check_ids(const fs::path& path, TokenView ids, std::int64_t vocab_size, const std::string& origin) {
    for (std::int64_t i = 0; i < ids.size(); ++i)
        if (ids[i] >= vocab_size)
            fail(path, "token " + std::to_string(i) + " has id " + std::to_string(ids[i]) +
                           "; expected ids from 0 to " + std::to_string(vocab_size - 1) + " (" + origin + ")");
}

} // namespace

Dataset::Dataset(const DataOptions& options) {
    if (options.task) {
        make_task(options);
        return;
    }
    if (is_bin(options))
        load_bin(options);
    else
        load_text(options);
    check_lengths(options);
    measure();
}

void Dataset::make_task(const DataOptions& options) {
    task_.emplace(TaskOptions{*options.task, options.symbols, options.context, options.val_fraction});
    validates_task_ = options.val_fraction > 0;
    vocab_size_ = task_->vocab_size();
    tokenizer_ = Tokenizer::ids(vocab_size_);
    unigram_entropy_ = task_->chance_loss();
    fingerprint_ = task_->fingerprint();
}

void Dataset::batch(std::uint64_t seed, std::int64_t step, std::int64_t batch, std::int64_t context,
                    std::int32_t* inputs, std::int32_t* targets) const {
    if (task_)
        task_->batch(seed, step, batch, inputs, targets);
    else
        Sampler(train_, seed).batch(step, batch, context, inputs, targets);
}

void Dataset::evaluation_batch(std::int64_t index, std::int64_t batches, std::int64_t batch, std::int64_t context,
                               std::int32_t* inputs, std::int32_t* targets) const {
    if (!task_)
        Sampler(validation_.size() > 0 ? validation_ : train_, 0)
            .evaluation_batch(index, batches, batch, context, inputs, targets);
    else if (validates_task_)
        task_->evaluation_batch(index, batch, inputs, targets);
    else
        task_->batch(0, index, batch, inputs, targets);
}

void Dataset::load_text(const DataOptions& options) {
    if (options.vocab_size != 0)
        fail(options.path, "vocab_size is for token files; text gets its vocabulary from the tokenizer");
    files_.emplace_back(options.path);
    const MappedFile& file = files_.back();
    if (file.bytes().empty()) fail(options.path, "empty; expected text to train on");

    if (options.vocabulary)
        tokenizer_ = *options.vocabulary;
    else if (options.tokenizer == Tokenizer::Kind::character)
        tokenizer_ = Tokenizer::characters_of(file.text(), options.path.string());
    vocab_size_ = tokenizer_.vocab_size();

    if (tokenizer_.kind() == Tokenizer::Kind::byte) {
        split({file.bytes().data(), 1, static_cast<std::int64_t>(file.bytes().size())}, options);
    } else {
        tokens_ = tokenizer_.encode_compact(file.text(), options.path.string());
        files_.clear();
        split(tokens_->view(), options);
    }
}

void Dataset::load_bin(const DataOptions& options) {
    const bool one_file = !is_folder(options.path);
    const fs::path directory = one_file ? options.path.parent_path() : options.path;
    const fs::path train_path = one_file ? options.path : directory / "train.bin";
    const fs::path validation_path = directory / "val.bin";
    const bool has_validation = !one_file && is_there(validation_path);

    files_.emplace_back(train_path);
    train_ = ids_of(train_path, files_[0]);
    if (has_validation) {
        files_.emplace_back(validation_path);
        validation_ = ids_of(validation_path, files_[1]);
    }

    const fs::path meta_path = directory / "meta.json";
    const BinMeta meta = options.vocabulary ? BinMeta{} : read_bin_meta(meta_path);
    std::string origin = "the vocabulary of the model";
    if (options.vocabulary) {
        vocab_size_ = options.vocabulary->vocab_size();
    } else if (options.vocab_size > 0) {
        vocab_size_ = options.vocab_size;
        origin = "vocab_size " + std::to_string(vocab_size_);
    } else if (meta.vocab_size > 0) {
        vocab_size_ = meta.vocab_size;
        origin = meta_path.string();
    } else {
        vocab_size_ = 1 + std::max(largest_id(train_), largest_id(validation_));
    }
    check_ids(train_path, train_, vocab_size_, origin);
    check_ids(validation_path, validation_, vocab_size_, origin);

    const auto known = static_cast<std::int64_t>(meta.itos.size());
    if (known > vocab_size_)
        fail(meta_path, "itos has " + std::to_string(known) + " entries; expected at most " + origin);
    try {
        tokenizer_ = options.vocabulary ? *options.vocabulary
                     : known > 0        ? Tokenizer::characters(meta.itos)
                                        : Tokenizer::ids(vocab_size_);
    } catch (const DataError& error) {
        fail(meta_path, std::string("itos: ") + error.what());
    }
    if (!has_validation) split(train_, options);
}

void Dataset::split(TokenView all, const DataOptions& options) {
    // The rule of nanoGPT's prepare.py, so that its published losses can be compared with.
    const auto train_size = static_cast<std::int64_t>(static_cast<double>(all.size()) * (1.0 - options.val_fraction));
    train_ = all.part(0, train_size);
    validation_ = all.part(train_size, all.size() - train_size);
}

void Dataset::check_lengths(const DataOptions& options) const {
    const auto check = [&](TokenView tokens, const std::string& name) {
        if (tokens.size() <= options.context)
            fail(options.path, "the " + name + " split has " + std::to_string(tokens.size()) + " of " +
                                   std::to_string(train_.size() + validation_.size()) + " tokens; a context of " +
                                   std::to_string(options.context) + " needs at least " +
                                   std::to_string(options.context + 1));
    };
    check(train_, "training");
    if (options.val_fraction > 0 || validation_.size() > 0) check(validation_, "validation");
}

void Dataset::measure() {
    // As many as there are ids in use: a file may claim a vocabulary of any size.
    std::vector<std::int64_t> counts(static_cast<std::size_t>(1 + largest_id(train_)));
    for (std::int64_t i = 0; i < train_.size(); ++i)
        ++counts[static_cast<std::size_t>(train_[i])];
    const auto total = static_cast<double>(train_.size());
    for (const std::int64_t count : counts) {
        if (count == 0) continue;
        const double share = static_cast<double>(count) / total;
        unigram_entropy_ -= share * std::log(share);
    }

    Checksum sum;
    const auto add_number = [&](std::int64_t number) { sum.add(std::as_bytes(std::span(&number, 1))); };
    add_number(vocab_size_);
    add_number(train_.size());
    sum.add(train_.bytes());
    sum.add(validation_.bytes());
    fingerprint_ = sum.value();
}

} // namespace ballast
