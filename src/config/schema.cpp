#include "ballast/config/describe.h"

#include <limits>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "ballast/base/text.h"
#include "fields.h"

namespace ballast {

namespace {

using namespace config_io;
using Json = nlohmann::ordered_json;

/// The sentence and, for an enum, what each of its values means.
std::string full_doc(const Field& field) {
    std::string meanings;
    for (const Label& label : field.labels) {
        if (label.doc.empty()) continue;
        meanings += (meanings.empty() ? " `" : "; `") + std::string(label.name) + "`: " + std::string(label.doc);
    }
    return std::string(field.doc) + meanings + (meanings.empty() ? "" : ".");
}

/// A limit without a decimal point where there is no fraction, so that integers look like integers.
Json limit(double value) {
    if (value == static_cast<double>(static_cast<std::int64_t>(value))) return static_cast<std::int64_t>(value);
    return value;
}

void add_limits(const Rule& rule, Json& schema) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    if (rule.min != -kInfinity) schema[rule.open_min ? "exclusiveMinimum" : "minimum"] = limit(rule.min);
    if (rule.max != kInfinity) schema[rule.open_max ? "exclusiveMaximum" : "maximum"] = limit(rule.max);
}

Json value_schema(const Field& field) {
    struct Describe {
        const Field& field;
        Json operator()(bool value) const { return {{"type", "boolean"}, {"default", value}}; }
        Json operator()(std::int64_t value) const {
            Json schema = {{"type", "integer"}, {"default", value}};
            add_limits(field.rule, schema);
            return schema;
        }
        Json operator()(std::uint64_t value) const {
            return {{"type", "integer"},
                    {"default", value},
                    {"minimum", 0},
                    {"maximum", std::numeric_limits<std::uint64_t>::max()}};
        }
        Json operator()(double value) const {
            Json schema = {{"type", "number"}, {"default", value}};
            add_limits(field.rule, schema);
            return schema;
        }
        Json operator()(const std::array<double, 2>& value) const {
            Json item = {{"type", "number"}};
            add_limits(field.rule, item);
            return {{"type", "array"}, {"default", value}, {"items", item}, {"minItems", 2}, {"maxItems", 2}};
        }
        Json operator()(const std::string& value) const {
            Json schema = {{"type", "string"}};
            if (!value.empty()) schema["default"] = value;
            if (field.rule.text == Rule::Text::file_name) {
                schema["pattern"] = R"(^[^./\-\u0000-\u001f\u007f][^/\u0000-\u001f\u007f]*$)";
            }
            return schema;
        }
        Json operator()(Choice choice) const {
            Json schema = {{"enum", field.label_names()}, {"default", field.labels.at(choice.index).name}};
            if (!field.takes_slots) return schema;
            const Json slot = {{"type", "boolean"}, {"default", false}};
            const Json slots = {{"type", "object"},
                                {"additionalProperties", false},
                                {"properties", {{"pre", slot}, {"out", slot}, {"post", slot}}}};
            return {{"anyOf", {{{"enum", schema["enum"]}}, slots}}, {"default", schema["default"]}};
        }
        Json operator()(const Slots&) const { return (*this)(Choice{}); }
    };
    return std::visit(Describe{field}, field.initial);
}

Json section_schema(const Field& section) {
    Json properties = Json::object();
    for (const Field& field : section.fields) {
        Json schema = {{"description", full_doc(field)}};
        if (field.is_list())
            schema.update(
                Json{{"type", "array"}, {"default", Json::array()}, {"items", section_schema(field.list.item(0))}});
        else
            schema.update(field.is_section() ? section_schema(field) : value_schema(field));
        properties[std::string(field.name)] = std::move(schema);
    }
    return {{"type", "object"}, {"additionalProperties", false}, {"properties", std::move(properties)}};
}

/// An item of a list, whichever: its path has no number.
Field list_item(const Field& list) {
    Field item = list.list.item(0);
    item.path = list.path + "[]";
    return item;
}

std::string values_column(const Field& field) {
    if (field.labels.empty()) return expectation(field);
    std::vector<std::string> quoted_names;
    for (const Label& label : field.labels)
        quoted_names.push_back("`" + std::string(label.name) + "`");
    if (field.takes_slots) quoted_names.emplace_back("`{\"pre\": true}` and so on");
    const std::vector<std::string_view> names(quoted_names.begin(), quoted_names.end());
    return any_of(names);
}

void write_reference(const Field& section, std::string_view doc, std::string& out) {
    if (section.path.empty())
        out += "\n## Top level\n\n";
    else
        out += "\n## `" + section.path + "`\n\n" + std::string(doc) + "\n\n";
    out += "| key | default | values | meaning |\n|---|---|---|---|\n";
    for (const Field& field : section.fields) {
        if (field.is_section()) continue;
        const std::string value = field.is_list() ? "`[]`" : "`" + value_json(field, field.initial) + "`";
        out += "| `" + std::string(field.name) + "` | " + value + " | " + values_column(field) + " | " +
               full_doc(field) + " |\n";
    }
    for (const Field& field : section.fields) {
        if (field.is_section()) write_reference(field, field.doc, out);
        if (field.is_list()) write_reference(list_item(field), "An item of `" + field.path + "`.", out);
    }
}

} // namespace

std::string config_schema() {
    const Field root = config_fields();
    Json schema = {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
                   {"title", "Ballast config"},
                   {"description", "A training run. Comments are allowed. docs/config.md says the same as a page."}};
    schema.update(section_schema(root));
    const Json about_the_file = {
        {"$schema", {{"description", "For editors: where this schema is. Ignored."}, {"type", "string"}}},
        {"extends",
         {{"description", "Another config file, relative to this one, whose keys this file overrides one by one."},
          {"type", "string"}}}};
    Json properties = about_the_file;
    properties.update(schema["properties"]);
    schema["properties"] = std::move(properties);
    return schema.dump(2) + "\n";
}

std::string config_reference() {
    std::string out = R"(# Config keys

Generated from `include/ballast/config/config.h`; `configs/schema.json` says the same to editors and programs.

A config is one JSON object; comments (`//` and `/* */`) are allowed. Every key has a default, so a file says
only what it changes, and one of `data.path` and `data.task`. An unknown key is an error. Beside the keys below, the top level takes

- `extends`: another config file, relative to this one. This file overrides it key by key; it may extend a further one.
- `$schema`: where an editor finds the schema. Ignored.

`--set model.norm.placement=post` on the command line overrides any key, last of all. Its value is JSON or bare text.
A relative `data.path` or `init_from.run` starts at the config file it stands in, and in `--set` at the working directory.

The `config.json` in a run's directory has every key, with each value that was derived (0 or `auto` below) filled in.
)";
    write_reference(config_fields(), "", out);
    return out;
}

} // namespace ballast
