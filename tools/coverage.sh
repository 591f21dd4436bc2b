#!/usr/bin/env bash
# Which lines of src/ the tests have reached: tools/coverage.sh --help
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat << 'END'
usage: tools/coverage.sh [BUILD]

Prints how many lines of every folder of src/ the tests have run in BUILD [build/coverage], and those that none has:
a file a line, with ranges of lines. A line of the engine counts when it ran in float or in double. Run the tests first:

    tools/test.sh --preset coverage && tools/coverage.sh
END
}

case ${1-} in
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
esac
build=$(realpath "${1:-build/coverage}")
[[ -n $(find "$build/CMakeFiles" -name '*.gcda' -print -quit 2> /dev/null) ]] || {
    echo "tools/coverage.sh: no counts in $build; first: tools/test.sh --preset coverage" >&2
    exit 1
}

# Every source file is named with its text by gcov once for each object that holds code of it.
cd "$build"
find CMakeFiles -name '*.gcno' | LC_ALL=C sort | xargs gcov --stdout 2> /dev/null | awk -F: -v root="$OLDPWD/" '
    function is_file(path, line, status) {
        status = (getline line < path)
        close(path)
        return status >= 0
    }
    $3 == "Source" {
        file = $4
        sub(/^.*\/src\//, "src/", file)
        ours = file ~ /^src\// && is_file(root file)
        next
    }
    ours {
        count = $1
        number = $2 + 0
        gsub(/[ *]/, "", count)
        if (count == "-" || count == "" || number == 0) next
        if (!((file, number) in ran)) { ran[file, number] = 0; if (number > last[file]) last[file] = number }
        if (count !~ /^[#=]/) ran[file, number] = 1
    }
    END {
        for (file in last) {
            split(file, part, "/")
            folder = part[1] "/" part[2]
            ranges = ""
            first = 0
            for (number = 1; number <= last[file] + 1; ++number) {
                known = (file, number) in ran
                if (known) { ++lines[folder]; reached[folder] += ran[file, number] }
                if (known && !ran[file, number]) {
                    if (!first) first = number
                    end = number
                } else if (first && (known || number > last[file])) {
                    ranges = ranges " " (first == end ? first : first "-" end)
                    first = 0
                }
            }
            if (ranges != "") print "3 " file ":" ranges
        }
        for (folder in lines) {
            print "0 " sprintf("%-14s %6d lines %6d reached %6.1f %%", folder, lines[folder], reached[folder],
                               100 * reached[folder] / lines[folder])
            all += lines[folder]
            all_reached += reached[folder]
        }
        print "1 " sprintf("%-14s %6d lines %6d reached %6.1f %%", "src", all, all_reached, 100 * all_reached / all)
        print "2"
    }' | LC_ALL=C sort -s -k1,1 -k2,2 | sed 's/^[0-3] \{0,1\}//'
