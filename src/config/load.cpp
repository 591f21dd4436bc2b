#include "ballast/config/load.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "ballast/base/text.h"
#include "check.h"
#include "fields.h"
#include "json_tree.h"

namespace ballast {

namespace {

using namespace config_io;
namespace fs = std::filesystem;

constexpr std::string_view kExtends = "extends";
constexpr std::string_view kSchema = "$schema";
constexpr std::size_t kMaxShownKey = 60;
constexpr std::size_t kMaxProblems = 100;
constexpr std::size_t kMaxFileBytes = std::size_t{16} << 20;

/// A config file of the chain that `extends` makes, or the overrides.
struct Source {
    std::string name;   ///< what messages call it
    fs::path directory; ///< where its relative paths start
    int rank = 0;       ///< its place in the order in which problems are reported
    bool is_file = true;
};

struct Place {
    const Source* source = nullptr;
    int line = 0;
};

/// Reads a whole file. On failure, `error` says "does not exist", "is a directory" and the like.
std::optional<std::string> read_file(const fs::path& path, std::string& error) {
    std::error_code ignored;
    if (fs::is_directory(path, ignored)) {
        error = "is a directory";
        return std::nullopt;
    }
    const auto close = [](std::FILE* file) { std::fclose(file); };
    const std::unique_ptr<std::FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
    if (!file) {
        error = errno == ENOENT ? "does not exist" : "cannot be read: " + std::generic_category().message(errno);
        return std::nullopt;
    }
    // Read up to a limit instead of asking for the size: a pipe such as /dev/stdin has none.
    std::string text;
    std::array<char, 1 << 16> piece{};
    errno = 0;
    while (text.size() <= kMaxFileBytes) {
        const std::size_t count = std::fread(piece.data(), 1, piece.size(), file.get());
        if (count == 0) break;
        text.append(piece.data(), count);
    }
    if (std::ferror(file.get())) {
        error = "cannot be read: " + std::generic_category().message(errno);
        return std::nullopt;
    }
    if (text.size() > kMaxFileBytes) {
        error = "is larger than " + std::to_string(kMaxFileBytes >> 20) + " MiB";
        return std::nullopt;
    }
    return text;
}

fs::path directory_of(const fs::path& file) {
    std::error_code error;
    const fs::path directory = file.has_parent_path() ? file.parent_path() : fs::path(".");
    const fs::path canonical = fs::canonical(directory, error);
    return error ? fs::absolute(directory) : canonical;
}

/// JavaScript and Python write 2000 as 2000.0 or 2e3 at times; beyond 2^53 a double may not be the integer meant.
std::optional<std::int64_t> exact_integer(double value) {
    constexpr double kMaxExact = 9007199254740992.0;
    if (value != std::floor(value) || std::abs(value) > kMaxExact) return std::nullopt;
    return static_cast<std::int64_t>(value);
}

std::optional<double> number_in(const JsonNode& node) {
    if (const auto* number = std::get_if<std::int64_t>(&node.scalar)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<std::uint64_t>(&node.scalar)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<JsonNode::Number>(&node.scalar)) return number->value;
    return std::nullopt;
}

/// The slots that an object sets. `mistake` becomes what is wrong with them: "in which `per` is no slot".
Slots read_slots(const JsonNode& object, std::string& mistake) {
    constexpr auto kSlots = std::to_array<std::pair<std::string_view, bool Slots::*>>(
        {{"pre", &Slots::pre}, {"out", &Slots::out}, {"post", &Slots::post}});
    Slots given;
    std::set<std::string_view> seen;
    for (const JsonMember& member : object.members) {
        const std::string name = "in which `" + printable(member.key, kMaxShownKey) + "` ";
        const auto* slot =
            std::find_if(kSlots.begin(), kSlots.end(), [&](const auto& entry) { return entry.first == member.key; });
        const auto* on = std::get_if<bool>(&member.value.scalar);
        if (slot == kSlots.end())
            mistake = name + "is no slot";
        else if (on == nullptr)
            mistake = name + "is " + describe(member.value);
        else if (!seen.insert(member.key).second)
            mistake = name + "is given twice";
        else
            given.*(slot->second) = *on;
        if (!mistake.empty()) return given;
    }
    if (!given.any()) mistake = "in which no slot is true";
    return given;
}

/// The node as the type of the key; nothing when it has another type.
std::optional<Value> decode(const Field& field, const JsonNode& node) {
    struct Decode {
        const Field& field;
        const JsonNode& node;

        std::optional<Value> operator()(bool) const {
            if (const auto* on = std::get_if<bool>(&node.scalar)) return *on;
            return std::nullopt;
        }
        std::optional<Value> operator()(std::int64_t) const {
            if (const auto* number = std::get_if<std::int64_t>(&node.scalar)) return *number;
            if (const auto* number = std::get_if<std::uint64_t>(&node.scalar)) {
                if (std::in_range<std::int64_t>(*number)) return static_cast<std::int64_t>(*number);
            }
            if (const auto* number = std::get_if<JsonNode::Number>(&node.scalar)) return exact_integer(number->value);
            return std::nullopt;
        }
        std::optional<Value> operator()(std::uint64_t) const {
            if (const auto* number = std::get_if<std::uint64_t>(&node.scalar)) return *number;
            if (const auto* number = std::get_if<JsonNode::Number>(&node.scalar)) {
                const auto integer = exact_integer(number->value);
                if (integer && *integer >= 0) return static_cast<std::uint64_t>(*integer);
            }
            return std::nullopt;
        }
        std::optional<Value> operator()(double) const { return number_in(node); }
        std::optional<Value> operator()(const std::array<double, 2>& shape) const {
            std::array<double, 2> pair{};
            if (node.items.size() != shape.size()) return std::nullopt;
            for (std::size_t i = 0; i < pair.size(); ++i) {
                const auto number = number_in(node.items[i]);
                if (!number) return std::nullopt;
                pair[i] = *number;
            }
            return pair;
        }
        std::optional<Value> operator()(const std::string&) const {
            if (const auto* text = std::get_if<std::string>(&node.scalar)) return *text;
            return std::nullopt;
        }
        std::optional<Value> operator()(Choice) const {
            if (field.takes_slots && node.kind == JsonNode::Kind::object) return slots();
            const auto* text = std::get_if<std::string>(&node.scalar);
            for (std::size_t i = 0; text && i < field.labels.size(); ++i) {
                if (field.labels[i].name == *text) return Choice{i};
            }
            return std::nullopt;
        }
        std::optional<Value> operator()(const Slots&) const { return (*this)(Choice{}); }

        std::optional<Value> slots() const {
            std::string mistake;
            const Slots given = read_slots(node, mistake);
            return mistake.empty() ? std::optional<Value>(given) : std::nullopt;
        }
    };
    return std::visit(Decode{field, node}, field.initial);
}

void collect_fields(const Field& section, std::vector<const Field*>& out) {
    for (const Field& field : section.fields) {
        out.push_back(&field);
        collect_fields(field, out);
    }
}

/// Reads files and overrides into one Config, and gathers what is wrong with them.
class Loader {
public:
    Config load(const fs::path& file, std::optional<std::string_view> text, std::span<const std::string> overrides) {
        read_chain(file, text);
        // A file overrides what it extends, so the end of the chain goes first.
        for (auto link = chain_.rbegin(); link != chain_.rend(); ++link)
            read_section(root_, link->root, link->source);
        command_line_ = {"--set", fs::current_path(), static_cast<int>(chain_.size()), false};
        for (const std::string& text_of_override : overrides)
            read_override(text_of_override, command_line_);
        resolve(config_);
        if (complete_) report_conflicts();
        if (!problems_.empty()) throw ConfigError(sorted_problems());
        return config_;
    }

