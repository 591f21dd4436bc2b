#include "ballast/data/tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "ballast/base/error.h"
#include "ballast/base/text.h"

namespace ballast {

namespace {

constexpr char32_t kCodePoints = 0x110000;
constexpr char32_t kInvalid = kCodePoints;
constexpr std::size_t kShown = 40; ///< bytes of a piece of text in a message

struct Decoded {
    char32_t code = kInvalid;
    std::size_t bytes = 1;
};

/// The code point at `position`, or kInvalid where the bytes are not the shortest encoding of one (RFC 3629).
Decoded decode_utf8(std::string_view text, std::size_t position) {
    const auto byte = [&](std::size_t i) -> char32_t { return static_cast<unsigned char>(text[position + i]); };
    const char32_t first = byte(0);
    if (first < 0x80) return {first, 1};
    const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || position + length > text.size()) return {};
    char32_t code = first & (0xffU >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if ((byte(i) & 0xc0U) != 0x80) return {};
        code = (code << 6U) | (byte(i) & 0x3fU);
    }
    constexpr std::array<char32_t, 5> kSmallest{0, 0, 0x80, 0x800, 0x10000};
    if (code < kSmallest[length] || code >= kCodePoints || (code >= 0xd800 && code < 0xe000)) return {};
    return {code, length};
}

void append_utf8(std::string& out, char32_t code) {
    const auto push = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        push(code);
    } else if (code < 0x800) {
        push(0xc0U | (code >> 6U));
        push(0x80U | (code & 0x3fU));
    } else if (code < 0x10000) {
        push(0xe0U | (code >> 12U));
        push(0x80U | ((code >> 6U) & 0x3fU));
        push(0x80U | (code & 0x3fU));
    } else {
        push(0xf0U | (code >> 18U));
        push(0x80U | ((code >> 12U) & 0x3fU));
        push(0x80U | ((code >> 6U) & 0x3fU));
        push(0x80U | (code & 0x3fU));
    }
}

std::string to_utf8(char32_t code) {
    std::string out;
    append_utf8(out, code);
    return out;
}

/// 'é' (U+00E9); without the quotes' content for what a terminal would not show.
std::string describe(char32_t code) {
    std::array<char, 16> number{};
    std::snprintf(number.data(), number.size(), "U+%04X", static_cast<unsigned>(code));
    const bool control = code < 0x20 || (code >= 0x7f && code < 0xa0);
    // printable() also turns what would reverse the direction of the text around it into an escape.
    return control ? std::string(number.data()) : "'" + printable(to_utf8(code)) + "' (" + number.data() + ")";
}

std::string prefix(std::string_view source) { return source.empty() ? "" : std::string(source) + ": "; }

[[noreturn]] void fail_utf8(std::string_view text, std::size_t position, std::string_view source) {
    std::array<char, 8> byte{};
    const unsigned value = static_cast<unsigned char>(text[position]);
    std::snprintf(byte.data(), byte.size(), "0x%02x", value);
    throw DataError(prefix(source) + "not UTF-8 at byte offset " + std::to_string(position) + " (" + byte.data() +
                    "); expected UTF-8 text, or the tokenizer kind \"byte\", which takes any bytes");
}

template <class Visit>
void for_each_code_point(std::string_view text, std::string_view source, Visit&& visit) {
    for (std::size_t position = 0; position < text.size();) {
        const Decoded decoded = decode_utf8(text, position);
        if (decoded.code == kInvalid) fail_utf8(text, position, source);
        visit(decoded.code);
        position += decoded.bytes;
    }
}

char32_t other_case(char32_t code) {
    const char32_t lower = code | 0x20U;
    return lower >= U'a' && lower <= U'z' ? code ^ 0x20U : kInvalid;
}

} // namespace

Tokenizer Tokenizer::characters_of(std::string_view text, std::string_view source) {
    std::vector<bool> seen(kCodePoints);
    for_each_code_point(text, source, [&](char32_t code) { seen[code] = true; });
    std::vector<std::string> vocabulary;
    for (char32_t code = 0; code < kCodePoints; ++code)
        if (seen[code]) vocabulary.push_back(to_utf8(code));
    return characters(vocabulary);
}

