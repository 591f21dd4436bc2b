#include "ballast/lab/diagnose.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <optional>
#include <string_view>
#include <system_error>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/config/norm_layout.h"
#include "ballast/config/placement.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/flight_recorder.h"
#include "ballast/train/metrics.h"
#include "ballast/train/onset.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/stability.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

// ---- Views of a record ----------------------------------------------------------------------------------------------

const Event* first_event(const RunRecord& run, std::string_view kind) {
    for (const Event& event : run.events)
        if (event.kind == kind) return &event;
    return nullptr;
}

/// The event that a diagnosis is about: the first but for spikes of the gradient norm.
const Event* first_trouble(const RunRecord& run) {
    for (const Event& event : run.events)
        for (const std::string_view kind : {"non_finite", "divergence", "stall", "loss_spike", "rewind"})
            if (event.kind == kind) return &event;
    return nullptr;
}

std::string at_step(std::int64_t step, const std::string& text) { return "step " + std::to_string(step) + ": " + text; }

std::string place_of(const LayerRecord& record) {
    return (record.layer ? "layer " + std::to_string(*record.layer) + ", " : "") + record.site;
}

double median(std::vector<double> values) {
    return values.empty() ? std::nan("") : centre_of(std::move(values)).median;
}

/// Median of a member over the steps from `begin` to `end`; NaN when there are none.
double median_between(const RunRecord& run, double StepRecord::*member, std::int64_t begin, std::int64_t end) {
    std::vector<double> values;
    for (const StepRecord& record : run.steps)
        if (record.step >= begin && record.step <= end && std::isfinite(record.*member))
            values.push_back(record.*member);
    return median(std::move(values));
}

/// The largest value that `value(record)` has in the first probe, and where and when it is largest later on.
struct Growth {
    double first = 0;
    double largest = 0;
    const LayerRecord* where = nullptr;
};

template <class Value>
Growth growth_of(const RunRecord& run, Value&& value) {
    Growth growth;
    for (const LayerRecord& record : run.layers) {
        const std::optional<double> now = value(record);
        if (!now || !std::isfinite(*now)) continue;
        if (record.step == run.layers.front().step) growth.first = std::max(growth.first, *now);
        if (growth.where != nullptr && *now <= growth.largest) continue;
        growth.largest = *now;
        growth.where = &record;
    }
    return growth;
}

std::optional<double> largest_of(const std::vector<double>& values) {
    if (values.empty()) return {};
    return *std::max_element(values.begin(), values.end());
}

std::string from_to(double from, double to) { return short_number(from) + " at the start, " + short_number(to); }

// ---- Signatures -----------------------------------------------------------------------------------------------------
// Each adds its evidence and returns its confidence, 0 where the record does not speak for it.

using Evidence = std::vector<std::string>;

/// Damaged data: the batch of the first spike is a repeated pattern. In text, fewer than 40 % of the tokens equal the
/// one of any one period before.
double bad_data(const RunRecord& run, Evidence& evidence) {
    constexpr double kRepeated = 0.8;
    std::vector<double> others;
    std::int64_t first = 0, count = 0;
    double most = 0;
    for (const auto& [step, repetition] : run.repetition) {
        if (repetition < kRepeated) {
            others.push_back(repetition);
            continue;
        }
        if (count++ == 0) first = step;
        most = std::max(most, repetition);
    }
    if (count == 0) return 0;
    evidence.push_back("from step " + std::to_string(first) + " on, in " + std::to_string(count) + " of the " +
                       std::to_string(run.repetition.size()) + " batches around the events, " +
                       short_number(100 * most) + " % of the tokens repeat a short pattern; " +
                       short_number(100 * median(others)) + " % in the others");
    return 0.95;
}