    /// A mistake about `path`, at the place that gave the key its value.
    ConfigProblem problem(std::string_view path, std::string message) const {
        const auto found = places_.find(path);
        const Place place = found != places_.end() ? found->second : Place{&chain_.front().source, 0};
        const int line = place.source->is_file ? place.line : 0;
        return {place.source->name, line, std::string(path), std::move(message)};
    }

private:
    struct Link {
        Source source;
        JsonNode root;
    };

    // --- problems ---

    void report(const Source& source, int line, std::string path, std::string message) {
        ConfigProblem problem{source.name, source.is_file ? line : 0, std::move(path), std::move(message)};
        problems_.emplace_back(source.rank, std::move(problem));
    }

    std::vector<ConfigProblem> sorted_problems() {
        std::stable_sort(problems_.begin(), problems_.end(), [](const auto& a, const auto& b) {
            return std::pair(a.first, a.second.line) < std::pair(b.first, b.second.line);
        });
        std::vector<ConfigProblem> out;
        for (auto& [rank, problem] : problems_) {
            if (out.size() == kMaxProblems) {
                const std::string more = std::to_string(problems_.size() - kMaxProblems);
                out.push_back({problem.file, 0, "", "has " + more + " more mistakes; fix those above first"});
                break;
            }
            out.push_back(std::move(problem));
        }
        return out;
    }

