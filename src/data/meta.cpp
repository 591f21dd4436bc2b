#include "ballast/data/meta.h"

#include <limits>
#include <nlohmann/json.hpp> // an exception to the layer rules: meta.json belongs to the token files, not to the config
#include <optional>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/base/text.h"

namespace ballast {

namespace {

using Json = nlohmann::json;

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
    throw DataError(path.string() + ": " + what);
}

/// itos["7"] of an object, itos[7] of an array; null when there is none.
const Json* entry(const Json& itos, std::size_t id) {
    if (itos.is_array()) return &itos[id];
    const auto found = itos.find(std::to_string(id));
    return found == itos.end() ? nullptr : &*found;
}

/// A value for a message. What is nested is not written out: that would take a stack as deep as its nesting.
std::string shown(const Json& value) {
    if (value.is_structured()) return value.is_array() ? "an array" : "an object";
    return printable(value.dump(-1, ' ', true, Json::error_handler_t::replace), 60);
}

} // namespace

BinMeta read_bin_meta(const std::filesystem::path& path) {
    BinMeta meta;
    if (!std::filesystem::exists(path)) return meta;
    const std::string text = read_file(path);
    // The parser takes a NUL for the end of its input and would ignore what follows.
    const Json json = text.find('\0') == std::string::npos ? Json::parse(text, nullptr, false) : Json();
    if (!json.is_object()) fail(path, "not a JSON object; expected {\"vocab_size\": 65, \"itos\": [\"\\n\", …]}");

    if (const auto size = json.find("vocab_size"); size != json.end()) {
        const bool whole = size->is_number_integer() && *size > 0 && *size <= std::numeric_limits<std::int32_t>::max();
        if (!whole) fail(path, "vocab_size is " + shown(*size) + "; expected a positive integer");
        meta.vocab_size = size->get<std::int64_t>();
    }
    if (const auto itos = json.find("itos"); itos != json.end()) {
        if (!itos->is_array() && !itos->is_object())
            fail(path, "itos is not a list; expected one character for each id, in order");
        for (std::size_t id = 0; id < itos->size(); ++id) {
            const Json* const text = entry(*itos, id);
            if (text == nullptr || !text->is_string())
                fail(path, "itos has no text for id " + std::to_string(id) + "; expected one character for each id");
            meta.itos.push_back(text->get<std::string>());
        }
        const auto count = static_cast<std::int64_t>(meta.itos.size());
        if (meta.vocab_size == 0) meta.vocab_size = count;
        if (count > meta.vocab_size)
            fail(path, "itos has " + std::to_string(count) + " entries; expected at most vocab_size, " +
                           std::to_string(meta.vocab_size));
    }
    return meta;
}

} // namespace ballast
