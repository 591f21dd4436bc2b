#!/usr/bin/env bash
# Installs what Ballast needs on Debian 12, Ubuntu 24.04 or later: tools/packages.sh [--list] ROLE...
# Says what it installs, asks nothing, and does nothing when everything is there.
set -euo pipefail

# Role, package, and a command that makes the package unnecessary when it succeeds: the same thing may have come from
# elsewhere. This is the one list of packages.
table() {
    cat << 'END'
build   g++                 g++ --version
build   cmake               cmake --version
build   ninja-build         ninja --version
check   libopenblas-dev
build   libhwy-dev
build   libspdlog-dev
build   nlohmann-json3-dev
build   librandom123-dev
build   libcli11-dev
build   libjs-dygraphs
build   catch2
python  python3             python3 --version
python  python3-venv        python3 -c "import ensurepip"
browser chromium            chromium --version || chromium-browser --version || google-chrome --version
check   clang-format-14
check   clang-tidy-14
check   clang-14
clang   clang-14
clang   libclang-rt-14-dev
END
}

usage() {
    echo "usage: tools/packages.sh [--list] ROLE..."
    echo "Installs the packages of each role: build (compile and test), python (tests against other programs),"
    echo "browser (tests of report pages; Ubuntu has Chromium as a snap alone: install any Chrome there), check (format,"
    echo "clang-tidy and a second compiler), clang (its sanitizers and libFuzzer). --list prints their names and installs"
    echo "nothing."
}

list=false
roles=" "
for argument; do
    case $argument in
        -h | --help) usage; exit 0 ;;
        --list) list=true ;;
        build | python | browser | check | clang) roles+="$argument " ;;
        *) echo "tools/packages.sh: unknown role '$argument'" >&2; usage >&2; exit 2 ;;
    esac
done

installed() { [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2> /dev/null) == installed ]]; }

missing=()
while read -r role package instead; do
    [[ $roles == *" $role "* ]] || continue
    if $list; then
        echo "$package"
    elif ! installed "$package" && ! { [[ -n $instead ]] && bash -c "$instead" > /dev/null 2>&1; }; then
        missing+=("$package")
    fi
done < <(table)
[[ ${#missing[@]} -gt 0 ]] || exit 0

if ! command -v apt-get > /dev/null; then
    echo "No apt-get on this system: install the equivalents of: ${missing[*]}" >&2
    echo "Going on; cmake will name what it cannot find." >&2
    exit 0
fi
as_root=()
if [[ $(id -u) -ne 0 ]]; then
    if ! command -v sudo > /dev/null; then
        echo "Packages are missing, and there is no sudo to install them with. As root, run:" >&2
        echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "Installing packages with apt: ${missing[*]}"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" < /dev/null; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt update && apt install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then
    cat "$log" >&2
    echo "Installing packages failed; the reason stands above." >&2
    exit 1
fi