    // --- files ---

    void read_chain(const fs::path& first, std::optional<std::string_view> first_text) {
        std::vector<fs::path> visited;
        std::string names;
        fs::path next = first;
        Place extends; // where the file to read next is named
        for (;;) {
            std::error_code ignored;
            const fs::path identity = fs::weakly_canonical(next, ignored);
            names += (names.empty() ? "" : " -> ") + printable(next.string());
            if (std::find(visited.begin(), visited.end(), identity) != visited.end()) {
                report(*extends.source, extends.line, std::string(kExtends),
                       "goes in a circle, " + names + "; expected a file that does not lead back");
                complete_ = false;
                return;
            }
            visited.push_back(identity);

            std::string error;
            std::optional<std::string> text;
            if (first_text && !extends.source)
                text = std::string(*first_text);
            else
                text = read_file(next, error);
            const Source source{printable(next.string()), directory_of(next), static_cast<int>(chain_.size())};
            if (!text) {
                error += "; expected a config file";
                if (!extends.source)
                    report(source, 0, "", error);
                else
                    report(*extends.source, extends.line, std::string(kExtends), source.name + " " + error);
                complete_ = false;
                return;
            }
            JsonDocument document = parse_json(*text, true);
            if (document.mistake) {
                report(source, document.mistake->line, "", document.mistake->message);
                complete_ = false;
                return;
            }
            chain_.push_back({source, std::move(document.root)});
            const JsonMember* base = extends_of(chain_.back());
            if (!base) return;
            extends = {&chain_.back().source, base->line};
            next = next.parent_path() / std::get<std::string>(base->value.scalar);
        }
    }

    /// The `extends` member of a file when it has a usable one.
    const JsonMember* extends_of(const Link& link) {
        for (const JsonMember& member : link.root.members) {
            if (member.key != kExtends) continue;
            const auto* text = std::get_if<std::string>(&member.value.scalar);
            if (member.value.kind == JsonNode::Kind::scalar && text) return &member;
            report(link.source, member.line, std::string(kExtends),
                   "is " + describe(member.value) + "; expected the path of a config file");
            complete_ = false;
            return nullptr;
        }
        return nullptr;
    }

    // --- keys ---

