#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ballast {

/// `text` made safe to print on one line of a terminal: control characters, bidirectional overrides and bytes that are
/// not UTF-8 become escapes, and what goes beyond `max_bytes` becomes "...".
std::string printable(std::string_view text, std::size_t max_bytes = 4096);

bool is_utf8(std::string_view text);

/// `text` as a JSON string, with quotes. Must be UTF-8.
std::string quoted(std::string_view text);

/// 16 hexadecimal digits.
std::string hex_digits(std::uint64_t value);

/// The fewest digits that read back to the same bits; no exponent for numbers of everyday size.
std::string number_text(double value);

/// number_text, with ".0" where JSON readers would otherwise see an integer.
std::string json_number(double value);

/// "13 B", "1.5 KiB", "591.9 MiB".
std::string byte_size(double bytes);

/// "a", "a or b", "a, b or c".
std::string any_of(std::span<const std::string_view> words);

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`; letter case does not count.
std::size_t edit_distance(std::string_view a, std::string_view b);

/// Whether `typed` may be meant as `word`: a third of its letters may be wrong, one in a short word.
bool is_near(std::string_view typed, std::string_view word);

/// The candidate nearest to `typed` among those that are near; empty when there is none.
std::string_view nearest(std::string_view typed, std::span<const std::string_view> candidates);

} // namespace ballast
