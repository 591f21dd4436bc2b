#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
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

/// `word` is the name of a config that is built in, or a config file. Throws what load_config_to_use throws.
ballast::Config load_bench_config(const std::string& word, std::span<const std::string> overrides);

/// The model of a config on random tokens, at its first step.
class BenchModel {
public:
    /// `vocabulary` 0 stands for that of the config's data. Throws UsageError for one that is too large, and Error when
    /// the model does not fit into memory.
    BenchModel(ballast::Config config, std::int64_t vocabulary);

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
