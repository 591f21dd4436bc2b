#!/usr/bin/env bash
# Checks that need no test to run: tools/check.sh [--fix] [NAME...]
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat << 'END'
usage: tools/check.sh [--fix] [format] [layers] [generated] [tidy]

Runs the checks named, or all of them:
  format     clang-format 14 would change nothing
  layers     nobody includes what its layer must not see
  generated  configs/schema.json, docs/config.md, docs/records.md and docs/claims.md are what the program generates
  tidy       clang-tidy 14 finds nothing (.clang-tidy)
--fix formats the sources and writes the generated files instead of complaining.
END
}

fix=false
checks=()
for argument; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        --fix) fix=true ;;
        format | tidy | layers | generated) checks+=("$argument") ;;
        *) echo "tools/check.sh: unknown check '$argument'" >&2; usage >&2; exit 2 ;;
    esac
done
if [[ ${#checks[@]} -eq 0 ]]; then checks=(format layers generated tidy); fi

sources() { find include src tools tests -name '*.h' -o -name '*.cpp' | LC_ALL=C sort; }

# Compares text: --dry-run takes the comment after an inline namespace for a change where there is none.
check_format() {
    local status=0 file
    while IFS= read -r file; do
        if $fix; then
            clang-format-14 -i "$file"
        else
            clang-format-14 "$file" | diff -u --label "$file" --label "$file, formatted" "$file" - || status=1
        fi
    done < <(sources)
    return $status
}

check_layers() { tools/check_layers.sh; }

check_generated() {
    cmake --preset release > /dev/null || return 1
    cmake --build --preset release --target ballast_main || return 1
    local status=0 temporary
    temporary=$(mktemp -d)
    build/release/ballast schema > "$temporary/schema.json" || return 1
    build/release/ballast schema --reference > "$temporary/config.md" || return 1
    build/release/ballast schema --records > "$temporary/records.md" || return 1
    build/release/ballast reproduce --page docs/claims > "$temporary/claims.md" || return 1
    compare() {
        if $fix; then
            cp "$temporary/$(basename "$1")" "$1"
        elif ! diff -u "$1" "$temporary/$(basename "$1")"; then
            echo "$1 is not what the program generates: tools/check.sh --fix generated" >&2
            status=1
        fi
    }
    compare configs/schema.json
    compare docs/config.md
    compare docs/records.md
    compare docs/claims.md
    rm -r "$temporary"
    return $status
}

# Sources in float; double differs in a typedef. One instruction set of Highway; the others are the same sources. A
# header comes along with whoever includes it.
check_tidy() {
    cmake --preset clang > /dev/null || return 1
    find src tools tests -name '*.cpp' -not -path 'tests/outside/*' | LC_ALL=C sort |
        xargs -n 1 -P "$(nproc)" clang-tidy-14 -p build/clang --quiet --extra-arg=-DHWY_COMPILE_ONLY_STATIC \
            2> >(grep -v 'warnings* generated[.]$' >&2)
}

tools/packages.sh build check
failed=()
for check in "${checks[@]}"; do
    echo "== $check"
    "check_$check" || failed+=("$check")
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "check: failed: ${failed[*]}" >&2
    exit 1
fi
echo "check: all good: ${checks[*]}"