    void read_section(const Field& section, const JsonNode& node, const Source& source) {
        if (node.kind != JsonNode::Kind::object) {
            report(source, node.line, section.path, "is " + describe(node) + "; expected " + expectation(section));
            doubtful_.push_back(section.path);
            return;
        }
        std::map<std::string_view, int> first_lines;
        for (const JsonMember& member : node.members) {
            const auto [first, fresh] = first_lines.emplace(member.key, member.line);
            if (!fresh) {
                report(source, member.line, join_path(section.path, printable(member.key, kMaxShownKey)),
                       "is given twice, first in line " + std::to_string(first->second) + "; expected once");
                continue;
            }
            const bool about_the_file = section.path.empty() && (member.key == kExtends || member.key == kSchema);
            const Field* field = find_key(section, member.key);
            if (about_the_file && source.is_file) continue;
            if (!field)
                report_unknown(section, member, source);
            else if (field->is_section())
                read_section(*field, member.value, source);
            else if (field->is_list())
                read_list(*field, member, source);
            else
                read_value(*field, member, source);
        }
    }

    /// A list replaces the one that it overrides.
    void read_list(const Field& field, const JsonMember& member, const Source& source) {
        if (member.value.kind != JsonNode::Kind::array) {
            report(source, member.line, field.path,
                   "is " + describe(member.value) + "; expected " + expectation(field));
            doubtful_.push_back(field.path);
            return;
        }
        field.list.resize(config_, 0);
        field.list.resize(config_, member.value.items.size());
        std::erase_if(places_, [&](const auto& place) { return place.first.starts_with(field.path + "["); });
        places_[field.path] = {&source, member.line};
        for (std::size_t i = 0; i < member.value.items.size(); ++i) {
            const Field item = field.list.item(i);
            places_[item.path] = {&source, member.value.items[i].line};
            read_section(item, member.value.items[i], source);
        }
    }

    void read_value(const Field& field, const JsonMember& member, const Source& source) {
        std::optional<Value> value = decode(field, member.value);
        if (value && field.rule.text == Rule::Text::path) {
            auto& path = std::get<std::string>(*value);
            if (!path.empty()) path = (source.directory / path).lexically_normal().string();
        }
        if (value && keeps_rule(field, *value)) {
            field.set(config_, *value);
            places_[field.path] = {&source, member.line};
            return;
        }
        std::string message = "is " + describe(member.value);
        if (field.takes_slots && member.value.kind == JsonNode::Kind::object) {
            std::string mistake;
            read_slots(member.value, mistake);
            message += " " + mistake;
        }
        message += "; expected " + expectation(field);
        const auto* text = std::get_if<std::string>(&member.value.scalar);
        if (!field.labels.empty() && text) {
            const std::string_view meant = nearest(*text, field.label_names());
            if (!meant.empty()) message += "; did you mean `" + std::string(meant) + "`?";
        }
        report(source, member.line, field.path, message);
        doubtful_.push_back(field.path);
    }

    void report_unknown(const Field& section, const JsonMember& member, const Source& source) {
        std::string message = "is not a key";
        const std::vector<const Field*> meant = meant_by(section, member.key);
        if (!source.is_file && section.path.empty() && (member.key == kExtends || member.key == kSchema)) {
            message = "cannot be overridden; expected it in a config file";
        } else if (source.is_file && section.path.empty() && member.key == "base") {
            message = "is a key of sweep files, which are for `ballast sweep`; expected `extends` in a config file";
        } else if (meant.empty()) {
            message += "; expected " + any_of(section.key_names());
        } else if (const std::string_view path = meant.front()->path;
                   path != meant.front()->name && (path == member.key || path == join_path(section.path, member.key))) {
            message = "is a path, as --set takes it; expected `" + std::string(meant.front()->name) +
                      "` in the object `" + std::string(path.substr(0, path.rfind('.'))) + "`";
            doubtful_.push_back(meant.front()->path);
        } else {
            std::vector<std::string> quoted_names;
            for (const Field* field : meant) {
                const bool here = find_key(section, field->name) == field;
                quoted_names.push_back("`" + std::string(here ? field->name : field->path) + "`");
                doubtful_.push_back(field->path);
            }
            const std::vector<std::string_view> names(quoted_names.begin(), quoted_names.end());
            message += "; did you mean " + any_of(names) + "?";
        }
        report(source, member.line, join_path(section.path, printable(member.key, kMaxShownKey)), message);
    }

