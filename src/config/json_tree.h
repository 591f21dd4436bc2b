#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// JSON text as a tree that remembers lines and keeps duplicate keys, so that mistakes can be reported where they stand.

namespace ballast::config_io {

/// Deeper nesting is refused; also the bound of every recursion over a tree.
constexpr int kMaxDepth = 64;

struct JsonMember;

struct JsonNode {
    struct Null {};
    struct Number {
        double value = 0;
        std::string source; ///< as written
    };
    enum class Kind { scalar, array, object };

    Kind kind = Kind::scalar;
    int line = 0; ///< 1-based, where the value starts
    std::variant<Null, bool, std::int64_t, std::uint64_t, Number, std::string> scalar; ///< uint64 only when >= 0
    std::vector<JsonNode> items;                                                       ///< of an array
    std::vector<JsonMember> members; ///< of an object, in the order of the file, duplicates included
};

struct JsonMember {
    std::string key;
    int line = 0;
    JsonNode value;
};

/// Where and why a text is not JSON.
struct JsonMistake {
    int line = 0;
    std::string message; ///< "what is wrong; what was expected"
};

struct JsonDocument {
    JsonNode root;
    std::optional<JsonMistake> mistake; ///< when set, `root` means nothing
};

/// Reads one JSON value; `comments` allows /* */ and //.
JsonDocument parse_json(std::string_view text, bool comments);

/// A key's path, as in "model.width"; an empty section is the whole file.
std::string join_path(std::string_view section, std::string_view key);

/// How messages quote a value: the value itself when short, otherwise what it is.
std::string describe(const JsonNode& node);

} // namespace ballast::config_io