/// A learning rate that is another after a resume: update over weight jumps with it.
double learning_rate_on_resume(const RunRecord& run, Evidence& evidence) {
    constexpr double kJump = 2;
    constexpr std::int64_t kSteps = 10;
    for (const Event& event : run.events) {
        if (event.kind != "resume" || event.step == 0) continue;
        const auto jump_of = [&](double StepRecord::*member) {
            return median_between(run, member, event.step + 1, event.step + kSteps) /
                   median_between(run, member, event.step - kSteps + 1, event.step);
        };
        const double lr = jump_of(&StepRecord::lr), update = jump_of(&StepRecord::update_ratio);
        if (!(lr >= kJump || lr <= 1 / kJump)) continue;
        evidence.push_back(at_step(event.step, event.message));
        evidence.push_back("over " + std::to_string(kSteps) +
                           " steps before and after, the learning rate changed by a factor of " + short_number(lr) +
                           ", update over weight by " + short_number(update));
        return lr > 1 ? 0.9 : 0.5;
    }
    return 0;
}

/// A norm that was changed on the way: another function of the same weights.
double norm_changed(const RunRecord& run, Evidence& evidence) {
    for (const Event& event : run.events)
        if (event.kind == "resume" && event.message.find("model.norm.") != std::string::npos) {
            evidence.push_back(at_step(event.step, event.message));
            return 0.8;
        }
    return 0;
}

/// Whether a key of `model` decides what the norms compute, and where.
bool is_about_norms(std::string_view key) {
    if (key.starts_with("model.norm.")) return true;
    for (const std::string_view other : {"model.final_norm", "model.qk_norm", "model.v_norm", "model.embedding.norm",
                                         "model.ffn.inner_norm", "model.residual"})
        if (key == other) return true;
    return false;
}

/// Weights that were trained with other norms, or with norms in other places: another function from the first step on.
double norms_at_graft(const RunRecord& run, Evidence& evidence) {
    constexpr double kLostNats = 0.1; // on the same batches, before the first step
    if (!run.graft || run.graft->drift.is_zero()) return 0;
    for (const KeyDifference& change : run.graft->changes)
        if (is_about_norms(change.path))
            evidence.push_back(change.path + " was " + change.a + " in " + run.graft->source + " and is " + change.b);
    if (evidence.empty()) return 0;
    const GraftDrift& drift = run.graft->drift;
    evidence.push_back("before the first step, on the same batches: loss " + short_number(drift.loss_before) +
                       " with the old norms, " + short_number(drift.loss_after) + " with these; logits moved by " +
                       short_number(drift.mean_logit) + " on average");
    const auto furthest =
        std::max_element(drift.blocks.begin(), drift.blocks.end(),
                         [](const BlockDrift& a, const BlockDrift& b) { return a.cosine > b.cosine; });
    if (furthest != drift.blocks.end())
        evidence.push_back("the stream behind block " + std::to_string(furthest - drift.blocks.begin()) +
                           " has turned furthest: cosine " + short_number(furthest->cosine) + ", RMS " +
                           short_number(furthest->rms_before) + " before, " + short_number(furthest->rms_after) +
                           " after");
    return drift.loss_after - drift.loss_before > kLostNats ? 0.92 : 0.5;
}

/// Attention logits of 20 and more, grown from a fraction of that (Wortsman et al., section 3.1): softmax saturates.
double attention_logits(const RunRecord& run, Evidence& evidence) {
    constexpr double kLarge = 20, kGrowth = 4;
    const Growth growth =
        growth_of(run, [](const LayerRecord& record) { return largest_of(record.max_attention_logit); });
    if (growth.where == nullptr || growth.largest < kLarge || growth.largest < kGrowth * growth.first) return 0;
    evidence.push_back(at_step(growth.where->step, place_of(*growth.where) + ": attention logits up to " +
                                                       short_number(growth.largest) + "; " +
                                                       short_number(growth.first) + " at the start"));
    double entropy = HUGE_VAL, start = HUGE_VAL;
    for (const LayerRecord& record : run.layers)
        for (const double head : record.attention_entropy) {
            if (record.step == run.layers.front().step) start = std::min(start, head);
            entropy = std::min(entropy, head);
        }
    if (entropy < start / 2)
        evidence.push_back("the entropy of a head's attention fell to " + short_number(entropy) + " nats from " +
                           short_number(start));
    return growth.largest > 5 * kLarge ? 0.78 : 0.6;
}

