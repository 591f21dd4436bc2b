#include "ballast/lab/verify.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <span>

#include "ballast/base/error.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "ballast/train/checkpoint.h"
#include "ballast/train/event.h"
#include "ballast/train/graft_record.h"
#include "ballast/train/judged_step.h"
#include "ballast/train/learner.h"
#include "ballast/train/metrics.h"
#include "ballast/train/run_directory.h"
#include "ballast/train/safetensors.h"

namespace ballast {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kShownDifferences = 10; ///< of records, and of checkpoints

/// A number of a record that a step's arithmetic decides; val_loss, which an evaluation decides, comes in addition.
struct ProvenField {
    std::string_view name;
    double StepRecord::*member;
};

constexpr auto kProvenFields = std::to_array<ProvenField>({
    {"loss", &StepRecord::loss},
    {"z_loss", &StepRecord::z_loss},
    {"mean_log_z", &StepRecord::mean_log_z},
    {"max_log_z", &StepRecord::max_log_z},
    {"max_logit", &StepRecord::max_logit},
    {"lr", &StepRecord::lr},
    {"gradient_norm", &StepRecord::gradient_norm},
    {"clip", &StepRecord::clip},
    {"parameter_norm", &StepRecord::parameter_norm},
    {"update_norm", &StepRecord::update_norm},
    {"update_ratio", &StepRecord::update_ratio},
});

/// Bits, but for NaNs: records do not keep what kind of NaN one is.
bool same_bits(double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) || (std::isnan(a) && std::isnan(b));
}

/// What is found on the way, counted and, the first of it, put into words.
class Comparison {
public:
    explicit Comparison(Verification& result) : result_(result) {}

    void compare(const StepRecord& recorded, const StepRecord& now) {
        bool same = true;
        const auto compare_values = [&](std::string_view name, double before, double value) {
            ++result_.values;
            if (same_bits(before, value)) return;
            same = false;
            note(in_records_, "step " + std::to_string(now.step) + ": " + std::string(name) + " is " +
                                  number_text(value) + ", recorded " + number_text(before));
        };
        for (const ProvenField& field : kProvenFields)
            compare_values(field.name, recorded.*field.member, now.*field.member);
        if (recorded.val_loss && now.val_loss) compare_values("val_loss", *recorded.val_loss, *now.val_loss);
        ++result_.records;
        if (!same) ++result_.differing_records;
    }

    void compare(const fs::path& checkpoint, const Learner& learner) {
        verify_checkpoint(checkpoint);
        const SafetensorsFile params(checkpoint / "params.safetensors");
        const SafetensorsFile optim(checkpoint / "optim.safetensors");
        const std::size_t before = in_checkpoints_;
        for (const Param& param : learner.table().params()) {
            compare(params, param.name, param, learner.table().values());
            for (const Moment& moment : learner.optimizer().moments())
                compare(optim, param.name + "." + std::string(moment.name), param, moment.values);
        }
        for (const Param& buffer : learner.table().buffers())
            compare(params, buffer.name, buffer, learner.table().values());
        if (in_checkpoints_ != before) ++result_.differing_checkpoints;
    }

private:
    void compare(const SafetensorsFile& file, const std::string& name, const Param& param, const float* values) {
        const auto count = static_cast<std::size_t>(param.shape.elements());
        const TensorEntry* const tensor = file.find(name);
        if (tensor == nullptr || tensor->bytes.size() != count * sizeof(float)) {
            note(in_checkpoints_, "the checkpoint has no " + name + " of this shape");
            return;
        }
        std::size_t differing = 0;
        double largest = 0;
        for (std::size_t i = 0; i < count; ++i) {
            float saved = 0;
            const float value = values[param.offset + static_cast<std::int64_t>(i)];
            std::memcpy(&saved, tensor->bytes.data() + i * sizeof(float), sizeof(float));
            if (std::bit_cast<std::uint32_t>(saved) == std::bit_cast<std::uint32_t>(value)) continue;
            ++differing;
            largest = std::max(largest, std::abs(static_cast<double>(saved) - static_cast<double>(value)));
        }
        if (differing > 0)
            note(in_checkpoints_, name + ": " + std::to_string(differing) + " of " + std::to_string(count) +
                                      " values differ from the checkpoint, by up to " + number_text(largest));
    }

    void note(std::size_t& count, std::string line) {
        if (++count <= kShownDifferences) result_.differences.push_back(std::move(line));
    }

    Verification& result_;
    std::size_t in_records_ = 0;
    std::size_t in_checkpoints_ = 0;
};

/// Where to start: a step that has a whole checkpoint, or 0.
std::int64_t start_of(const VerifyOptions& options, const std::vector<std::int64_t>& checkpoints, const fs::path& run) {
    if (!options.from) return checkpoints.size() < 2 ? 0 : checkpoints[checkpoints.size() - 2];
    const bool known = std::find(checkpoints.begin(), checkpoints.end(), *options.from) != checkpoints.end();
    if (*options.from == 0 || known) return *options.from;
    std::string steps = "0, the beginning";
    for (const std::int64_t step : checkpoints)
        steps += ", " + std::to_string(step);
    throw UsageError(run.string() + ": has no checkpoint of step " + std::to_string(*options.from) +
                     "; expected one of " + steps);
}

