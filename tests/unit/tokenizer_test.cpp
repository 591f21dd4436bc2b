#include "ballast/data/tokenizer.h"

#include <algorithm>
#include <functional>
#include <random>
#include <set>

#include "ballast/base/error.h"
#include "catch.h"

using namespace ballast;

namespace {

std::string message_of(const std::function<void()>& action) {
    try {
        action();
    } catch (const DataError& error) {
        return error.what();
    }
    return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// UTF-8 by the table of RFC 3629, written a second time.
std::string utf8(std::uint32_t code) {
    const auto tail = [&](unsigned shift) { return static_cast<char>(0x80 + (code >> shift) % 64); };
    if (code < 128) return {static_cast<char>(code)};
    if (code < 2048) return {static_cast<char>(0xc0 + code / 64), tail(0)};
    if (code < 65536) return {static_cast<char>(0xe0 + code / 4096), tail(6), tail(0)};
    return {static_cast<char>(0xf0 + code / 262144), tail(12), tail(6), tail(0)};
}

} // namespace

TEST_CASE("every Unicode character survives encoding and decoding, in code point order") {
    std::string text;
    std::vector<std::string> expected;
    for (std::uint32_t code = 0; code < 0x110000; ++code) {
        if (code >= 0xd800 && code < 0xe000) continue;
        expected.push_back(utf8(code));
        text += expected.back();
    }
    const Tokenizer tokenizer = Tokenizer::characters_of(text, "all");
    CHECK(tokenizer.vocab_size() == 0x110000 - 0x800);
    CHECK(tokenizer.vocabulary() == expected);
    const std::vector<std::int32_t> ids = tokenizer.encode(text, "all");
    bool in_order = ids.size() == expected.size();
    for (std::size_t i = 0; in_order && i < ids.size(); ++i)
        in_order = ids[i] == static_cast<std::int32_t>(i);
    CHECK(in_order);
    CHECK(tokenizer.decode(ids) == text);
}

TEST_CASE("random text survives, and a tokenizer is its plain parts") {
    std::mt19937 random(1);
    const std::vector<std::uint32_t> alphabet{'\n',  'a',    'b',    'z',     0xe9,   0x7ff,
                                              0x800, 0x20ac, 0xffff, 0x10000, 0x1f6f6};
    for (int round = 0; round < 50; ++round) {
        std::string text;
        std::set<std::uint32_t> used;
        for (int i = 0; i < 1 + round; ++i) {
            const std::uint32_t code = alphabet[random() % alphabet.size()];
            used.insert(code);
            text += utf8(code);
        }
        const Tokenizer tokenizer = Tokenizer::characters_of(text, "text");
        CHECK(tokenizer.vocab_size() == static_cast<std::int64_t>(used.size()));
        const std::vector<std::int32_t> ids = tokenizer.encode(text, "text");
        CHECK(tokenizer.decode(ids) == text);

        const Tokenizer copy = Tokenizer::from_parts(tokenizer.kind(), tokenizer.vocab_size(), tokenizer.vocabulary());
        CHECK(copy.encode(text, "text") == ids);
        const TokenArray compact = tokenizer.encode_compact(text, "text");
        REQUIRE(compact.view().size() == static_cast<std::int64_t>(ids.size()));
        for (std::size_t i = 0; i < ids.size(); ++i)
            CHECK(compact.view()[static_cast<std::int64_t>(i)] == ids[i]);
    }
}

TEST_CASE("bytes are their own ids") {
    std::string text;
    for (int i = 255; i >= 0; --i)
        text.push_back(static_cast<char>(i));
    const Tokenizer tokenizer = Tokenizer::bytes();
    const std::vector<std::int32_t> ids = tokenizer.encode(text, "");
    REQUIRE(ids.size() == 256);
    for (int i = 0; i < 256; ++i)
        CHECK(ids[static_cast<std::size_t>(i)] == 255 - i);
    CHECK(tokenizer.decode(ids) == text);
    CHECK(Tokenizer::from_parts(Tokenizer::Kind::byte, 256, {}).encode(text, "") == ids);
}

TEST_CASE("ids without text are written as numbers") {
    const Tokenizer tokenizer = Tokenizer::ids(50257);
    const std::vector<std::int32_t> ids{0, 50256, 7};
    CHECK(tokenizer.decode(ids) == "0 50256 7");
    CHECK(tokenizer.encode(" 0\n50256\t7", "") == ids);
    CHECK(tokenizer.encode(tokenizer.decode(ids), "") == ids);
    CHECK(tokenizer.encode("", "").empty());
    for (const std::string bad : {"x", "50257", "-1", "1.5", "7x", "99999999999"})
        CHECK(contains(message_of([&] { tokenizer.encode("3 " + bad + " 4", "prompt"); }),
                       "prompt: \"" + bad + "\" is not a token id"));
}

TEST_CASE("what is not UTF-8 is found at its byte") {
    const std::vector<std::string> bad{"\xff",
                                       "\x80",
                                       "\xc0\x80",
                                       "\xc1\xbf",
                                       "\xc3",
                                       "\xc3(",
                                       "\xe0\x9f\xbf",
                                       "\xed\xa0\x80",
                                       "\xe2\x82",
                                       "\xf0\x8f\xbf\xbf",
                                       "\xe2(\xa1",
                                       "\xf4\x90\x80\x80",
                                       "\xf5\x80\x80\x80",
                                       "\xf0\x9f\x9b"};
    for (const std::string& bytes : bad) {
        for (const std::string after : {"", "abcd"}) {
            const std::string message =
                message_of([&] { Tokenizer::characters_of("caf\xc3\xa9 " + bytes + after, "notes.txt"); });
            CHECK(contains(message, "notes.txt: not UTF-8 at byte offset 6 (0x"));
            CHECK(contains(message, "\"byte\""));
        }
    }
    CHECK(contains(message_of([] { Tokenizer::characters_of("a", "").encode("a\xff", "prompt"); }),
                   "prompt: not UTF-8 at byte offset 1 (0xff)"));
}

TEST_CASE("a character that the vocabulary lacks is named, placed and answered with a suggestion") {
    const Tokenizer tokenizer = Tokenizer::characters_of("abc\xc3\xa9", "text");
    CHECK(message_of([&] {
              tokenizer.encode("\xc3\xa9"
                               "bB",
                               "prompt");
          }) == "prompt: the vocabulary lacks 'B' (U+0042), character 3 of the text; it has 'b' (U+0062)");
    CHECK(message_of([&] { tokenizer.encode("ab\xe2\x82\xac", ""); }) ==
          "the vocabulary lacks '\xe2\x82\xac' (U+20AC), character 3 of the text; expected one of its 4 characters");
    CHECK(contains(message_of([&] { tokenizer.encode("a\nb", ""); }), "lacks U+000A, character 2"));
}

TEST_CASE("a vocabulary is one distinct character an entry") {
    const std::vector<std::string> good{"b", "\xc3\xa9", "a"};
    CHECK(Tokenizer::characters(good).encode("a\xc3\xa9"
                                             "b",
                                             "") == std::vector<std::int32_t>{2, 1, 0});
    const auto message = [](std::vector<std::string> entries) {
        return message_of([&] { Tokenizer::characters(entries); });
    };
    CHECK(contains(message({"a", "bc"}), "entry 1 is \"bc\""));
    CHECK(contains(message({"", "b"}), "entry 0"));
    CHECK(contains(message({"a", "\xff"}), "entry 1"));
    CHECK(contains(message({"a", "b", "a"}), "entries 0 and 2 are both 'a'"));
}

TEST_CASE("decoding never fails") {
    const std::vector<std::int32_t> ids{-1, 0, 3, 1000000};
    CHECK(Tokenizer::characters_of("abc", "").decode(ids) == "\xef\xbf\xbd"
                                                             "a"
                                                             "\xef\xbf\xbd"
                                                             "\xef\xbf\xbd");
}