/// Output logits that drift, since softmax does not see a common shift (Chowdhery et al., Wortsman et al.).
double output_drift(const RunRecord& run, Evidence& evidence) {
    constexpr double kDrift = 10;
    if (run.steps.empty()) return 0;
    const StepRecord& first = run.steps.front();
    const StepRecord* furthest = &first;
    for (const StepRecord& record : run.steps)
        if (std::abs(record.mean_log_z - first.mean_log_z) > std::abs(furthest->mean_log_z - first.mean_log_z))
            furthest = &record;
    if (!(std::abs(furthest->mean_log_z - first.mean_log_z) >= kDrift)) return 0;
    evidence.push_back("mean log Z: " + from_to(first.mean_log_z, furthest->mean_log_z) + " at step " +
                       std::to_string(furthest->step));
    return 0.4;
}

/// The residual stream grows and nothing brings it back before the output layer.
double missing_final_norm(const RunRecord& run, Evidence& evidence) {
    constexpr double kGrowth = 4;
    const ModelConfig& model = run.config.model;
    if (model.final_norm == Switch::on || !wants_final_norm(model)) return 0;
    evidence.push_back("placement " + std::string(to_string(model.norm.placement)) +
                       " leaves the stream without a norm, and model.final_norm is off");
    const Growth growth = growth_of(run, [](const LayerRecord& record) { return record.stream_rms; });
    if (growth.where == nullptr || growth.largest < kGrowth * growth.first) return 0.8; // or nothing was probed
    evidence.push_back(at_step(growth.where->step, place_of(*growth.where) + ": RMS of the stream " +
                                                       from_to(growth.first, growth.largest)));
    return 0.87;
}

/// No norm anywhere: nothing bounds the scale of the stream, which is a product over the layers.
double no_norm(const RunRecord& run, Evidence& evidence) {
    constexpr double kGrowth = 4;
    const ModelConfig& model = run.config.model;
    const std::vector<BlockNorms> blocks = norm_layout(model).blocks;
    const auto has_norm = [](const SublayerNorms& norms) { return norms.pre || norms.out || norms.post; };
    if (std::any_of(blocks.begin(), blocks.end(),
                    [&](const BlockNorms& block) { return has_norm(block.attention) || has_norm(block.ffn); }))
        return 0;
    evidence.emplace_back("no block has a norm");
    const Growth growth = growth_of(run, [](const LayerRecord& record) { return record.stream_rms; });
    if (growth.where != nullptr)
        evidence.push_back(at_step(growth.where->step, place_of(*growth.where) + ": RMS of the stream " +
                                                           from_to(growth.first, growth.largest)));
    const bool grown = growth.largest > kGrowth * growth.first || first_event(run, "non_finite") != nullptr;
    return grown ? 0.9 : 0.7;
}

