#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>

// "Say a config key once": a struct lists each key in two adjacent lines, the member with its default and the sentence
// that documents it, with its limits. Reading, checking, writing, the JSON schema, the reference page, `--set` and
// diffs all walk this list (src/config/fields.h), so no key can be known to one of them and not to another.
//
//     struct LossConfig {
//         BALLAST_KEYS_BEGIN(LossConfig);
//         double z_loss = 0;
//         BALLAST_KEY(z_loss, "Weight of the squared log partition function.", at_least(0));
//         BALLAST_KEYS_END;
//     };
//
// The struct stays an aggregate: a key is a static function, overloaded on the line that it stands in, and the walk
// tries each line between BEGIN and END. A key's name in JSON is its member's name.

namespace ballast {

/// What a value must keep to beyond its type. Numbers: an interval, for an array one that each element keeps to.
struct Rule {
    enum class Text { any, file_name, path };

    double min = -std::numeric_limits<double>::infinity();
    double max = std::numeric_limits<double>::infinity();
    bool open_min = false; ///< `min` itself is not allowed
    bool open_max = false; ///< `max` itself is not allowed
    Text text = Text::any; ///< file_name: usable as a directory's name; path: relative to the file it stands in

    constexpr Rule at_most(double limit) const {
        Rule rule = *this;
        rule.max = limit;
        rule.open_max = false;
        return rule;
    }
    constexpr Rule below(double limit) const {
        Rule rule = at_most(limit);
        rule.open_max = true;
        return rule;
    }
    constexpr bool contains(double value) const {
        return (open_min ? value > min : value >= min) && (open_max ? value < max : value <= max);
    }
};

constexpr Rule at_least(double limit) {
    Rule rule;
    rule.min = limit;
    return rule;
}
constexpr Rule above(double limit) {
    Rule rule = at_least(limit);
    rule.open_min = true;
    return rule;
}
constexpr Rule between(double low, double high) { return at_least(low).at_most(high); }
constexpr Rule usable_as_file_name() {
    Rule rule;
    rule.text = Rule::Text::file_name;
    return rule;
}
constexpr Rule path_from_this_file() {
    Rule rule;
    rule.text = Rule::Text::path;
    return rule;
}

/// One key of struct `Owner`.
template <class Owner, class Member>
struct Key {
    std::string_view name;
    Member Owner::*member;
    std::string_view doc;
    Rule rule;
};

template <class Owner, class Member>
constexpr Key<Owner, Member> make_key(std::string_view name, Member Owner::*member, std::string_view doc,
                                      Rule rule = {}) {
    return {name, member, doc, rule};
}

#define BALLAST_KEYS_BEGIN(Struct)                                                                                     \
    using Self = Struct;                                                                                               \
    friend bool operator==(const Struct&, const Struct&) = default;                                                    \
    static constexpr int kFirstKeyLine = __LINE__

/// BALLAST_KEY(member, "One sentence.", rule): the rule may be left out.
#define BALLAST_KEY(member_, ...)                                                                                      \
    static constexpr auto key_at(std::integral_constant<int, __LINE__>) {                                              \
        return ::ballast::make_key(#member_, &Self::member_, __VA_ARGS__);                                             \
    }                                                                                                                  \
    static_assert(true)

#define BALLAST_KEYS_END static constexpr int kLastKeyLine = __LINE__

/// A struct that lists its keys.
template <class T>
concept HasKeys = requires {
    T::kFirstKeyLine;
    T::kLastKeyLine;
};

namespace detail {
template <class T, int line, class F>
constexpr void visit_key_line(F& f) {
    if constexpr (requires { T::key_at(std::integral_constant<int, line>{}); }) {
        f(T::key_at(std::integral_constant<int, line>{}));
    }
}
} // namespace detail

/// Calls f(Key<T, Member>) for each key of T, in the order of declaration.
template <HasKeys T, class F>
constexpr void for_each_key(F&& f) {
    [&f]<int... offset>(std::integer_sequence<int, offset...>) {
        (detail::visit_key_line<T, T::kFirstKeyLine + offset>(f), ...);
    }
    (std::make_integer_sequence<int, T::kLastKeyLine - T::kFirstKeyLine>{});
}

/// An enumerator's spelling in JSON and what it means (empty where the key says it). Each config enum has, next to it,
/// a function `constexpr auto values_of(E)` that returns an array of these, in the order of the enumerators.
template <class E>
struct EnumValue {
    E value;
    std::string_view name;
    std::string_view doc;
};

template <class E>
concept ConfigEnum = std::is_enum_v<E> && requires(E e) {
    values_of(e).size();
};

/// The enumerator's spelling in JSON.
template <ConfigEnum E>
constexpr std::string_view to_string(E value) {
    for (const auto& entry : values_of(value)) {
        if (entry.value == value) {
            return entry.name;
        }
    }
    return "?";
}

/// Sets `value` to the enumerator spelled `name`; false, and no change, when there is none.
template <ConfigEnum E>
constexpr bool from_string(std::string_view name, E& value) {
    for (const auto& entry : values_of(value)) {
        if (entry.name == name) {
            value = entry.value;
            return true;
        }
    }
    return false;
}

} // namespace ballast
