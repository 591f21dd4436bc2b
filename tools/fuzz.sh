#!/usr/bin/env bash
# Fuzzes what reads files that others may have written: tools/fuzz.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat << 'END'
usage: tools/fuzz.sh [TARGET...] [--seconds N]

Builds the fuzz targets (tests/fuzz/NAME_fuzz.cpp; libFuzzer, AddressSanitizer, UndefinedBehaviorSanitizer) and runs each
named one, or all, for N seconds [60] on one processor, beginning with the seeds in tests/fuzz/NAME. New inputs that
reach new code are kept in build/fuzz/corpus/NAME. An input that breaks something ends the run with status 1; it lies in
build/fuzz/findings. Mend what it shows and move it to tests/fuzz/NAME/regress-WHAT, where every test run replays it.
END
}

seconds=60
targets=()
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --seconds)
            [[ ${2:-} =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }
            seconds=$2
            shift
            ;;
        -*) usage >&2; exit 2 ;;
        *)
            [[ -f tests/fuzz/$1_fuzz.cpp ]] || { echo "tools/fuzz.sh: no target tests/fuzz/$1_fuzz.cpp" >&2; exit 2; }
            targets+=("$1")
            ;;
    esac
    shift
done
if [[ ${#targets[@]} -eq 0 ]]; then
    for file in tests/fuzz/*_fuzz.cpp; do targets+=("$(basename "$file" _fuzz.cpp)"); done
fi

tools/packages.sh build clang
mkdir -p build
cmake --preset fuzz > build/fuzz-configure.log 2>&1 || { cat build/fuzz-configure.log >&2; exit 1; }
cmake --build --preset fuzz

# Targets write the files they read: in memory where there is room for them.
scratch=$(mktemp -d -p "$([[ -w /dev/shm ]] && echo /dev/shm || echo "${TMPDIR:-/tmp}")")
trap 'rm -rf "$scratch"' EXIT
for target in "${targets[@]}"; do
    corpus=build/fuzz/corpus/$target
    mkdir -p "$corpus" build/fuzz/findings
    echo "$target: $seconds s"
    TMPDIR=$scratch build/fuzz/tests/fuzz_"$target" "$corpus" "tests/fuzz/$target" \
        -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -max_len=8192 -dict=tests/fuzz/json.dict \
        -artifact_prefix="build/fuzz/findings/$target-" -print_final_stats=1 < /dev/null 2> "$corpus.log" ||
        { tail -n 60 "$corpus.log" >&2; exit 1; }
    grep -E 'stat::number_of_executed_units|DONE' "$corpus.log" | tr '\n' ' '
    echo
done
