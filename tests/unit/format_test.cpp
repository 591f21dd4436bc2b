// Numbers and words as the command line shows them.

#include "../../tools/ballast/format.h"

#include <cmath>
#include <limits>

#include "catch.h"

TEST_CASE("numbers in groups of three digits", "[tools]") {
    CHECK(grouped(0) == "0");
    CHECK(grouped(999) == "999");
    CHECK(grouped(1000) == "1,000");
    CHECK(grouped(-1234567) == "-1,234,567");
    CHECK(grouped(-123) == "-123");
    CHECK(grouped(std::numeric_limits<std::int64_t>::min()) == "-9,223,372,036,854,775,808");
}

TEST_CASE("counts with three digits and a suffix", "[tools]") {
    CHECK(short_count(0) == "0");
    CHECK(short_count(999) == "999");
    CHECK(short_count(999.6) == "1.00k");
    CHECK(short_count(1234) == "1.23k");
    CHECK(short_count(12345) == "12.3k");
    CHECK(short_count(99960) == "100k");
    CHECK(short_count(999600) == "1.00M");
    CHECK(short_count(-2.5e9) == "-2.50G");
    CHECK(short_count(3e18) == "3000P");
}

TEST_CASE("durations in two units", "[tools]") {
    CHECK(duration(0) == "0 ms");
    CHECK(duration(0.85) == "850 ms");
    CHECK(duration(0.9999) == "1.0 s");
    CHECK(duration(12.34) == "12.3 s");
    CHECK(duration(59.96) == "1m 00s");
    CHECK(duration(125) == "2m 05s");
    CHECK(duration(3599.6) == "1h 00m");
    CHECK(duration(12000) == "3h 20m");
    CHECK(duration(4 * 86400 + 6 * 3600) == "4d 06h");
    for (const double nonsense : {-1.0, std::nan(""), std::numeric_limits<double>::infinity()})
        CHECK(duration(nonsense) == "?");
}

TEST_CASE("words are quoted for the shell where they need it", "[tools]") {
    CHECK(shell_word("runs/a-1.json") == "runs/a-1.json");
    CHECK(shell_word("") == "''");
    CHECK(shell_word("a b") == "'a b'");
    CHECK(shell_word("$HOME;`x`") == "'$HOME;`x`'");
    CHECK(shell_word("it's") == "'it'\\''s'");
}

TEST_CASE("a text's columns are its characters", "[tools]") {
    CHECK(columns_of("") == 0);
    CHECK(columns_of("abc") == 3);
    CHECK(columns_of("naïve ━") == 7);
}

TEST_CASE("format is printf into a string of any length", "[tools]") {
    CHECK(format("%d %s", 5, "x") == "5 x");
    CHECK(format("%s", std::string(100000, 'a').c_str()).size() == 100000);
    CHECK(format("%s", "").empty());
}
