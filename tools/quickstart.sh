#!/usr/bin/env bash
# From a fresh clone to a trained language model: tools/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1-} in
    "") ;;
    -h | --help)
        echo "usage: tools/quickstart.sh"
        echo "Installs the packages Ballast needs (apt, with sudo where needed), builds it in build/release, trains"
        echo "configs/quickstart.json into runs/quickstart (about a minute on 2 cores), and shows what it learned."
        echo "Run again, it goes on where it was interrupted, or shows the trained run."
        exit 0
        ;;
    *) echo "tools/quickstart.sh: takes no arguments; see --help" >&2; exit 2 ;;
esac

config=configs/quickstart.json
run=runs/quickstart
ballast=build/release/ballast

echo "Ballast quickstart: packages (apt), build (build/release), training ($run), result."

echo
echo "== Packages"
tools/packages.sh build
echo "All there."

echo
echo "== Build (a few minutes the first time)"
cmake --preset release > /dev/null
cmake --build --preset release --target ballast_main

echo
echo "== Training: $ballast train $config --out $run"
if [[ ! -e $run ]]; then
    $ballast train $config --out $run
elif [[ -e $run/summary.json ]] && ! grep -q '"verdict": *"interrupted"' $run/summary.json; then
    echo "Trained before; this shows that run. To train again: $ballast train $config --out runs/another"
else
    echo "Begun before; going on with it: $ballast resume $run"
    $ballast resume $run
fi

# number KEY FILE: the number that a JSON file has under a key.
number() { sed -n "s/.*\"$1\": *\(-\{0,1\}[0-9.eE+-]*\).*/\1/p" "$2" | head -n 1; }

echo
echo "== Result"
awk -v loss="$(number final_val_loss $run/summary.json)" -v floor="$(number validation_nats_per_char data/tiny_tales.json)" '
BEGIN {
    if (loss == "") print "validation loss  not finite"
    else printf "validation loss  %.3f nats a character\n", loss
    printf "entropy floor    %.3f nats a character: what is left when the rules of the corpus are known\n", floor
}'
echo
echo "A sample: $ballast generate $run --prompt 'It was a '"
$ballast generate $run --prompt 'It was a '
echo
echo "The run is in $run: its config, metrics, summary and checkpoints."
echo "Next, another place for the norms: $ballast train $config --set model.norm.placement=post --out runs/post"
