#include "ballast/train/judged_step.h"

#include <cmath>
#include <optional>

#include "ballast/base/text.h"

namespace ballast {

namespace {

/// Takes a step that counts into the state.
void advance(TrainerState& state, const StepRecord& record) {
    state.step = record.step;
    state.tokens = record.tokens;
    state.seconds += record.seconds;
    if (record.loss < state.best_loss) {
        state.best_loss = record.loss;
        state.best_loss_step = record.step;
    }
}

/// Which batch it was, in the events; and what holds at the step, in its record.
void label(JudgedStep& judged) {
    if (!judged.judgement.flags.empty()) judged.step.record.events = judged.judgement.flags;
    for (Event& event : judged.judgement.events) {
        event.batch = judged.step.batch;
        event.batch_checksum = hex_digits(judged.step.batch_checksum);
    }
}

} // namespace

JudgedStep judged_step(Learner& learner, const StabilityRules& rules, TrainerState& state, Snapshot& undo,
                       LayerProbe* probe) {
    const StabilityState before = state.stability;
    const Policy on_non_finite = rules.config.on_non_finite;
    JudgedStep result;
    Learner::Step& step = result.step;
    Judgement& judgement = result.judgement;

    step = learner.gradients(state.step + 1, state.step + 1 + state.skipped_batches, probe);
    step.record.tokens = state.tokens + learner.tokens_per_step();
    judgement = judge(rules, state.stability, step.record, step.non_finite);

    const bool finite = step.non_finite.empty();
    bool skipped = judgement.policy == Policy::skip;
    if (!skipped && (finite || on_non_finite == Policy::go_on)) {
        if (on_non_finite == Policy::skip) undo.take(state, learner.table(), learner.optimizer().moments());
        learner.update(step, probe);
        if (finite && !step.non_finite.empty()) { // a parameter
            judgement.add(judge(rules, state.stability, step.record, step.non_finite));
            skipped = on_non_finite == Policy::skip;
            if (skipped) undo.restore(learner.table(), learner.optimizer().moments());
        }
    }
    result.made = step.non_finite.empty() || skipped || on_non_finite == Policy::go_on;
    if (skipped) {
        ++state.stability.remedied;
        state.stability.non_finite_since = 0;
        judgement.flags += " skipped";
    }
    if (result.made)
        advance(state, step.record);
    else
        state.stability = before;
    label(result);
    return result;
}

void judge_validation(JudgedStep& judged, const StabilityRules& rules, TrainerState& state) {
    const std::optional<double> loss = judged.step.record.val_loss;
    if (!loss || std::isfinite(*loss)) return;
    judged.step.non_finite = "the validation loss";
    judged.judgement.add(judge(rules, state.stability, judged.step.record, judged.step.non_finite));
    if (rules.config.on_non_finite == Policy::skip) judged.judgement.policy = Policy::stop;
    judged.made = rules.config.on_non_finite == Policy::go_on;
    label(judged);
}

} // namespace ballast
