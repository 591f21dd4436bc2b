#include "ballast/base/text.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

namespace {

std::string random_bytes(std::uint64_t seed) {
    const RandomStream stream(seed, "bytes");
    std::string text;
    for (std::uint64_t i = 1; i <= stream.below(0, 40); ++i)
        text += static_cast<char>(stream.below(i, 256));
    return text;
}

} // namespace

TEST_CASE("printable text is one line without surprises", "[base]") {
    CHECK(printable("plain, naïve, 日本") == "plain, naïve, 日本");
    CHECK(printable("a\nb\tc") == "a\\nb\\tc");
    CHECK(printable("\x1b[31m\x7f") == "\\u001b[31m\\u007f");
    CHECK(printable("\xc2\x9b") == "\\u009b");
    // NOLINTNEXTLINE(misc-misleading-bidirectional): it is what must not reach a terminal
    CHECK(printable("\xe2\x80\xae"
                    "abc") == "\\u202eabc");
    CHECK(printable("\xe2\x80\xa8") == "\\u2028");
    CHECK(printable("\xff\xc3") == "\\xff\\xc3");
    CHECK(printable(std::string("\0", 1)) == "\\u0000");
    CHECK(printable("abcdef", 3) == "abc...");
    CHECK(printable("abc", 3) == "abc");
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
        const std::string shown = printable(random_bytes(seed));
        CHECK(is_utf8(shown));
        for (const char c : shown)
            CHECK((static_cast<unsigned char>(c) >= 0x20 && c != 0x7f));
    }
}

TEST_CASE("UTF-8 is what the standard says it is", "[base]") {
    for (const char* good : {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                             "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"})
        CHECK(is_utf8(good));
    for (const char* bad : {"\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                            "\xf5\x80\x80\x80", "\xc3", "\xe2\x82", "\xe2\x28\xa1", "a\xff", "\xf0\x90\x80"})
        CHECK_FALSE(is_utf8(bad));
}

TEST_CASE("a quoted text is a JSON string that reads back", "[base]") {
    CHECK(quoted("a\"b\\c\n\t\x01") == R"("a\"b\\c\n\t\u0001")");
    std::string all;
    for (char c = 1; c < 0x7f; ++c)
        all += c;
    all += "\x7fé日";
    CHECK(nlohmann::json::parse(ballast::quoted(all)) == all);
}

TEST_CASE("numbers have the fewest digits that read back to the same bits", "[base]") {
    CHECK(number_text(0) == "0");
    CHECK(number_text(0.1) == "0.1");
    CHECK(number_text(1e-4) == "0.0001");
    CHECK(number_text(1e-5) == "1e-05");
    CHECK(number_text(-1234567) == "-1234567");
    CHECK(number_text(1e15) == "1e+15");
    CHECK(json_number(3) == "3.0");
    CHECK(json_number(0.5) == "0.5");
    CHECK(json_number(1e20) == "1e+20");
    CHECK(json_number(std::numeric_limits<double>::infinity()) == "inf");
    const RandomStream stream(1, "doubles");
    for (std::uint64_t i = 0; i < 2000; ++i) {
        const std::uint64_t bits = stream.below(i, ~std::uint64_t{0});
        double value = 0;
        std::memcpy(&value, &bits, sizeof(value));
        if (!std::isfinite(value)) continue;
        CHECK(std::stod(json_number(value)) == value);
        const double everyday = std::ldexp(value, -std::ilogb(value)) * 1000 * stream.uniform(i);
        CHECK(std::stod(number_text(everyday)) == everyday);
    }
}

TEST_CASE("a list of words reads as one", "[base]") {
    const std::vector<std::string_view> words{"a", "b", "c"};
    CHECK(any_of(std::span(words).first(0)).empty());
    CHECK(any_of(std::span(words).first(1)) == "a");
    CHECK(any_of(std::span(words).first(2)) == "a or b");
    CHECK(any_of(words) == "a, b or c");
}

TEST_CASE("the edit distance counts insertions, deletions, replacements and swaps", "[base]") {
    CHECK(edit_distance("", "") == 0);
    CHECK(edit_distance("", "abc") == 3);
    CHECK(edit_distance("kitten", "sitting") == 3);
    CHECK(edit_distance("ab", "ba") == 1);
    CHECK(edit_distance("ca", "abc") == 3); // optimal string alignment: no edits inside a swap
    CHECK(edit_distance("Layers", "lAYERS") == 0);
    const RandomStream stream(4, "words");
    const auto word = [&](std::uint64_t seed) {
        std::string text;
        for (std::uint64_t i = 0; i < stream.below(10 * seed, 7); ++i)
            text += static_cast<char>('a' + stream.below(10 * seed + i + 1, 3));
        return text;
    };
    for (std::uint64_t i = 0; i < 500; ++i) {
        const std::string a = word(2 * i), b = word(2 * i + 1);
        const std::size_t distance = edit_distance(a, b);
        CHECK(distance == edit_distance(b, a));
        CHECK((distance == 0) == (a == b));
        CHECK(distance <= std::max(a.size(), b.size()));
        CHECK(distance >= std::max(a.size(), b.size()) - std::min(a.size(), b.size()));
    }
}

TEST_CASE("the nearest word is found, and nothing where none is near", "[base]") {
    const std::vector<std::string_view> keys{"layers", "heads", "width", "warmup", "lr"};
    CHECK(nearest("layer", keys) == "layers");
    CHECK(nearest("WITDH", keys) == "width");
    CHECK(nearest("rl", keys) == "lr");
    CHECK(nearest("warm_up", keys) == "warmup");
    CHECK(nearest("optimizer", keys).empty());
    CHECK(nearest("", keys).empty());
    CHECK(nearest("x", {}).empty());
    CHECK_FALSE(is_near(std::string(65, 'a'), std::string(65, 'a')));
}

TEST_CASE("sizes in binary units", "[base]") {
    CHECK(byte_size(0) == "0 B");
    CHECK(byte_size(999) == "999 B");
    CHECK(byte_size(1000) == "1.0 KiB");
    CHECK(byte_size(1536) == "1.5 KiB");
    CHECK(byte_size(3.25 * 1024 * 1024) == "3.2 MiB");
    CHECK(byte_size(5e18) == "4440.9 PiB");
}
