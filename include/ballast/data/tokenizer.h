#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/data/tokens.h"

namespace ballast {

/// Text to token ids and back, as a value: what it is made of (kind, vocabulary size, vocabulary) is plain data that a
/// checkpoint can keep and from_parts() takes.
class Tokenizer {
public:
    enum class Kind : std::uint8_t {
        character, ///< one id for each Unicode code point of the training text, in code point order
        byte,      ///< 256 ids, any bytes
        ids,       ///< no text is known for the ids: text is the ids themselves, in decimal, separated by spaces
    };

    /// Kind character, with the code points that occur in `text`. Throws DataError where `text` is not valid UTF-8;
    /// `source` names it there.
    static Tokenizer characters_of(std::string_view text, std::string_view source);
    /// Kind character, with a given vocabulary: the id of a character is its index. Throws DataError unless each
    /// entry is one UTF-8 character and no two are equal.
    static Tokenizer characters(std::span<const std::string> vocabulary);
    static Tokenizer bytes();
    static Tokenizer ids(std::int64_t vocab_size);
    static Tokenizer from_parts(Kind kind, std::int64_t vocab_size, std::span<const std::string> vocabulary);

    Kind kind() const { return kind_; }
    std::int64_t vocab_size() const { return vocab_size_; }
    /// The text of each id in UTF-8; empty unless the kind is character.
    std::vector<std::string> vocabulary() const;

    /// Throws DataError, beginning with `source`, for a character that the vocabulary lacks or bytes that are not
    /// UTF-8 (kind character), and for what is not an id of the vocabulary (kind ids).
    std::vector<std::int32_t> encode(std::string_view text, std::string_view source) const;
    /// encode() into as few bytes an id as the vocabulary allows.
    TokenArray encode_compact(std::string_view text, std::string_view source) const;

    /// An id beyond the vocabulary, which a model with a padded output can produce, becomes U+FFFD.
    std::string decode(std::span<const std::int32_t> ids) const;

private:
    Tokenizer(Kind kind, std::int64_t vocab_size) : kind_(kind), vocab_size_(vocab_size) {}

    template <class Sink>
    void encode_each(std::string_view text, std::string_view source, Sink&& sink) const;

    Kind kind_;
    std::int64_t vocab_size_;
    std::u32string characters_;       ///< code point of each id
    std::vector<std::int32_t> id_of_; ///< id of each code point up to the largest, -1 where there is none
};

} // namespace ballast
