#pragma once

#include "ballast/config/config.h"

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

// The key lists of config.h as plain data: the only templated part of reading, checking, writing and describing.

namespace ballast::config_io {

/// An enumerator by its place among Field::labels.
struct Choice {
    std::size_t index = 0;
    bool operator==(const Choice&) const = default;
};

/// Slots stand for a Choice where the key takes a placement.
using Value =
    std::variant<bool, std::int64_t, std::uint64_t, double, std::string, std::array<double, 2>, Choice, Slots>;

struct Label {
    std::string_view name;
    std::string_view doc;
};

struct Field;

/// How to get at a list of sections.
struct ListAccess {
    std::function<std::size_t(const Config&)> size;
    std::function<void(Config&, std::size_t)> resize; ///< new items have their defaults
    std::function<Field(std::size_t)> item;           ///< a section with a path such as "model.norm.layers[0]"
};

/// A key: a value, a section of further keys, or a list of sections.
struct Field {
    std::string path; ///< such as "model.ffn.width"; empty for the whole config
    std::string_view name;
    std::string_view doc;
    Rule rule;
    std::vector<Label> labels;                      ///< of an enum
    bool takes_slots = false;                       ///< an enum that is a placement
    std::vector<Field> fields;                      ///< of a section
    ListAccess list;                                ///< of a list
    Value initial;                                  ///< of a value: its default
    std::function<Value(const Config&)> get;        ///< of a value
    std::function<void(Config&, const Value&)> set; ///< of a value; takes what `get` may return

    bool is_section() const { return !get && !is_list(); }
    bool is_list() const { return list.size != nullptr; }
    std::vector<std::string_view> label_names() const;
    std::vector<std::string_view> key_names() const;
};

/// The whole config as a section.
Field config_fields();

/// The key of a section, or null.
const Field* find_key(const Field& section, std::string_view name);

/// The key at a dotted path, or null; the root itself for the empty path.
const Field* find_path(const Field& root, std::string_view path);

/// The values and lists of a section, without the sections themselves, in the order of declaration.
std::vector<const Field*> leaves(const Field& section);

/// What the key takes, for "expected ...": "an integer from 1 to 10000".
std::string expectation(const Field& field);

/// The interval that a rule allows: "from 1 to 100", "of at least 0 and below 1"; empty when there is no limit.
std::string range_text(const Rule& rule);

/// Whether a value of the right type keeps to the key's rule.
bool keeps_rule(const Field& field, const Value& value);

/// The value as JSON.
std::string value_json(const Field& field, const Value& value);

/// What the config has for a key as JSON in one line.
std::string field_json(const Field& field, const Config& config);

} // namespace ballast::config_io
