#include "json_tree.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>
#include <iterator>
#include <utility>

#include <nlohmann/json.hpp>

#include "ballast/base/text.h"

namespace ballast::config_io {

namespace {

constexpr std::string_view kBlanks = " \t\r\n";

/// How far the parser has read. nlohmann/json 3.11 gives values no positions, but hands each one over before it reads
/// on, so the last byte read that is not blank belongs to that value (or is the comma or brace right behind a number).
class Progress {
public:
    explicit Progress(std::string_view text) : text_(text), line_start_(text.data()), read_(text.data()) {}

    void reached(const char* position) { read_ = position; }

    int line() {
        const char* end = read_;
        while (end > text_.data() && kBlanks.find(end[-1]) != std::string_view::npos)
            --end;
        if (end > line_start_) {
            line_ += static_cast<int>(std::count(line_start_, end, '\n'));
            line_start_ = end;
        }
        return line_;
    }

private:
    std::string_view text_;
    const char* line_start_; ///< the newlines before it are counted in line_
    const char* read_;
    int line_ = 1;
};

/// A character iterator that tells a Progress how far it got.
class TrackedIterator {
public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    TrackedIterator(const char* position, Progress* progress) : position_(position), progress_(progress) {}

    reference operator*() const { return *position_; }
    TrackedIterator& operator++() {
        progress_->reached(++position_);
        return *this;
    }
    TrackedIterator operator++(int) {
        TrackedIterator before = *this;
        ++*this;
        return before;
    }
    bool operator==(const TrackedIterator& other) const { return position_ == other.position_; }
    bool operator!=(const TrackedIterator& other) const { return position_ != other.position_; }

private:
    const char* position_;
    Progress* progress_;
};

bool is_word(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || std::string_view("_.+-").find(c) != std::string_view::npos;
}

/// The word (number or bare name) that `offset` is in or right behind.
std::string_view word_at(std::string_view text, std::size_t offset) {
    std::size_t begin = std::min(offset, text.size());
    while (begin > 0 && begin <= text.size() && is_word(text[begin - 1]))
        --begin;
    std::size_t end = std::min(offset, text.size());
    while (end < text.size() && is_word(text[end]))
        ++end;
    return text.substr(begin, end - begin);
}

bool is_one_of(std::string_view word, std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

std::string lower_case(std::string_view text) {
    std::string out(text);
    for (char& c : out)
        c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return out;
}

/// nlohmann's explanation without its prefix, its position and what it read: "unexpected '}'; expected string literal".
std::string parser_reason(std::string_view what) {
    const std::size_t dash = what.find(" - "), bracket = what.find("] ");
    if (dash != std::string_view::npos)
        what.remove_prefix(dash + 3);
    else if (bracket != std::string_view::npos)
        what.remove_prefix(bracket + 2);
    std::string reason(what);
    const std::size_t read = reason.find("; last read: '");
    if (read != std::string::npos) {
        const std::size_t expected = reason.rfind("'; expected ");
        reason.erase(read, expected == std::string::npos ? std::string::npos : expected + 1 - read);
    }
    return reason.find("; expected ") == std::string::npos ? reason + "; expected JSON" : reason;
}

/// Puts the common mistakes in plain words; the parser's own words for the rest. `position` counts the bytes read.
std::string explain_parse_error(std::string_view text, std::size_t position, const nlohmann::json::exception& error) {
    const std::size_t last = std::min(position > 0 ? position - 1 : 0, text.size());
    const char c = last < text.size() ? text[last] : '\0';
    const std::string_view word = word_at(text, last);
    const std::string lower = lower_case(word);
    const std::string shown = printable(word, 40);
    constexpr int kOutOfRange = 406;

    if (error.id == kOutOfRange) return "the number " + shown + " is too large; expected one below 1.8e308";
    if (is_one_of(lower, {"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})) {
        return shown + " is not a number in JSON; expected a finite number";
    }
    if (word != lower && is_one_of(lower, {"true", "false", "null"})) return shown + " is no JSON; expected " + lower;
    const std::string reason = parser_reason(error.what());
    if (reason.find("control character U+000A") != std::string::npos)
        return "a string goes beyond its line; expected a closing quote";
    if (c == '\'') return "a single quote; expected double quotes around keys and strings";
    const std::size_t previous = text.substr(0, last).find_last_not_of(kBlanks);
    if ((c == '}' || c == ']') && previous != std::string_view::npos && text[previous] == ',') {
        return std::string("a comma before ") + c + "; expected none after the last entry";
    }
    if (last < text.size() && reason.find("invalid literal") == 0) {
        const std::string_view what = word.empty() ? text.substr(last, 1) : word;
        return "`" + printable(what, 40) + "` is out of place; expected a value, with double quotes around text";
    }
    if (last >= text.size()) return "the text ends too early; expected closing quotes, brackets and braces";
    return printable(reason, 300);
}

class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
public:
    TreeBuilder(std::string_view text, Progress& progress) : text_(text), progress_(progress) {}

    bool null() override { return scalar(JsonNode::Null{}); }
    bool boolean(bool value) override { return scalar(value); }
    bool number_integer(std::int64_t value) override { return scalar(value); }
    bool number_unsigned(std::uint64_t value) override { return scalar(value); }
    bool number_float(double value, const std::string& source) override {
        return scalar(JsonNode::Number{value, source});
    }
    bool string(std::string& value) override { return scalar(std::move(value)); }
    bool binary(binary_t&) override { return false; } // no such value in a JSON text

    bool start_object(std::size_t) override { return open(JsonNode::Kind::object); }
    bool start_array(std::size_t) override { return open(JsonNode::Kind::array); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(std::string& name) override {
        open_.back().members.push_back({std::move(name), progress_.line(), {}});
        return true;
    }
    bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& error) override {
        const std::size_t last = std::min(position > 0 ? position - 1 : 0, text_.size());
        const std::string_view before = text_.substr(0, last);
        const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
        document_.mistake = {1 + static_cast<int>(std::count(before.begin(), before.end(), '\n')),
                             "is not JSON in column " + std::to_string(last - line_start + 1) + ": " +
                                 explain_parse_error(text_, position, error)};
        return false;
    }

    JsonDocument take() { return std::move(document_); }

private:
    template <class T>
    bool scalar(T&& value) {
        JsonNode node;
        node.line = progress_.line();
        node.scalar = std::forward<T>(value);
        return place(std::move(node));
    }

    bool open(JsonNode::Kind kind) {
        if (open_.size() == kMaxDepth) {
            document_.mistake = {progress_.line(),
                                 "is nested too deep; expected at most " + std::to_string(kMaxDepth) + " levels"};
            return false;
        }
        JsonNode node;
        node.kind = kind;
        node.line = progress_.line();
        open_.push_back(std::move(node));
        return true;
    }

    bool close() {
        JsonNode node = std::move(open_.back());
        open_.pop_back();
        return place(std::move(node));
    }

    bool place(JsonNode node) {
        if (open_.empty())
            document_.root = std::move(node);
        else if (open_.back().kind == JsonNode::Kind::array)
            open_.back().items.push_back(std::move(node));
        else
            open_.back().members.back().value = std::move(node);
        return true;
    }

    std::string_view text_;
    Progress& progress_;
    JsonDocument document_;
    std::vector<JsonNode> open_; ///< the arrays and objects around the current place
};

} // namespace

JsonDocument parse_json(std::string_view text, bool comments) {
    if (text.find_first_not_of(kBlanks) == std::string_view::npos) {
        return {{}, JsonMistake{0, "is empty; expected a JSON object, such as {\"data\": {\"path\": \"input.txt\"}}"}};
    }
    Progress progress(text);
    TreeBuilder builder(text, progress);
    const TrackedIterator begin(text.data(), &progress), end(text.data() + text.size(), &progress);
    nlohmann::json::sax_parse(begin, end, &builder, nlohmann::json::input_format_t::json, true, comments);
    return builder.take();
}

std::string join_path(std::string_view section, std::string_view key) {
    return section.empty() ? std::string(key) : std::string(section) + "." + std::string(key);
}

std::string describe(const JsonNode& node) {
    constexpr std::size_t kMaxShown = 60;
    constexpr std::size_t kMaxShownItems = 4;
    if (node.kind == JsonNode::Kind::array) {
        const auto is_scalar = [](const JsonNode& item) { return item.kind == JsonNode::Kind::scalar; };
        if (node.items.size() > kMaxShownItems || !std::all_of(node.items.begin(), node.items.end(), is_scalar))
            return "an array of " + std::to_string(node.items.size());
        std::string items;
        for (const JsonNode& item : node.items)
            items += (items.empty() ? "" : ", ") + describe(item);
        return "[" + items + "]";
    }
    if (node.kind == JsonNode::Kind::object) return "an object";
    struct Describe {
        std::string operator()(JsonNode::Null) const { return "null"; }
        std::string operator()(bool on) const { return on ? "true" : "false"; }
        std::string operator()(std::int64_t number) const { return std::to_string(number); }
        std::string operator()(std::uint64_t number) const { return std::to_string(number); }
        std::string operator()(const JsonNode::Number& number) const { return printable(number.source, kMaxShown); }
        std::string operator()(const std::string& text) const { return '"' + printable(text, kMaxShown) + '"'; }
    };
    return std::visit(Describe{}, node.scalar);
}

} // namespace ballast::config_io