/// Post-LN without warm-up: its gradient is large in the last layers at the start (Xiong et al., 2002.04745).
double post_without_warmup(const RunRecord& run, Evidence& evidence) {
    constexpr double kShortWarmup = 0.02;
    const ModelConfig& model = run.config.model;
    std::int64_t post = 0;
    for (const BlockNorms& block : norm_layout(model).blocks)
        for (const SublayerNorms* norms : {&block.attention, &block.ffn})
            post += norms->post && !norms->pre ? 1 : 0;
    if (post < model.layers) return 0; // fewer than half of the sublayers
    const auto steps = static_cast<double>(run.config.train.steps);
    if (static_cast<double>(run.config.schedule.warmup) > kShortWarmup * steps) return 0;
    evidence.push_back(std::to_string(post) + " of " + std::to_string(2 * model.layers) +
                       " sublayers end in a norm of the stream, with a warm-up of " +
                       std::to_string(run.config.schedule.warmup) + " steps of " +
                       std::to_string(run.config.train.steps));
    std::optional<double> first_layer, last_layer;
    for (const LayerRecord& record : run.layers) {
        if (record.step != run.layers.front().step || record.site != "ffn.output.weight") continue;
        if (record.layer == 0) first_layer = record.gradient_norm;
        if (record.layer == model.layers - 1) last_layer = record.gradient_norm;
    }
    if (first_layer && last_layer)
        evidence.push_back("gradient norm of ffn.output.weight at the start: " + short_number(*last_layer) +
                           " in the last layer, " + short_number(*first_layer) + " in the first");
    return 0.8;
}

/// Steps that change the parameters by a large part of themselves.
double learning_rate_too_high(const RunRecord& run, Evidence& evidence) {
    constexpr double kLarge = 0.05; // 1e-3 is usual
    const Event* const trouble = first_trouble(run);
    const StepRecord* largest = nullptr;
    for (const StepRecord& record : run.steps) {
        if (trouble != nullptr && record.step > trouble->step) break;
        if (std::isfinite(record.update_ratio) && (largest == nullptr || record.update_ratio > largest->update_ratio))
            largest = &record;
    }
    if (largest == nullptr || largest->update_ratio < kLarge) return 0;
    evidence.push_back(at_step(largest->step, "one update was " + short_number(100 * largest->update_ratio) +
                                                  " % of the parameters, at a learning rate of " +
                                                  number_text(largest->lr)));
    return largest->update_ratio > 0.5 ? 0.88 : 0.5;
}

/// A gradient that grows by itself, step by step, before a spike, where Adam's mean square is too slow to follow it
/// (Bai et al., section 4). Damaged data or a change of settings are there from one step to the next.
double large_beta2(const RunRecord& run, Evidence& evidence) {
    constexpr double kLarge = 0.99, kGrowth = 3;
    constexpr std::int64_t kSteps = 4;
    const OptimizerConfig& optimizer = run.config.optimizer;
    if (optimizer.kind != OptimizerKind::adamw || optimizer.betas[1] < kLarge) return 0;
    std::int64_t spikes = 0;
    for (const Event& event : run.events) {
        if (event.kind != "loss_spike") continue;
        const auto at = std::find_if(run.steps.begin(), run.steps.end(),
                                     [&](const StepRecord& record) { return record.step == event.step; });
        if (at == run.steps.end()) continue;
        auto first = at;
        while (first != run.steps.begin() && std::prev(first)->gradient_norm < first->gradient_norm)
            --first;
        if (at - first < kSteps || at->gradient_norm < kGrowth * first->gradient_norm) continue;
        if (++spikes == 1)
            evidence.push_back(at_step(at->step, "the gradient norm had grown for " + std::to_string(at - first) +
                                                     " steps in a row, from " + short_number(first->gradient_norm) +
                                                     " to " + short_number(at->gradient_norm)));
    }
    if (spikes == 0) return 0;
    evidence.push_back(std::to_string(spikes) + " spikes of this shape; with a beta2 of " +
                       number_text(optimizer.betas[1]) + " the mean square looks back over " +
                       short_number(1 / (1 - optimizer.betas[1])) + " steps");
    return 0.75;
}

/// Gradients so small that epsilon decides the size of the steps.
double gradients_at_eps(const RunRecord& run, Evidence& evidence) {
    constexpr double kNear = 10;
    std::int64_t near = 0, all = 0;
    for (const LayerRecord& record : run.layers) {
        if (!record.gradient_to_eps || record.step != run.layers.back().step) continue;
        ++all;
        if (*record.gradient_to_eps < kNear) ++near;
    }
    if (2 * near <= all) return 0;
    evidence.push_back("step " + std::to_string(run.layers.back().step) + ": the RMS of the gradient of " +
                       std::to_string(near) + " of " + std::to_string(all) +
                       " parameters is below 10 times optimizer.eps");
    return 0.7;
}