    /// The keys that someone who wrote `typed` in `section` may have meant: that name in another section, a dotted
    /// path, a typo, another framework's name.
    std::vector<const Field*> meant_by(const Field& section, std::string_view typed) const {
        constexpr std::size_t kMaxGuesses = 3;
        const std::string path = join_path(section.path, typed);
        std::vector<const Field*> all, guesses;
        collect_fields(root_, all);
        for (const Field* field : all) {
            if (field->name == typed || field->path == typed || field->path == path) guesses.push_back(field);
        }
        if (!guesses.empty() && guesses.size() <= kMaxGuesses) return guesses;
        const std::string_view here = nearest(typed, section.key_names());
        if (!here.empty()) return {find_key(section, here)};
        if (const Field* known = find_path(root_, elsewhere_called(typed)); known != &root_) return {known};
        const bool is_path = typed.find('.') != std::string_view::npos;
        const auto called = [=](const Field* field) { return std::string_view(is_path ? field->path : field->name); };
        std::vector<std::string_view> names;
        for (const Field* field : all)
            names.push_back(called(field));
        const std::string_view there = nearest(is_path ? std::string_view(path) : typed, names);
        guesses.clear();
        for (const Field* field : all) {
            if (!there.empty() && called(field) == there) guesses.push_back(field);
        }
        if (guesses.size() > kMaxGuesses) guesses.clear();
        return guesses;
    }

    /// The path of what nanoGPT, GPT-2 and x-transformers configs call `name`; empty when it is none of their names.
    static std::string_view elsewhere_called(std::string_view name) {
        constexpr auto kNames = std::to_array<std::pair<std::string_view, std::string_view>>({
            {"n_layer", "model.layers"},
            {"num_layers", "model.layers"},
            {"depth", "model.layers"},
            {"num_hidden_layers", "model.layers"},
            {"n_head", "model.heads"},
            {"num_heads", "model.heads"},
            {"num_attention_heads", "model.heads"},
            {"n_embd", "model.width"},
            {"d_model", "model.width"},
            {"dim", "model.width"},
            {"hidden_size", "model.width"},
            {"block_size", "model.context"},
            {"max_seq_len", "model.context"},
            {"n_positions", "model.context"},
            {"d_ff", "model.ffn.width"},
            {"intermediate_size", "model.ffn.width"},
            {"max_iters", "train.steps"},
            {"max_steps", "train.steps"},
            {"batch_size", "train.batch"},
            {"eval_interval", "train.eval_every"},
            {"eval_iters", "train.eval_batches"},
            {"learning_rate", "optimizer.lr"},
            {"min_lr", "schedule.final_lr"},
            {"warmup_iters", "schedule.warmup"},
            {"warmup_steps", "schedule.warmup"},
            {"grad_clip", "optimizer.clip"},
            {"dataset", "data.path"},
        });
        for (const auto& [theirs, ours] : kNames) {
            if (theirs == name) return ours;
        }
        return {};
    }

    // --- overrides ---

    void read_override(const std::string& text, const Source& source) {
        const std::size_t equals = text.find('=');
        const std::string_view path = std::string_view(text).substr(0, equals);
        const bool hole =
            path.empty() || path.front() == '.' || path.back() == '.' || path.find("..") != std::string_view::npos;
        if (equals == std::string::npos || hole) {
            const std::string shown = '"' + printable(text, kMaxShownKey) + '"';
            report(source, 0, "", shown + " is no override; expected KEY=VALUE, such as model.layers=6");
            return;
        }
        JsonNode node = override_value(find_path(root_, path), std::string_view(text).substr(equals + 1));
        std::string_view rest = path;
        int depth = 0;
        while (!rest.empty()) {
            if (++depth > kMaxDepth) {
                report(source, 0, printable(path, kMaxShownKey), "is nested too deep; expected a key");
                return;
            }
            const std::size_t dot = rest.rfind('.');
            JsonNode outer;
            outer.kind = JsonNode::Kind::object;
            outer.members.push_back({std::string(rest.substr(dot == std::string_view::npos ? 0 : dot + 1)), 0, {}});
            outer.members.back().value = std::move(node);
            node = std::move(outer);
            rest = dot == std::string_view::npos ? "" : rest.substr(0, dot);
        }
        read_section(root_, node, source);
    }

