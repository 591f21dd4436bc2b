#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/train/learner.h"

// The models that `ballast bench` times.

struct BenchConfig {
    std::string_view name; ///< "p1"
    std::string_view json;
};

/// The files of configs/bench, which are built in.
extern const std::array<BenchConfig, 3> kBenchConfigs;

/// A directory that lives as long as this object.
class TemporaryFolder {
public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
};

/// The model of a config on random tokens, at its first step.
class BenchModel {
public:
    /// `word` is the name of a config that is built in, or a config file. `vocabulary` 0 stands for that of its data.
    /// Throws what load_config throws, and Error when the model does not fit into memory.
    BenchModel(const std::string& word, std::vector<std::string> overrides, std::int64_t vocabulary = 0);

    ballast::Learner& learner() { return *learner_; }
    const ballast::Config& config() const { return learner_->config(); }
    std::int64_t vocabulary() const { return data_->vocab_size(); }
    /// Steps made so far.
    std::int64_t step = 0;

    /// Makes the steps after which times and memory are steady.
    void warm_up();

    /// Seconds from the start of a process that trains this config to the record of its first step: the median of
    /// several. Throws IoError when that process ends without one.
    double start_seconds() const;

private:
    void write_tokens(std::int64_t vocabulary, std::int64_t context) const;

    TemporaryFolder folder_;
    std::unique_ptr<ballast::Dataset> data_;
    std::unique_ptr<ballast::Learner> learner_;
};
