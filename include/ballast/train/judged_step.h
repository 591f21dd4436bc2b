#pragma once

#include "ballast/train/checkpoint.h"
#include "ballast/train/learner.h"
#include "ballast/train/snapshot.h"
#include "ballast/train/stability.h"

namespace ballast {

/// A training step and what was found in it.
struct JudgedStep {
    Learner::Step step;
    Judgement judgement;
    bool made = false; ///< the step counts: `state` is that after it
};

/// Makes the step after `state`: gradients, judgement, update. What the policies say about a single step is done here:
/// `skip` drops the update, and a step that is not finite counts only when its policy is skip or continue. Stop and
/// rewind are left to the caller. `undo` is memory for on_non_finite `skip`. The same state, parameters and moments
/// give the same step to the bit, in training and in a replay.
JudgedStep judged_step(Learner& learner, const StabilityRules& rules, TrainerState& state, Snapshot& undo,
                       LayerProbe* probe = nullptr);

/// Judges the validation loss in a made step's record. One that is not finite tells of parameters that the update has
/// spoilt although each of them is finite: the step does not count then, and as its update cannot be dropped any more,
/// `skip` stops. With on_non_finite `continue` this is an event and no more.
void judge_validation(JudgedStep& judged, const StabilityRules& rules, TrainerState& state);

} // namespace ballast
