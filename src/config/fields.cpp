#include "fields.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>

#include "ballast/base/text.h"

namespace ballast::config_io {

namespace {

template <class E>
concept PlacementEnum = std::is_same_v<E, Placement> || std::is_same_v<E, OwnPlacement>;

/// The slots of a placement that gives them one by one.
std::optional<Slots> given_slots(Placement placement) {
    if (!has_slots(placement)) return std::nullopt;
    return slots_of(placement);
}
std::optional<Slots> given_slots(OwnPlacement placement) {
    if (placement == OwnPlacement::automatic) return std::nullopt;
    return given_slots(placement_or(placement, Placement{}));
}

void assign_slots(Placement& placement, const Slots& slots) { placement = placement_of(slots); }
void assign_slots(OwnPlacement& placement, const Slots& slots) { placement = own_placement(placement_of(slots)); }

template <class T>
Value to_value(const T& member) {
    if constexpr (PlacementEnum<T>)
        if (const std::optional<Slots> slots = given_slots(member)) return *slots;
    if constexpr (std::is_enum_v<T>)
        return Choice{static_cast<std::size_t>(member)};
    else
        return member;
}

template <class T>
void assign(T& member, const Value& value) {
    if constexpr (PlacementEnum<T>)
        if (const auto* slots = std::get_if<Slots>(&value)) return assign_slots(member, *slots);
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

template <class T, class Owner>
std::vector<Field> fields_of(const std::string& prefix, Owner owner);

template <class T>
struct IsList : std::false_type {};
template <HasKeys Item>
struct IsList<std::vector<Item>> : std::true_type {};

/// Access to the list that `member` finds in a Config.
template <class Item, class Member>
ListAccess list_of(const std::string& path, Member member) {
    ListAccess list;
    list.size = [member](const Config& config) { return member(config).size(); };
    list.resize = [member](Config& config, std::size_t size) { member(config).resize(size); };
    list.item = [member, path](std::size_t i) {
        Field section;
        section.path = path + "[" + std::to_string(i) + "]";
        section.fields = fields_of<Item>(
            section.path + ".", [ member, i ](auto& config) -> auto& { return member(config).at(i); });
        return section;
    };
    return list;
}

/// The keys of T, which `owner` finds in a Config.
template <class T, class Owner>
std::vector<Field> fields_of(const std::string& prefix, Owner owner) {
    std::vector<Field> fields;
    for_each_key<T>([&]<class M>(const Key<T, M>& key) {
        const auto member = [ owner, pointer = key.member ](auto& config) -> auto& { return owner(config).*pointer; };
        Field field;
        field.path = prefix + std::string(key.name);
        field.name = key.name;
        field.doc = key.doc;
        field.rule = key.rule;
        if constexpr (HasKeys<M>) {
            field.fields = fields_of<M>(field.path + ".", member);
        } else if constexpr (IsList<M>::value) {
            field.list = list_of<typename M::value_type>(field.path, member);
        } else {
            if constexpr (ConfigEnum<M>) field.labels = labels_of<M>();
            field.takes_slots = PlacementEnum<M>;
            field.initial = to_value(T{}.*key.member);
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

const Field* find_key(const Field& section, std::string_view name) {
    for (const Field& field : section.fields) {
        if (field.name == name) return &field;
    }
    return nullptr;
}

const Field* find_path(const Field& root, std::string_view path) {
    const Field* field = &root;
    while (field && !path.empty()) {
        const std::size_t dot = path.find('.');
        field = find_key(*field, path.substr(0, dot));
        path = dot == std::string_view::npos ? "" : path.substr(dot + 1);
    }
    return field;
}

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
    if (field.is_list()) return "an array of objects with keys such as " + any_of(field.list.item(0).key_names());
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
        std::string operator()(Choice) const {
            std::vector<std::string_view> names = field.label_names();
            if (field.takes_slots) names.push_back("an object that sets `pre`, `out` or `post` to true");
            return any_of(names);
        }
        std::string operator()(const Slots&) const { return (*this)(Choice{}); }
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
    return std::visit(Describe{field, limits}, field.initial);
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
        bool operator()(const Slots& slots) const { return slots.any(); }
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
        std::string operator()(const Slots& slots) const {
            const auto text = [](bool on) { return on ? std::string("true") : std::string("false"); };
            return "{\"pre\": " + text(slots.pre) + ", \"out\": " + text(slots.out) +
                   ", \"post\": " + text(slots.post) + "}";
        }
    };
    return std::visit(Write{field}, value);
}

std::string field_json(const Field& field, const Config& config) {
    if (!field.is_section() && !field.is_list()) return value_json(field, field.get(config));
    std::string out;
    if (field.is_list()) {
        for (std::size_t i = 0; i < field.list.size(config); ++i)
            out += (i > 0 ? ", " : "") + field_json(field.list.item(i), config);
        return "[" + out + "]";
    }
    for (const Field& member : field.fields)
        out += (out.empty() ? "" : ", ") + quoted(member.name) + ": " + field_json(member, config);
    return "{" + out + "}";
}

} // namespace ballast::config_io
