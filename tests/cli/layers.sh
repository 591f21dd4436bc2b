#!/usr/bin/env bash
# The sources keep the layer rules, and tools/check_layers.sh notices when they do not: tests/cli/layers.sh ROOT
set -euo pipefail
cd "$1"
tools/check_layers.sh

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/tools"
for file in include/ballast/ops/ops.h src/base/rng.cpp src/base/log.cpp src/kernels/gemm.cpp; do
    mkdir -p "$tree/$(dirname "$file")"
    cp "$file" "$tree/$file"
done
tools/check_layers.sh "$tree" || { echo "a good tree is refused" >&2; exit 1; }

# refuses FILE INCLUDE: the tree with that line in that file is refused, and the message names the file.
refuses() {
    local file=$tree/$1
    mkdir -p "$(dirname "$file")"
    echo "#include $2" > "$file"
    if message=$(tools/check_layers.sh "$tree"); then
        echo "not noticed: $2 in $1" >&2
        exit 1
    fi
    [[ $message == *"$1:1:"* ]] || { echo "no word of $1 in: $message" >&2; exit 1; }
    rm "$file"
}
refuses src/base/extra.cpp '"ballast/config/config.h"'
refuses src/data/extra.cpp '"ballast/config/config.h"'
refuses src/kernels/extra.cpp '"ballast/autograd/tape.h"'
refuses src/kernels/extra.cpp '"config/fields.h"'
refuses include/ballast/ops/extra.h '"ballast/nn/params.h"'
refuses include/ballast/nn/extra.h '<ballast/train/optimizer.h>'
refuses src/nn/extra.cpp '"ballast/data/sampler.h"'
refuses src/train/extra.cpp '"ballast/lab/sweep.h"'
refuses src/kernels/extra.cpp '<cblas.h>'
refuses src/ops/extra.cpp '"hwy/highway.h"'
refuses src/nn/extra.cpp '<nlohmann/json.hpp>'
refuses include/ballast/config/extra.h '<nlohmann/json.hpp>'
refuses src/train/extra.cpp '<CLI/CLI.hpp>'
refuses src/train/extra.cpp '  <spdlog/spdlog.h>'
refuses include/ballast/config/extra.h '"fields.h"'
refuses src/novelty/extra.cpp '<vector>'