/// Gains of norms that have left the size they began with, 1.
double norm_gains(const RunRecord& run, Evidence& evidence) {
    constexpr double kDrifted = 4, kDead = 0.1;
    for (const LayerRecord& record : run.layers) {
        if (!record.gain_mean) continue;
        const double gain = std::abs(*record.gain_mean);
        if (gain >= kDead && gain <= kDrifted) continue;
        evidence.push_back(at_step(record.step, place_of(record) + ": mean gain " + short_number(*record.gain_mean)));
        return 0.4;
    }
    return 0;
}

/// An op whose result is beyond what a float can hold.
double overflow(const RunRecord& run, Evidence& evidence) {
    if (first_event(run, "non_finite") == nullptr || run.onset_op.empty()) return 0;
    evidence.push_back("the first that is not finite is made by " + run.onset_op);
    return 0.3;
}

struct Signature {
    std::string_view cause;
    std::string_view meaning;
    std::string_view advice;
    std::string_view source;
    double (*confidence)(const RunRecord&, Evidence&);
};

constexpr auto kSignatures = std::to_array<Signature>({
    {"bad_data", "Batches of damaged data.",
     "find the windows of these batches in the data and mend it; or train with stability.on_spike=rewind, which leaves "
     "them out",
     "Chowdhery et al., 2204.02311, section 5.1", bad_data},
    {"lr_on_resume", "The run went on with another learning rate.",
     "resume from the checkpoint of that step with the learning rate it had, or warm up again", "",
     learning_rate_on_resume},
    {"norm_changed", "The run went on with other norms than its weights were trained with.",
     "go back to the norm of the checkpoint, or lower the learning rate while the weights adapt", "", norm_changed},
    {"norms_at_graft", "The run started from weights that were trained with other norms.",
     "set init_from.calibrate=true and init_from.new_norm_warmup, lower optimizer.lr, or keep the norms of the source",
     "", norms_at_graft},
    {"no_final_norm", "Nothing normalizes the residual stream before the output layer.", "set model.final_norm=on",
     "Xiong et al., 2002.04745, section 3.1", missing_final_norm},
    {"post_ln_no_warmup", "Post-LN was trained without a warm-up.",
     "set schedule.warmup to 10 % of the run, or model.norm.placement=pre", "Xiong et al., 2002.04745",
     post_without_warmup},
    {"no_norm", "Nothing normalizes the residual stream.", "set model.norm.placement=pre", "Zhang et al., 1901.09321",
     no_norm},
    {"attention_logit_growth", "Attention logits have grown until softmax saturates.",
     "lower optimizer.lr, or normalize queries and keys", "Wortsman et al., 2309.14322, section 3.1", attention_logits},
    {"lr_too_high", "Updates are large against the weights.", "lower optimizer.lr, or lengthen schedule.warmup",
     "Wortsman et al., 2309.14322, section 3.3", learning_rate_too_high},
    {"large_beta2", "Adam's mean square follows the gradient too slowly.", "lower optimizer.betas[1], or optimizer.lr",
     "Bai et al., 2506.04805", large_beta2},
    {"output_logit_drift", "Output logits drift together.", "set loss.z_loss=1e-4",
     "Chowdhery et al., 2204.02311, section 5", output_drift},
    {"gradients_at_eps", "Gradients are as small as Adam's epsilon.", "lower optimizer.eps",
     "Wortsman et al., 2309.14322, section 3.4", gradients_at_eps},
    {"norm_gain", "A norm's gain has drifted or died.", "look at gain_mean in layers.jsonl", "", norm_gains},
    {"overflow", "An op has left the range of a float.", "see its inputs: ballast replay RUN --step N", "", overflow},
});

