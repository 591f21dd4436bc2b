#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "ballast/config/config.h"
#include "ballast/lab/explain.h"
#include "ballast/lab/run_result.h"
#include "ballast/lab/statistics.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/step_record.h"

// Runs side by side. Those whose configs differ in the seed alone (and in their name) form an arm; the runs of two arms
// with the same seed form a pair, which shares the batches and the start of every tensor that both models have.

namespace ballast {

/// What a comparison needs of a run.
struct ComparedRun {
    std::filesystem::path path;
    Config config;
    RunResult result;
    std::vector<StepRecord> steps;
    Environment environment;
    std::string tokenizer;              ///< "char", "byte" or "ids"
    std::int64_t vocab_size = 0;        ///< of the model
    std::uint64_t data_fingerprint = 0; ///< Dataset::fingerprint()
    std::int64_t skipped_batches = 0;   ///< that a rewind has left out
    /// Of a run that started from the weights of another: its parameters at the start, by "name [shape]", with a
    /// checksum of their values. Those of other runs follow from config and seed.
    std::map<std::string, std::uint64_t> grafted;
};

/// Reads a run that has ended. Throws UsageError for what is no run or has not ended, IoError and CheckpointError for
/// what is damaged, DataError where the data of a run without a checkpoint cannot be used any more.
ComparedRun read_compared_run(const std::filesystem::path& run);

/// A run that is not part of a comparison.
struct LeftOut {
    std::filesystem::path path;
    std::string reason;
};

/// Runs that differ in the seed alone, by seed. Samples are over those that have the value.
struct ComparedArm {
    std::string letter; ///< "a", "b", ..., "z", "aa"
    std::vector<ComparedRun> runs;
    std::map<std::string, std::int64_t> verdicts; ///< how many runs have each
    Sample final_loss, best_loss;                 ///< as in RunResult
    Sample loss_spike_score, gradient_spike_score;
    Sample steps_to_loss; ///< to RunComparison::target_loss: the first evaluation that is at or below it
    Sample tokens_per_second;
    NormCost norm_cost;
};

/// Values of one arm minus those of the baseline, run by run of the same seed.
struct PairedDifference {
    Sample sample;
    std::optional<Interval> interval; ///< of the mean, 95 %, by Student's t; from two pairs on
    /// "lower" or "higher" where the interval does not hold 0, "open" where it does, "" without an interval.
    std::string verdict;
};

/// An arm against the baseline.
struct ArmPair {
    std::size_t arm = 0;
    std::string refused; ///< why there are no paired figures; empty: there are
    /// What makes the pairs differ beyond the model: other batches, other validation windows. Empty: nothing.
    std::vector<std::string> caveats;
    std::vector<std::uint64_t> seeds;          ///< of the pairs
    std::int64_t shared_tensors = 0;           ///< parameters that both have, by name and shape
    std::vector<std::string> other_start;      ///< of them, those that do not start with the same values
    std::vector<std::string> only_in_baseline; ///< parameters, by name and shape
    std::vector<std::string> only_in_arm;
    PairedDifference final_loss, best_loss;
};

/// A key in which arms differ; values as JSON, one for each arm.
struct ComparedKey {
    std::string path;
    std::vector<std::string> values;
};

struct RunComparison {
    std::vector<ComparedArm> arms;
    std::size_t baseline = 0;
    std::vector<ComparedKey> keys;
    std::vector<ArmPair> pairs; ///< for every other arm
    std::vector<LeftOut> left_out;
    bool by_validation = false;        ///< what the losses are
    std::optional<double> target_loss; ///< of steps_to_loss
    /// Facts of machine and program that are not the same for all runs; speed does not compare then.
    std::vector<std::string> environment;
};

struct CompareOptions {
    std::string baseline = "a"; ///< letter of an arm
    /// Unset: the highest final loss of a run, which every run that has one reaches.
    std::optional<double> target_loss;
};

/// Compares runs in the order in which arms are lettered. Those that have the config and seed of an earlier one are
/// left out. Throws UsageError for fewer than two runs and for a baseline that is none.
RunComparison compare_runs(std::vector<ComparedRun> runs, const CompareOptions& options = {});

/// The first step at which a run's loss is at most `target`: by its evaluations, or without them by the mean of the
/// last 5 % of all steps up to it.
std::optional<std::int64_t> steps_to_loss(const ComparedRun& run, double target);

} // namespace ballast
