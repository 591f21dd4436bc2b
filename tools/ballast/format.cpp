#include "format.h"

#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <vector>

std::string format(const char* pattern, ...) {
    std::va_list arguments;
    va_start(arguments, pattern);
    std::va_list again;
    va_copy(again, arguments);
    const int size = std::vsnprintf(nullptr, 0, pattern, arguments);
    va_end(arguments);
    std::vector<char> text(static_cast<std::size_t>(size) + 1);
    std::vsnprintf(text.data(), text.size(), pattern, again);
    va_end(again);
    return {text.data(), static_cast<std::size_t>(size)};
}

double unsigned_nan(double value) { return std::isnan(value) ? std::abs(value) : value; }

std::string four_digits(double value) {
    constexpr double kLarge = 1e6;
    return std::abs(value) < kLarge ? format("%.4f", value) : format("%.4e", unsigned_nan(value));
}

std::string with_spread(double value, std::optional<double> spread, std::string (*text)(double)) {
    return text(value) + (spread ? " ± " + text(*spread) : "");
}

std::string plural(std::int64_t count, const std::string& word) {
    return grouped(count) + " " + word + (count == 1 ? "" : "s");
}

std::string grouped(std::int64_t value) {
    std::string text = std::to_string(value);
    const std::size_t first = value < 0 ? 1 : 0;
    for (std::size_t i = text.size(); i > first + 3;) {
        i -= 3;
        text.insert(i, 1, ',');
    }
    return text;
}

std::string short_count(double value) {
    constexpr std::array kSuffixes = {"", "k", "M", "G", "T", "P"};
    std::size_t i = 0;
    // 999.5 would be rounded to four digits.
    while (std::abs(value) >= 999.5 && i + 1 < kSuffixes.size()) {
        value /= 1000;
        ++i;
    }
    const int digits = i == 0 || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
    return format("%.*f%s", digits, value, kSuffixes[i]);
}

std::string duration(double seconds) {
    if (!(seconds >= 0) || std::isinf(seconds)) return "?";
    if (seconds < 0.9995) return format("%.0f ms", 1000 * seconds);
    if (seconds < 59.95) return format("%.1f s", seconds);
    const auto whole = static_cast<long long>(std::llround(std::min(seconds, 1e15)));
    if (whole < 3600) return format("%lldm %02llds", whole / 60, whole % 60);
    if (whole < 86400) return format("%lldh %02lldm", whole / 3600, whole % 3600 / 60);
    return format("%lldd %02lldh", whole / 86400, whole % 86400 / 3600);
}

std::string shell_word(const std::string& text) {
    constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./+=:,@%";
    if (!text.empty() && text.find_first_not_of(kPlain) == std::string::npos) return text;
    std::string word = "'";
    for (const char c : text) {
        if (c == '\'')
            word += "'\\''";
        else
            word += c;
    }
    return word + "'";
}

std::size_t columns_of(std::string_view text) {
    std::size_t columns = 0;
    for (const char c : text)
        if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) ++columns;
    return columns;
}