/// Reads `file` where it is, and what cannot be there yet as empty.
template <class Read>
auto read_if_there(const fs::path& file, Read&& read) -> decltype(read(file)) {
    std::error_code ignored;
    if (!fs::exists(file, ignored)) return {};
    return read(file);
}

/// The number behind a key of one of batches.jsonl's lines, which this program writes itself.
std::optional<double> number_of(std::string_view line, std::string_view key) {
    const std::string name = "\"" + std::string(key) + "\":";
    const std::size_t at = line.find(name);
    if (at == std::string_view::npos) return {};
    try {
        return std::stod(std::string(line.substr(at + name.size())));
    } catch (const std::exception&) {
        return {};
    }
}

void read_batches(const fs::path& file, std::map<std::int64_t, double>& repetition) {
    const std::string text = read_file(file);
    std::size_t begin = 0;
    for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', begin)) {
        const std::string_view line = std::string_view(text).substr(begin, end - begin);
        const auto step = number_of(line, "step"), repeated = number_of(line, "repetition");
        if (step && repeated) repetition[static_cast<std::int64_t>(*step)] = *repeated;
        begin = end + 1;
    }
}

const StepRecord* record_of(const RunRecord& run, std::int64_t step) {
    const auto at =
        std::lower_bound(run.steps.begin(), run.steps.end(), step,
                         [](const StepRecord& record, std::int64_t wanted) { return record.step < wanted; });
    return at != run.steps.end() && at->step == step ? &*at : nullptr;
}

/// Whether the gradient's norm in layers.jsonl, over all parameters, is that of metrics.jsonl, at every step that has
/// both; they are summed in another order.
bool layers_fit(const RunRecord& run) {
    constexpr double kRounding = 1e-4;
    std::map<std::int64_t, double> squares;
    for (const LayerRecord& record : run.layers)
        if (record.gradient_norm) squares[record.step] += *record.gradient_norm * *record.gradient_norm;
    return std::all_of(squares.begin(), squares.end(), [&](const auto& entry) {
        const StepRecord* const record = record_of(run, entry.first);
        if (record == nullptr || !std::isfinite(record->gradient_norm) || !std::isfinite(entry.second)) return true;
        const double norm = std::sqrt(entry.second);
        return std::abs(norm - record->gradient_norm) <= kRounding * std::max(norm, record->gradient_norm);
    });
}

