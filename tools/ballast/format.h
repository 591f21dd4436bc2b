#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// Numbers and words as people read them.

/// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

/// A NaN without the sign that printf would show, which says nothing; other values as they are.
double unsigned_nan(double value);

/// "4.0483"; of a million on, and of what diverged it may be 1e30, "1.0958e+30".
std::string four_digits(double value);
/// "4.0483 ± 0.0121"; the number alone where there is no spread.
std::string with_spread(double value, std::optional<double> spread, std::string (*text)(double) = four_digits);
/// "1,234,567".
std::string grouped(std::int64_t value);
/// "1 run", "1,234 runs".
std::string plural(std::int64_t count, const std::string& word);
/// Three digits and a suffix for thousands, millions, billions: "12.3k".
std::string short_count(double value);
/// "850 ms", "12.3 s", "2m 05s", "3h 20m", "4d 06h".
std::string duration(double seconds);

/// A word for a shell to read: in quotes where it needs them.
std::string shell_word(const std::string& text);

/// Columns of a terminal that `text` takes: its UTF-8 characters, all taken to be one column wide.
std::size_t columns_of(std::string_view text);
