#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "ballast/base/error.h"

// Structs that list their members in a table of {name, member pointer, …}, to JSON and back. Templates over the JSON
// type, so that only the .cpp files that need the JSON library include it.

namespace ballast {

/// How JSON, which has no such numbers, spells a number that is not finite.
inline std::string_view non_finite_name(double value) {
    if (std::isnan(value)) return "NaN";
    return value > 0 ? "Infinity" : "-Infinity";
}

template <class Json, class Value>
Json json_value(const Value& value) {
    if constexpr (std::is_same_v<Value, double>) {
        if (!std::isfinite(value)) return std::string(non_finite_name(value));
    }
    return value;
}

template <class Json, class Value>
Json json_value(const std::vector<Value>& values) {
    Json array = Json::array();
    for (const Value& value : values)
        array.push_back(json_value<Json>(value));
    return array;
}

/// Adds each member in `fields` to `out`, in their order; an optional one only when it is set.
template <class Json, class Owner, class Fields>
void write_fields(Json& out, const Owner& owner, const Fields& fields) {
    for (const auto& field : fields) {
        std::visit(
            [&](auto member) {
                const auto& value = owner.*member;
                if constexpr (requires { value.has_value(); }) {
                    if (value) out[std::string(field.name)] = json_value<Json>(*value);
                } else {
                    out[std::string(field.name)] = json_value<Json>(value);
                }
            },
            field.member);
    }
}

[[noreturn]] inline void refuse_value(std::string_view name, std::string_view expected) {
    throw IoError("key '" + std::string(name) + "': expected " + std::string(expected));
}

template <class Json>
void read_value(const Json& json, std::string_view name, std::int64_t& value) {
    const bool fits = json.is_number_integer() &&
                      !(json.is_number_unsigned() &&
                        json.template get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()});
    if (!fits) refuse_value(name, "an integer");
    value = json.template get<std::int64_t>();
}

template <class Json>
void read_value(const Json& json, std::string_view name, double& value) {
    if (json.is_number()) {
        value = json.template get<double>();
        return;
    }
    if (json.is_string()) {
        const auto& text = json.template get_ref<const std::string&>();
        for (const double special : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                                     -std::numeric_limits<double>::infinity()}) {
            if (text != non_finite_name(special)) continue;
            value = special;
            return;
        }
    }
    refuse_value(name, "a number");
}

template <class Json>
void read_value(const Json& json, std::string_view name, std::string& value) {
    if (!json.is_string()) refuse_value(name, "a string");
    value = json.template get<std::string>();
}

template <class Json, class Value>
void read_value(const Json& json, std::string_view name, std::optional<Value>& value) {
    read_value(json, name, value.emplace());
}

template <class Json, class Value>
void read_value(const Json& json, std::string_view name, std::vector<Value>& values) {
    if (!json.is_array()) refuse_value(name, "an array");
    values.clear();
    for (const Json& item : json)
        read_value(item, name, values.emplace_back());
}

/// The member `name` of an object. Throws IoError when it is missing.
template <class Json>
const Json& member_of(const Json& object, std::string_view name) {
    const auto found = object.find(std::string(name));
    if (found == object.end()) throw IoError("key '" + std::string(name) + "' is missing");
    return *found;
}

enum class Missing {
    refused, ///< every member that is not optional must be there
    allowed, ///< numbers that are missing become NaN, other members keep their value: a file of another version
};

/// Sets each member in `fields` from the object `in`. Throws IoError, naming the key.
template <class Json, class Owner, class Fields>
void read_fields(const Json& in, Owner& owner, const Fields& fields, Missing missing) {
    for (const auto& field : fields) {
        std::visit(
            [&](auto member) {
                auto& value = owner.*member;
                constexpr bool is_optional = requires { value.has_value(); };
                const auto found = in.find(std::string(field.name));
                if (found != in.end()) {
                    read_value(*found, field.name, value);
                } else if constexpr (!is_optional) {
                    if (missing == Missing::refused) throw IoError("key '" + std::string(field.name) + "' is missing");
                    if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, double>)
                        value = std::numeric_limits<double>::quiet_NaN();
                }
            },
            field.member);
    }
}

/// The JSON object that is all of `text`. Throws IoError when it is none.
template <class Json>
Json parse_object(std::string_view text) {
    // The parser takes a NUL for the end of its input and would ignore what follows.
    if (text.find('\0') == std::string_view::npos) {
        Json object = Json::parse(text, nullptr, false);
        if (object.is_object()) return object;
    }
    throw IoError("not a JSON object");
}

/// One line without a line break. Bytes that are not UTF-8 are replaced.
template <class Json>
std::string one_line(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// A name from a file, quoted and safe to print.
template <class Json>
std::string quoted_name(const std::string& name) {
    return Json(name).dump(-1, ' ', true, Json::error_handler_t::replace);
}

} // namespace ballast