/// What shows that the files of a run directory are not whole, or not of one run.
std::vector<std::string> doubts_about(const RunRecord& run, const RunDirectory& directory,
                                      std::optional<RunSummary> summary) {
    std::vector<std::string> doubts;
    if (directory.is_in_use()) return doubts; // and so between two states
    const auto doubt = [&](const fs::path& file, const std::string& what) {
        doubts.push_back(file.string() + ": " + what);
    };
    std::int64_t last_resume = -1, resumes = 0;
    for (const Event& event : run.events) {
        if (event.kind != "resume") continue;
        last_resume = event.step;
        ++resumes;
    }
    if (summary && summary->resumed < resumes) summary.reset(); // that of before the last resume

    std::error_code ignored;
    for (const fs::path& file : {directory.metrics_path(), directory.events_path()})
        if (summary && !fs::exists(file, ignored)) doubt(file, "missing");
    if (summary && !run.steps.empty()) {
        const std::int64_t last = run.steps.back().step;
        if (last < summary->step)
            doubt(directory.metrics_path(), "ends with step " + std::to_string(last) + ", the summary with step " +
                                                std::to_string(summary->step) + ": cut short, or of another run");
        const StepRecord* const best = record_of(run, summary->best_loss_step);
        if (best != nullptr && best->loss != summary->best_loss)
            doubt(directory.summary_path(),
                  "has another loss at step " + std::to_string(best->step) + " than metrics.jsonl: of another run");
    }
    if (!run.steps.empty() && !run.events.empty() && run.events.back().step > run.steps.back().step)
        doubt(directory.events_path(), "ends with step " + std::to_string(run.events.back().step) +
                                           ", metrics.jsonl with step " + std::to_string(run.steps.back().step) +
                                           ": one is cut short, or of another run");
    for (const Event& event : run.events) {
        const StepRecord* const record = record_of(run, event.step);
        if (event.kind != "loss_spike" || record == nullptr || record->loss == event.value) continue;
        doubt(directory.events_path(),
              "has another loss at step " + std::to_string(event.step) + " than metrics.jsonl: of another run");
        break;
    }
    if (!layers_fit(run)) doubt(directory.layers_path(), "has other gradients than metrics.jsonl: of another run");

    // A checkpoint from behind the last resume has the config that the run has now.
    const std::vector<std::int64_t> checkpoints = list_checkpoints(directory.path());
    if (!checkpoints.empty() && checkpoints.back() > last_resume) {
        const fs::path checkpoint = checkpoint_path(directory.path(), checkpoints.back());
        try {
            if (read_checkpoint_info(checkpoint).config_json != directory.config_json())
                doubt(directory.config_path(), "not that of " + checkpoint.string() + ": of another run");
        } catch (const CheckpointError& error) {
            doubts.insert(doubts.end(), error.problems().begin(), error.problems().end());
        }
    }
    return doubts;
}

} // namespace

RunRecord read_run(const fs::path& path) {
    const RunDirectory directory = RunDirectory::open(path);
    RunRecord run;
    run.config = config_from_json(directory.config_json(), directory.config_path());
    run.steps = read_if_there(directory.metrics_path(), read_metrics);
    run.layers = read_if_there(directory.layers_path(), read_layers);
    run.events = read_if_there(directory.events_path(), read_events);
    run.graft = read_graft_record(path);
    std::error_code problem;
    std::optional<RunSummary> ended;
    if (fs::exists(directory.summary_path(), problem)) {
        const RunSummary& summary = ended.emplace(directory.summary());
        run.verdict = summary.verdict;
        run.onset = summary.onset;
        if (summary.verdict == "non_finite" && summary.onset_step)
            run.onset_op = (summary.onset_layer ? "layer " + std::to_string(*summary.onset_layer) + ", " : "") +
                           summary.onset_site + ": " + summary.onset_statistic;
    }
    for (fs::directory_iterator entry(path / "recorder", problem), end; !problem && entry != end;
         entry.increment(problem)) {
        const fs::path batches = entry->path() / "batches.jsonl";
        std::error_code ignored;
        if (fs::exists(batches, ignored)) read_batches(batches, run.repetition);
    }
    run.doubts = doubts_about(run, directory, ended);
    return run;
}

std::vector<Diagnosis> diagnose(const RunRecord& run) {
    std::vector<Diagnosis> found;
    if (first_trouble(run) == nullptr) return found;
    for (const Signature& signature : kSignatures) {
        Diagnosis diagnosis;
        diagnosis.confidence = signature.confidence(run, diagnosis.evidence);
        if (diagnosis.confidence == 0) continue;
        for (std::string& line : diagnosis.evidence) // quotes what stands in files
            line = printable(line);
        diagnosis.cause = signature.cause;
        diagnosis.meaning = signature.meaning;
        diagnosis.advice = signature.advice;
        diagnosis.source = signature.source;
        found.push_back(std::move(diagnosis));
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Diagnosis& a, const Diagnosis& b) { return a.confidence > b.confidence; });
    return found;
}

std::vector<std::string> known_causes() {
    std::vector<std::string> causes;
    for (const Signature& signature : kSignatures)
        causes.emplace_back(signature.cause);
    return causes;
}

} // namespace ballast