    /// JSON where it is JSON, and the bare text otherwise or where the key takes a string: a shell eats quotes.
    static JsonNode override_value(const Field* field, std::string_view text) {
        JsonDocument document = parse_json(text, false);
        const bool is_text = field && field->get && std::holds_alternative<std::string>(field->initial) &&
                             !std::holds_alternative<std::string>(document.root.scalar);
        if (!document.mistake && !is_text) return std::move(document.root);
        JsonNode node;
        node.scalar = std::string(text);
        return node;
    }

    // --- keys that do not go together ---

    void report_conflicts() {
        for (const Conflict& conflict : find_conflicts(config_)) {
            const auto doubtful = [&](std::string_view path) { return is_doubtful(path); };
            if (std::any_of(conflict.paths.begin(), conflict.paths.end(), doubtful)) continue;
            Place place{&chain_.front().source, 0};
            std::string path = conflict.paths.front();
            for (const std::string& candidate : conflict.paths) {
                const auto found = places_.find(candidate);
                if (found == places_.end()) continue;
                place = found->second;
                path = candidate;
                break;
            }
            report(*place.source, place.line, std::move(path), conflict.message);
        }
    }

    /// Whether a key, or a section around it, was given in a way that could not be used.
    bool is_doubtful(std::string_view path) const {
        return std::any_of(doubtful_.begin(), doubtful_.end(), [&](const std::string& bad) {
            return path.substr(0, bad.size()) == bad &&
                   (bad.empty() || path.size() == bad.size() || path[bad.size()] == '.' || path[bad.size()] == '[');
        });
    }

    const Field root_ = config_fields();
    Config config_;
    std::vector<std::pair<int, ConfigProblem>> problems_; ///< with the rank of their source
    std::deque<Link> chain_;                              ///< a deque: places point at its sources
    Source command_line_;                                 ///< the overrides
    std::map<std::string, Place, std::less<>> places_;    ///< where each key got its value
    std::vector<std::string> doubtful_;                   ///< keys whose value was given but could not be used
    bool complete_ = true;                                ///< every file was read
};

} // namespace

Config load_config(const fs::path& file, std::span<const std::string> overrides) {
    return Loader().load(file, std::nullopt, overrides);
}

Config config_from_json(std::string_view text, const fs::path& filename, std::span<const std::string> overrides) {
    return Loader().load(filename, text, overrides);
}

ConfigProblem problem_at(const fs::path& file, std::span<const std::string> overrides, std::string_view path,
                         std::string message) {
    Loader loader;
    loader.load(file, std::nullopt, overrides);
    return loader.problem(path, std::move(message));
}

std::vector<ConfigProblem> check_configs(std::span<const fs::path> files, std::span<const std::string> overrides) {
    std::vector<ConfigProblem> problems;
    for (const fs::path& file : files) {
        try {
            load_config(file, overrides);
        } catch (const ConfigError& error) {
            for (const ConfigProblem& problem : error.problems()) {
                // Files that extend the same base share its mistakes.
                const bool known = std::any_of(problems.begin(), problems.end(), [&](const ConfigProblem& other) {
                    return other.text() == problem.text();
                });
                if (!known) problems.push_back(problem);
            }
        }
    }
    return problems;
}

} // namespace ballast
