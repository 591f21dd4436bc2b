#!/usr/bin/env bash
# Checks who includes whom, from the include lines: tools/check_layers.sh [ROOT]
# A folder of include/ballast and src is a layer. What a layer may see, and who may use which library, stands below.
set -euo pipefail
root=${1:-$(dirname "$0")/..}
cd "$root"

files=()
while IFS= read -r file; do files+=("$file"); done < <(find include src tools -name '*.h' -o -name '*.cpp' | LC_ALL=C sort)
if [[ ${#files[@]} -eq 0 ]]; then
    echo "check_layers: no C++ files under $PWD" >&2
    exit 2
fi

awk '
BEGIN {
    # Layer: the layers it may include besides itself.
    sees["base"]     = ""
    sees["config"]   = "base"
    sees["data"]     = "base"
    sees["kernels"]  = "base"
    sees["autograd"] = "base kernels"
    sees["ops"]      = "base kernels autograd"
    sees["nn"]       = "base kernels autograd ops config"
    sees["train"]    = "base kernels autograd ops config nn data"
    sees["lab"]      = "base kernels autograd ops config nn data train"
    sees["tools"]    = "base kernels autograd ops config nn data train lab"

    # Library: the files, as regular expressions, that may include its headers.
    n = 0
    library[++n] = "^(cblas|openblas_config|f77blas|lapacke?)[.]h$"; user[n] = "^src/kernels/gemm[.]cpp$"
    library[++n] = "^Random123/";     user[n] = "^src/base/rng[.]cpp$"
    library[++n] = "^spdlog/";        user[n] = "^src/base/log[.]cpp$"
    library[++n] = "^hwy/";           user[n] = "^src/kernels/"
    library[++n] = "^CLI/";           user[n] = "^tools/"
    # JSON: configs, the files of a run, of a sweep and of a claim, the figures that two benchmarks wrote, and two
    # exceptions: meta.json belongs to the token files it describes, so data reads it where it reads them;
    # a report page holds the records of its runs as JSON.
    library[++n] = "^nlohmann/"
    user[n] = "^(src/config/.*|src/train/(step_record|layer_record|metrics|checkpoint|safetensors|run_directory|graft_record)|src/data/meta|src/lab/(sweep(_table)?|report_data|bench_compare|claim_record))[.](cpp|h)$"
}

function fail(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; bad = 1 }

FNR == 1 {
    split(FILENAME, part, "/")
    layer = part[1] == "include" ? part[3] : part[1] == "src" ? part[2] : "tools"
    if (!(layer in sees)) fail("the folder " layer " is no layer; add it to tools/check_layers.sh")
}

/^[ \t]*#[ \t]*include[ \t]*["<]/ {
    name = $0
    sub(/^[^"<]*["<]/, "", name)
    sub(/[">].*$/, "", name)
    for (i = 1; i <= n; ++i)
        if (name ~ library[i]) {
            if (FILENAME !~ user[i]) fail("includes " name ", which only " user[i] " may")
            next
        }
    if (match($0, /include[ \t]*</) && name !~ /^ballast\//) next
    other = name
    is_public = sub(/^ballast\//, "", other)
    if (part[1] == "include" && !is_public) fail("a public header includes " name ", which is not installed")
    if (!match(other, /\//)) next
    sub(/\/.*$/, "", other)
    if (other == layer) next
    if (!(other in sees)) { fail("includes " name ", which is in no layer"); next }
    if (index(" " sees[layer] " ", " " other " ") == 0) fail(layer " includes " name "; it sees: " sees[layer])
}

END { exit bad }
' "${files[@]}"
