#include "fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "ballast/base/text.h"

namespace ballast::config_io {

namespace {

template <class T>
Value to_value(const T& member) {
    if constexpr (std::is_enum_v<T>)
        return Choice{static_cast<std::size_t>(member)};
    else
        return member;
}

template <class T>
void assign(T& member, const Value& value) {
    if constexpr (std::is_enum_v<T>)
        member = static_cast<T>(std::get<Choice>(value).index);
    else
        member = std::get<T>(value);
}

/// Choice stores an enumerator as its place in the list.
template <ConfigEnum E>
constexpr bool listed_in_order() {
    std::size_t place = 0;
    for (const auto& entry : values_of(E{})) {
        if (static_cast<std::size_t>(entry.value) != place++) return false;
    }
    return true;
}

template <ConfigEnum E>
std::vector<Label> labels_of() {
    static_assert(listed_in_order<E>(), "values_of must list the enumerators in their order, from 0");
    std::vector<Label> labels;
    for (const auto& entry : values_of(E{}))
        labels.push_back({entry.name, entry.doc});
    return labels;
}

/// The keys of T, which `owner` finds in a Config.
template <class T, class Owner>
std::vector<Field> fields_of(const std::string& prefix, Owner owner) {
    std::vector<Field> fields;
    for_each_key<T>([&]<class M>(const Key<T, M>& key) {
        const auto member = [ owner, pointer = key.member ](auto& config) -> auto& { return owner(config).*pointer; };
        Field field{prefix + std::string(key.name), key.name, key.doc, key.rule, {}, {}, {}, {}};
        if constexpr (HasKeys<M>) {
            field.fields = fields_of<M>(field.path + ".", member);
        } else {
            if constexpr (ConfigEnum<M>) field.labels = labels_of<M>();
            field.get = [member](const Config& config) { return to_value(member(config)); };
            field.set = [member](Config& config, const Value& value) { assign(member(config), value); };
        }
        fields.push_back(std::move(field));
    });
    return fields;
}

void collect_leaves(const Field& section, std::vector<const Field*>& out) {
    for (const Field& field : section.fields) {
        if (field.is_section())
            collect_leaves(field, out);
        else
            out.push_back(&field);
    }
}

constexpr std::size_t kMaxFileName = 200; // file systems stop at 255, and suffixes are added

bool usable_as_file_name(std::string_view text) {
    const auto unusable = [](char c) { return c == '/' || c == 0x7F || static_cast<unsigned char>(c) < 0x20; };
    return !text.empty() && text.size() <= kMaxFileName && text.front() != '.' && text.front() != '-' &&
           std::none_of(text.begin(), text.end(), unusable);
}

} // namespace

std::vector<std::string_view> Field::label_names() const {
    std::vector<std::string_view> names;
    for (const Label& label : labels)
        names.push_back(label.name);
    return names;
}

std::vector<std::string_view> Field::key_names() const {
    std::vector<std::string_view> names;
    for (const Field& field : fields)
        names.push_back(field.name);
    return names;
}

Field config_fields() {
    Field root;
    root.fields = fields_of<Config>(
        "", [](auto& config) -> auto& { return config; });
    return root;
}

std::vector<const Field*> leaves(const Field& section) {
    std::vector<const Field*> out;
    collect_leaves(section, out);
    return out;
}

std::string range_text(const Rule& rule) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    const bool low = rule.min != -kInfinity, high = rule.max != kInfinity;
    if (low && high && !rule.open_min && !rule.open_max) {
        return "from " + number_text(rule.min) + " to " + number_text(rule.max);
    }
    std::string out;
    if (low) out = (rule.open_min ? "above " : "of at least ") + number_text(rule.min);
    if (low && high) out += " and ";
    if (high) out += (rule.open_max ? "below " : "of at most ") + number_text(rule.max);
    return out;
}

std::string expectation(const Field& field) {
    if (field.is_section()) return "an object with keys such as " + any_of(field.key_names());
    const std::string range = range_text(field.rule);
    const std::string limits = range.empty() ? "" : " " + range;
    struct Describe {
        const Field& field;
        const std::string& limits;
        std::string operator()(bool) const { return "true or false"; }
        std::string operator()(std::int64_t) const { return "an integer" + limits; }
        std::string operator()(std::uint64_t) const { return "an integer from 0 to 18446744073709551615"; }
        std::string operator()(double) const { return "a number" + limits; }
        std::string operator()(const std::array<double, 2>&) const { return "an array of 2 numbers, each" + limits; }
        std::string operator()(Choice) const { return any_of(field.label_names()); }
        std::string operator()(const std::string&) const {
            switch (field.rule.text) {
            case Rule::Text::file_name:
                return "a name for a directory: not empty, at most " + std::to_string(kMaxFileName) +
                       " bytes, no slash or control character, not starting with . or -";
            case Rule::Text::path: return "a path without control characters";
            case Rule::Text::any: break;
            }
            return "a string";
        }
    };
    return std::visit(Describe{field, limits}, field.get(Config{}));
}

bool keeps_rule(const Field& field, const Value& value) {
    struct Keeps {
        const Rule& rule;
        bool operator()(bool) const { return true; }
        bool operator()(std::int64_t number) const { return rule.contains(static_cast<double>(number)); }
        bool operator()(std::uint64_t number) const { return rule.contains(static_cast<double>(number)); }
        bool operator()(double number) const { return std::isfinite(number) && rule.contains(number); }
        bool operator()(const std::array<double, 2>& pair) const { return (*this)(pair[0]) && (*this)(pair[1]); }
        bool operator()(Choice) const { return true; }
        bool operator()(const std::string& text) const {
            if (!is_utf8(text)) return false;
            if (rule.text == Rule::Text::file_name) return usable_as_file_name(text);
            if (rule.text == Rule::Text::path) {
                return std::none_of(text.begin(), text.end(),
                                    [](char c) { return c == 0x7F || static_cast<unsigned char>(c) < 0x20; });
            }
            return true;
        }
    };
    return std::visit(Keeps{field.rule}, value);
}

std::string value_json(const Field& field, const Value& value) {
    struct Write {
        const Field& field;
        std::string operator()(bool on) const { return on ? "true" : "false"; }
        std::string operator()(std::int64_t number) const { return std::to_string(number); }
        std::string operator()(std::uint64_t number) const { return std::to_string(number); }
        std::string operator()(double number) const { return json_number(number); }
        std::string operator()(const std::array<double, 2>& pair) const {
            return "[" + json_number(pair[0]) + ", " + json_number(pair[1]) + "]";
        }
        std::string operator()(const std::string& text) const { return quoted(text); }
        std::string operator()(Choice choice) const { return quoted(field.labels.at(choice.index).name); }
    };
    return std::visit(Write{field}, value);
}

} // namespace ballast::config_io