/// Where to stop.
std::int64_t end_of(const VerifyOptions& options, std::int64_t from, const std::vector<std::int64_t>& checkpoints,
                    std::int64_t last_record, const fs::path& run) {
    const auto next = std::upper_bound(checkpoints.begin(), checkpoints.end(), from);
    const std::int64_t last = std::max(last_record, checkpoints.empty() ? 0 : checkpoints.back());
    if (last <= from)
        throw UsageError(run.string() + ": has no record behind step " + std::to_string(from) +
                         "; expected a start before its last step, " + std::to_string(last));
    if (!options.steps) return next == checkpoints.end() ? last : *next;
    if (*options.steps < 1)
        throw UsageError("steps to verify: " + std::to_string(*options.steps) + "; expected 1 or more");
    return *options.steps > last - from ? last : from + *options.steps;
}

/// The first step behind `from` at which the run became another: a resume brought other settings, or a rewind other
/// batches. None: the largest number.
std::int64_t next_change(const RunDirectory& run, std::int64_t from) {
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    const auto add = [&](std::int64_t step) {
        if (step > from) first = std::min(first, step);
    };
    for (const std::int64_t step : run.config_changes())
        add(step);
    for (const Event& event : read_events(run.events_path()))
        if (event.kind == "rewind") add(event.step);
    return first;
}

bool has_rewound_to_start(const RunDirectory& run) {
    const std::vector<Event> events = read_events(run.events_path());
    return std::any_of(events.begin(), events.end(),
                       [](const Event& event) { return event.kind == "rewind" && event.step == 0; });
}

/// The config that the stretch was trained with: that of the checkpoint at its end, if there is one before the settings
/// change.
Config config_of_stretch(const RunDirectory& run, const std::vector<std::int64_t>& checkpoints, std::int64_t from,
                         std::int64_t change) {
    const auto next = std::upper_bound(checkpoints.begin(), checkpoints.end(), from);
    if (next == checkpoints.end() || *next > change) return run.config_of(from + 1);
    const fs::path path = checkpoint_path(run.path(), *next);
    return config_from_json(read_checkpoint_info(path).config_json, path / "config.json");
}

/// The fingerprint of the data that the run was trained on: each checkpoint has it.
std::uint64_t recorded_fingerprint(const fs::path& run, std::int64_t checkpoint) {
    return read_checkpoint_info(checkpoint_path(run, checkpoint)).state.data_fingerprint;
}

} // namespace

Verification verify(const fs::path& directory, const VerifyOptions& options, const Log& log) {
    const RunDirectory run = RunDirectory::open(directory);
    const std::vector<std::int64_t> checkpoints = list_checkpoints(run.path());
    std::map<std::int64_t, StepRecord> records;
    for (const StepRecord& record : read_metrics(run.metrics_path()))
        records[record.step] = record;

    Verification result;
    result.from = start_of(options, checkpoints, run.path());
    const std::int64_t last_record = records.empty() ? 0 : records.rbegin()->first;
    const std::int64_t change = next_change(run, result.from); // to which one config and its batches lead
    const std::int64_t wanted = end_of(options, result.from, checkpoints, last_record, run.path());
    const std::int64_t end = std::min(wanted, change);
    if (end < wanted)
        log.info("up to step " + std::to_string(end) +
                 ", behind which the run went on with other settings or other batches");
    const Environment now = current_environment();
    std::vector<std::string> lost, changed;
    for (const Environment& recorded : run.environments_of(result.from + 1, end, lost)) {
        for (std::string& difference : differences(recorded, now)) {
            if (std::find(changed.begin(), changed.end(), difference) == changed.end())
                changed.push_back(std::move(difference));
        }
    }
    for (const std::string& line : lost)
        log.warn(line);
    for (const std::string& difference : changed)
        log.warn("not as it was recorded: " + difference);
    result.environment = std::move(lost);
    result.environment.insert(result.environment.end(), changed.begin(), changed.end());

    const Config config = config_of_stretch(run, checkpoints, result.from, change);
    const Dataset data(data_options(config));
    if (!checkpoints.empty() && data.fingerprint() != recorded_fingerprint(run.path(), checkpoints.back()))
        throw IoError(config.data.path + ": not the data that the run was trained on");
    Learner learner(config, data);
    TrainerState state;
    const std::optional<GraftRecord> grafted = read_graft_record(run.path());
    if (grafted) learner.set_new_norms(grafted->new_norms);
    // That of step 0 is more than the weights at the start: of a graft, or of batches that a rewind to there left out.
    if (result.from > 0 || grafted || (!checkpoints.empty() && checkpoints.front() == 0)) {
        load_checkpoint(checkpoint_path(run.path(), result.from), state, learner.table(),
                        learner.optimizer().moments());
    } else if (has_rewound_to_start(run)) {
        throw UsageError(run.path().string() + ": went back to step 0 and left batches out, and has no checkpoint of "
                                               "that; expected a start at a checkpoint");
    }
    log.info("making steps " + std::to_string(result.from + 1) + " to " + std::to_string(end) + " again");

    const StabilityRules rules(config, data.unigram_entropy());
    Snapshot undo;
    Comparison comparison(result);
    for (result.to = result.from; result.to < end;) {
        const JudgedStep judged = judged_step(learner, rules, state, undo);
        StepRecord record = judged.step.record;
        ++result.to;
        const auto recorded = records.find(result.to);
        if (recorded != records.end()) {
            if (recorded->second.val_loss && judged.made)
                if (const std::optional<Evaluation> found = learner.validate()) record.val_loss = found->loss;
            comparison.compare(recorded->second, record);
        }
        if (!judged.made) break; // the run ended here, too, or the records differ
        if (std::binary_search(checkpoints.begin(), checkpoints.end(), result.to)) {
            comparison.compare(checkpoint_path(run.path(), result.to), learner);
            result.checkpoints.push_back(result.to);
        }
    }
    return result;
}

} // namespace ballast
