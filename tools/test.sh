#!/usr/bin/env bash
# Builds and tests Ballast: tools/test.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat << 'END'
usage: tools/test.sh [--all] [--preset NAME] [--werror] [CTEST-OPTION...]

Installs what it needs (apt, with sudo where needed), builds, and runs every C++ test but those labelled `long`.

  --all          also the long tests, and tests/interop: comparisons with PyTorch and other programs, and reports in
                 Chromium, by a Python virtual environment that it makes under build/
  --preset NAME  release (the default), dev, asan, ubsan, sanitize (both), tsan or coverage
  --werror       compiler warnings are errors

Whatever else is given goes to ctest: `tools/test.sh -R unit/` runs the tests with unit/ in their names.
END
}

all=false
preset=release
werror=()
ctest_options=()
while [[ $# -gt 0 ]]; do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --all) all=true ;;
        --preset)
            [[ $# -ge 2 ]] || { usage >&2; exit 2; }
            preset=$2
            shift
            ;;
        --werror) werror=(-DBALLAST_WERROR=ON) ;;
        *) ctest_options+=("$1") ;;
    esac
    shift
done

roles=(build)
if $all; then roles+=(python browser); fi
tools/packages.sh "${roles[@]}"

cmake --preset "$preset" "${werror[@]}"
cmake --build --preset "$preset"

if ! $all; then ctest_options+=(--label-exclude '^long$'); fi
ctest --preset "$preset" --parallel "$(nproc)" "${ctest_options[@]}"
if ! $all; then exit 0; fi

# The environment is made again when the list of packages, or Python itself, has changed.
venv=build/venv
requirements=tests/interop/requirements.txt
stamp=$({ cat "$requirements"; python3 --version; } | sha256sum)
if [[ ! -f $venv/stamp || $(< "$venv/stamp") != "$stamp" ]]; then
    echo "Making a virtual environment in $venv: $(tr '\n' ' ' < "$requirements")"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
    echo "$stamp" > "$venv/stamp"
fi
BALLAST_BUILD=build/$preset "$venv/bin/python" -m pytest -q tests/interop