Tokenizer Tokenizer::characters(std::span<const std::string> vocabulary) {
    Tokenizer tokenizer(Kind::character, static_cast<std::int64_t>(vocabulary.size()));
    for (const std::string& entry : vocabulary) {
        const auto id = static_cast<std::int32_t>(tokenizer.characters_.size());
        const Decoded decoded = entry.empty() ? Decoded{} : decode_utf8(entry, 0);
        if (decoded.code == kInvalid || decoded.bytes != entry.size())
            throw DataError("vocabulary entry " + std::to_string(id) + " is \"" + printable(entry, kShown) +
                            "\"; expected one character of UTF-8 text each");
        tokenizer.id_of_.resize(std::max<std::size_t>(tokenizer.id_of_.size(), decoded.code + 1), -1);
        if (tokenizer.id_of_[decoded.code] >= 0)
            throw DataError("vocabulary entries " + std::to_string(tokenizer.id_of_[decoded.code]) + " and " +
                            std::to_string(id) + " are both " + describe(decoded.code) + "; expected each once");
        tokenizer.id_of_[decoded.code] = id;
        tokenizer.characters_.push_back(decoded.code);
    }
    return tokenizer;
}

Tokenizer Tokenizer::bytes() { return {Kind::byte, 256}; }

Tokenizer Tokenizer::ids(std::int64_t vocab_size) { return {Kind::ids, vocab_size}; }

Tokenizer Tokenizer::from_parts(Kind kind, std::int64_t vocab_size, std::span<const std::string> vocabulary) {
    switch (kind) {
    case Kind::character: return characters(vocabulary);
    case Kind::byte: return bytes();
    case Kind::ids: break;
    }
    return ids(vocab_size);
}

std::vector<std::string> Tokenizer::vocabulary() const {
    std::vector<std::string> out;
    for (const char32_t code : characters_)
        out.push_back(to_utf8(code));
    return out;
}

template <class Sink>
void Tokenizer::encode_each(std::string_view text, std::string_view source, Sink&& sink) const {
    if (kind_ == Kind::byte) {
        for (const char c : text)
            sink(static_cast<std::int32_t>(static_cast<unsigned char>(c)));
    } else if (kind_ == Kind::character) {
        const auto id_of = [&](char32_t code) { return code < id_of_.size() ? id_of_[code] : -1; };
        std::int64_t position = 0;
        for_each_code_point(text, source, [&](char32_t code) {
            ++position;
            const std::int32_t id = id_of(code);
            if (id < 0)
                throw DataError(prefix(source) + "the vocabulary lacks " + describe(code) + ", character " +
                                std::to_string(position) + " of the text; " +
                                (id_of(other_case(code)) >= 0
                                     ? "it has " + describe(other_case(code))
                                     : "expected one of its " + std::to_string(vocab_size_) + " characters"));
            sink(id);
        });
    } else {
        constexpr std::string_view kBlanks = " \t\r\n";
        for (std::size_t begin = 0; (begin = text.find_first_not_of(kBlanks, begin)) != std::string_view::npos;) {
            const std::size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
            std::int32_t id = -1;
            const auto parsed = std::from_chars(text.data() + begin, text.data() + end, id);
            if (parsed.ec != std::errc() || parsed.ptr != text.data() + end || id < 0 || id >= vocab_size_)
                throw DataError(prefix(source) + "\"" + printable(text.substr(begin, end - begin), kShown) +
                                "\" is not a token id; this data has no characters, only ids from 0 to " +
                                std::to_string(vocab_size_ - 1) + ", written with spaces between them");
            sink(id);
            begin = end;
        }
    }
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text, std::string_view source) const {
    std::vector<std::int32_t> ids;
    ids.reserve(text.size());
    encode_each(text, source, [&](std::int32_t id) { ids.push_back(id); });
    return ids;
}

TokenArray Tokenizer::encode_compact(std::string_view text, std::string_view source) const {
    TokenArray ids(vocab_size_);
    ids.reserve(text.size());
    encode_each(text, source, [&](std::int32_t id) { ids.push_back(id); });
    return ids;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
    constexpr char32_t kReplacement = 0xfffd;
    std::string text;
    for (const std::int32_t id : ids) {
        const bool known = id >= 0 && id < vocab_size_;
        if (!known)
            append_utf8(text, kReplacement);
        else if (kind_ == Kind::character)
            append_utf8(text, characters_[static_cast<std::size_t>(id)]);
        else if (kind_ == Kind::byte)
            text.push_back(static_cast<char>(id));
        else
            text += (text.empty() ? "" : " ") + std::to_string(id);
    }
    return text;
}

} // namespace ballast
