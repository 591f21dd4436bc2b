#!/usr/bin/env bash
# Whether builds compute the same bits: tools/same_bits.sh --help
set -euo pipefail

usage() {
    cat << 'END'
usage: tools/same_bits.sh BUILD BUILD...

Trains small models with the program of each build directory, on this machine: every kind of norm, with dropout and
accumulation, and the rest of what a model may be made of. Parameters, moments, state, records and verdict must be the
same to the bit as those of the first build; times alone may differ. Names what differs, and ends with status 1 then.

    tools/same_bits.sh build/release build/dev
END
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
esac
[[ $# -ge 2 ]] || { usage >&2; exit 2; }
programs=()
for build; do
    [[ -x $build/ballast ]] || { echo "tools/same_bits.sh: no program $build/ballast" >&2; exit 2; }
    programs+=("$(realpath "$build/ballast")")
done
cd "$(dirname "$0")/.."

# A model a line: its name, and what it sets.
models() {
    cat << 'END'
none        model.norm.kind=none model.norm.placement=none model.residual=fixup
layernorm   model.norm.kind=layernorm model.bias=true model.position=learned model.ffn.kind=gelu
rmsnorm     model.norm.kind=rmsnorm model.norm.placement=sandwich model.position=rope model.ffn.kind=swiglu model.qk_norm=head model.kv_heads=2
batchnorm   model.norm.kind=batchnorm model.ffn.kind=relu model.position=none
scalenorm   model.norm.kind=scalenorm model.norm.placement=post model.position=sinusoidal model.ffn.kind=relu2 model.embedding.scale=sqrt_width
dyt         model.norm.kind=dyt model.position=alibi model.ffn.kind=gelu_tanh model.tie_embeddings=false
derf        model.norm.kind=derf model.ffn.kind=geglu model.residual=layerscale model.logit_softcap=20
deepnorm    model.norm.placement=deepnorm model.init.kind=deepnorm model.ffn.kind=silu model.ffn.inner_norm=true model.head_scale=true
sgd         optimizer.kind=sgd optimizer.nesterov=true optimizer.lr=0.1 schedule.kind=inverse_sqrt loss.z_loss=1e-4
END
}
common=(model.layers=2 model.heads=4 model.width=48 model.context=24 model.dropout=0.1
    schedule.warmup=4 train.steps=12 train.batch=6 train.micro_batch=2 train.eval_every=4 train.eval_batches=2
    train.checkpoint_every=6 stability.probe_every=3)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# train PROGRAM RUN SETTING...: what is left is the run without its lock, its times and the machine's description. A
# state's own checksum, on a line at the outer level, covers its times, too.
train() {
    local program=$1 run=$2 setting
    local arguments=(train configs/quickstart.json --out "$run")
    shift 2
    for setting in "${common[@]}" "$@"; do arguments+=(--set "$setting"); done
    "$program" "${arguments[@]}" > "$run.log" 2>&1 || { cat "$run.log" >&2; exit 1; }
    rm "$run/lock" "$run/environment.json"
    find "$run" -name '*.json' -o -name '*.jsonl' | xargs sed -E -i \
        's/"(tokens_per_second|seconds)": ?[0-9.e+-]+/"\1":0/g; s/"(started|finished)": ?"[^"]*"/"\1":""/g; s/^ "checksum": .*//'
}

status=0
while read -r name settings; do
    read -ra settings <<< "$settings"
    for i in "${!programs[@]}"; do train "${programs[i]}" "$work/$name.$i" "${settings[@]}"; done
    for ((i = 1; i < ${#programs[@]}; ++i)); do
        if diff -rq "$work/$name.0" "$work/$name.$i" > "$work/differences"; then
            echo "$name: the same bits, ${programs[0]} and ${programs[i]}"
        else
            echo "$name: not the same, ${programs[0]} and ${programs[i]}:"
            sed "s|$work/||g" "$work/differences"
            status=1
        fi
    done
done < <(models)
exit $status
