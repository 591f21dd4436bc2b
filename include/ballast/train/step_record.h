#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace ballast {

/// What is known about one training step: one line of metrics.jsonl. kStepFields says what each member means.
struct StepRecord {
    std::int64_t step = 0;
    std::int64_t tokens = 0;
    double loss = 0;
    double z_loss = 0;
    double mean_log_z = 0;
    double max_log_z = 0;
    double max_logit = 0;
    double lr = 0;
    double gradient_norm = 0;
    double clip = 1;
    double parameter_norm = 0;
    double update_norm = 0;
    double update_ratio = 0;
    double tokens_per_second = 0;
    double seconds = 0;
    std::optional<double> val_loss;
    std::optional<double> val_accuracy;
    std::optional<std::string> events;
};

/// A member of StepRecord: what JSON and CSV call it, its unit ("" for a pure number), one sentence, and where it comes
/// from.
struct StepField {
    using Member = std::variant<std::int64_t StepRecord::*, double StepRecord::*, std::optional<double> StepRecord::*,
                                std::optional<std::string> StepRecord::*>;

    std::string_view name;
    std::string_view unit;
    std::string_view meaning;
    Member member;
    std::string_view source = "";
};

/// Every member of StepRecord, in the order of the columns. Writers, readers and the documentation walk this list.
inline constexpr auto kStepFields = std::to_array<StepField>({
    {"step", "", "Number of the finished step, from 1.", &StepRecord::step},
    {"tokens", "", "Training tokens seen so far.", &StepRecord::tokens},
    {"loss", "nats/token", "Mean cross-entropy of the step's batch, without the z-loss; a task's is per target.",
     &StepRecord::loss},
    {"z_loss", "nats/token", "What the z-loss adds to the loss.", &StepRecord::z_loss,
     "Chowdhery et al., 2204.02311, section 5"},
    {"mean_log_z", "nats", "Mean over tokens of the logarithm of the softmax's sum.", &StepRecord::mean_log_z,
     "Wortsman et al., 2309.14322, section 3.1"},
    {"max_log_z", "nats", "Largest of them.", &StepRecord::max_log_z},
    {"max_logit", "nats", "Largest magnitude of an output logit.", &StepRecord::max_logit},
    {"lr", "", "Learning rate of the step.", &StepRecord::lr},
    {"gradient_norm", "", "Norm of the whole gradient, before clipping.", &StepRecord::gradient_norm},
    {"clip", "", "Factor by which clipping scaled the gradient; 1: not clipped.", &StepRecord::clip,
     "Pascanu et al., 1211.5063"},
    {"parameter_norm", "", "Norm of all parameters after the update.", &StepRecord::parameter_norm},
    {"update_norm", "", "Norm of the change of all parameters.", &StepRecord::update_norm},
    {"update_ratio", "", "RMS of the update over RMS of the parameters.", &StepRecord::update_ratio},
    {"tokens_per_second", "1/s", "Training speed of the step.", &StepRecord::tokens_per_second},
    {"seconds", "s", "Time that the step took.", &StepRecord::seconds},
    {"val_loss", "nats/token", "Mean cross-entropy on the validation split; only where evaluated.",
     &StepRecord::val_loss},
    {"val_accuracy", "", "Share of the validation's targets that had the largest logit; tasks only, where evaluated.",
     &StepRecord::val_accuracy},
    {"events", "",
     "Kinds of events that hold at this step, separated by blanks (see events.jsonl), and `skipped` where the update "
     "was dropped; only where there are any.",
     &StepRecord::events},
});

/// The record as one JSON object without a line break, keys as in kStepFields; a member that is not set is left out.
/// Numbers read back to the same bits. JSON has no non-finite numbers: they are the strings "NaN", "Infinity" and
/// "-Infinity".
std::string to_json(const StepRecord& record);

/// Reads what to_json() wrote. Unknown keys are ignored; a number that is missing (an older log) reads as NaN. Throws
/// IoError, saying what is wrong, for what is not a record: no JSON object, no step, a value of the wrong type.
StepRecord step_record_from_json(std::string_view line);

/// Names of the columns, separated by commas, without a line break.
std::string step_csv_header();
/// The values in the order of the columns; empty where not set; non-finite numbers spelled as in JSON.
std::string to_csv(const StepRecord& record);

} // namespace ballast
