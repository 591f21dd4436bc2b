#include "ballast/train/reference.h"

#include "ballast/train/event.h"
#include "ballast/train/layer_record.h"
#include "ballast/train/step_record.h"

namespace ballast {

namespace {

template <class Fields>
std::string table_of(const Fields& fields) {
    std::string text = "| key | unit | meaning | source |\n|---|---|---|---|\n";
    for (const auto& field : fields) {
        std::string source;
        if constexpr (requires { field.source; }) source = field.source;
        text += "| `" + std::string(field.name) + "` | " + std::string(field.unit) + " | " +
                std::string(field.meaning) + " | " + source + " |\n";
    }
    return text + "\n";
}

} // namespace

std::string record_reference() {
    return R"--(# What a run records

Written by `ballast schema --records` from the lists that write the files. Each of the following files has one JSON object a line, and a
line belongs to a step. Lines reach the operating system as they are written, so a run that was killed is readable up to its last whole
line; a run that goes on, or rewinds, first cuts the files back to the step it goes on from. Numbers that JSON does not have are the
strings "NaN", "Infinity" and "-Infinity". A key that does not apply, or has nothing to say, is left out.

```sh
python3 -c "import json, sys; print([json.loads(line)['loss'] for line in open(sys.argv[1])])" runs/quickstart/metrics.jsonl
jq -r 'select(.site == "ffn" and .layer == 3) | [.step, .stream_rms] | @tsv' runs/quickstart/layers.jsonl
```

## metrics.jsonl: every step

With `log.csv` the same is in metrics.csv, with `log.tensorboard` in an event file for TensorBoard.

)--" + table_of(kStepFields) +
           R"--(## layers.jsonl: the first step and every `stability.probe_every` steps

One line for each place that something is measured at. Activations are those of the step's first micro-batch; parameters are those before
the step's update. The file grows with the layers: 10,000 steps of 12 layers with 12 heads write 25 MB at the default interval.

)--" + table_of(kLayerFields) +
           R"--(## events.jsonl: what happened

An event is written when it begins; `events` in metrics.jsonl says how long it holds. How each is found stands in
include/ballast/train/stability.h.

)--" + table_of(kEventFields) +
           R"--(## Beside them

`config.json` has every key of the config that the newest steps were made with, `environment.json` the machine and the program,
`summary.json` the verdict, where it comes from, and the figures of the run as a whole. Where a run went on with other settings, or in
another environment, those of its earlier steps are kept, in `configs/` and `environments/`: `step-00000500.json` held up to step 500.
`checkpoints/` has the newest states and the best one, `recorder/` those around events, for `ballast replay`.
)--";
}

} // namespace ballast
