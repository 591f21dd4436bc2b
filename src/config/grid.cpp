#include "ballast/config/grid.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "ballast/base/file.h"
#include "ballast/base/text.h"
#include "ballast/config/load.h"
#include "fields.h"
#include "json_tree.h"

namespace ballast {

namespace {

using namespace config_io;
namespace fs = std::filesystem;

constexpr std::size_t kMaxShown = 60;
constexpr std::string_view kVariant = "variant";

// ---- JSON -----------------------------------------------------------------------------------------------------------

std::optional<double> number_in(const JsonNode& node) {
    if (const auto* number = std::get_if<std::int64_t>(&node.scalar)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<std::uint64_t>(&node.scalar)) return static_cast<double>(*number);
    if (const auto* number = std::get_if<JsonNode::Number>(&node.scalar)) return number->value;
    return {};
}

const std::string* string_in(const JsonNode& node) {
    return node.kind == JsonNode::Kind::scalar ? std::get_if<std::string>(&node.scalar) : nullptr;
}

std::string scalar_text(const JsonNode& node) {
    struct Write {
        std::string operator()(JsonNode::Null) const { return "null"; }
        std::string operator()(bool on) const { return on ? "true" : "false"; }
        std::string operator()(std::int64_t number) const { return std::to_string(number); }
        std::string operator()(std::uint64_t number) const { return std::to_string(number); }
        std::string operator()(const JsonNode::Number& number) const { return number_text(number.value); }
        std::string operator()(const std::string& text) const { return ballast::quoted(text); }
    };
    return std::visit(Write{}, node.scalar);
}

/// The node as JSON in one line; equal numbers are written alike.
std::string json_text(const JsonNode& node) {
    if (node.kind == JsonNode::Kind::scalar) return scalar_text(node);
    std::string text;
    for (const JsonNode& item : node.items)
        text += (text.empty() ? "" : ", ") + json_text(item);
    for (const JsonMember& member : node.members)
        text += (text.empty() ? "" : ", ") + ballast::quoted(member.key) + ": " + json_text(member.value);
    return node.kind == JsonNode::Kind::array ? "[" + text + "]" : "{" + text + "}";
}

/// Whether one of two paths is the other, or a section around it.
bool overlap(std::string_view a, std::string_view b) {
    if (a.size() > b.size()) std::swap(a, b);
    return b.starts_with(a) && (a.size() == b.size() || b[a.size()] == '.');
}

// ---- What a sweep file asks for -------------------------------------------------------------------------------------

/// A key of a config that the sweep file sets.
struct Assignment {
    std::string path;
    JsonNode value;
    int line = 0;

    std::string override_text() const { return path + "=" + json_text(value); }
};

/// A value of an axis.
struct Point {
    std::string value; ///< as in Setting
    std::vector<Assignment> assignments;
};

struct Axis {
    std::string name;
    std::vector<Point> points;
};

/// The line of the assignment, or of a member within it, that gives `path` its value; 0 when it is about other keys.
int line_of(const JsonNode& node, std::string_view at, std::string_view path, int line) {
    if (at == path) return line;
    for (const JsonMember& member : node.members) {
        const std::string inner = join_path(at, member.key);
        if (overlap(inner, path) && inner.size() <= path.size()) return line_of(member.value, inner, path, member.line);
    }
    // A member of a list, "model.norm.layers[0].until", stands where its list does.
    return path.starts_with(at) ? line : 0;
}

int line_of(const Assignment& assignment, std::string_view path) {
    return path.starts_with(assignment.path) || overlap(assignment.path, path)
               ? line_of(assignment.value, assignment.path, path, assignment.line)
               : 0;
}

double rounded_to_digits(double value, int digits) {
    if (value == 0) return 0;
    const double scale = std::pow(10, digits - 1 - std::floor(std::log10(std::abs(value))));
    return std::round(value * scale) / scale;
}

class GridReader {
public:
    GridReader(const fs::path& file, std::span<const std::string> overrides)
        : file_(file), shown_(printable(file.string())), directory_(fs::absolute(file).parent_path()),
          overrides_(overrides.begin(), overrides.end()) {}

    Grid read() {
        const JsonNode root = parse();
        read_members(root);
        refuse_double_keys();
        throw_problems();
        Grid grid;
        grid.name = name_;
        for (const Axis& axis : axes_)
            grid.axes.push_back(axis.name);
        make_cells(grid);
        throw_problems();
        return grid;
    }

private:
    // --- problems ---

    void report(int line, std::string path, std::string message) {
        problems_.push_back({shown_, line, std::move(path), std::move(message)});
    }

    void throw_problems() {
        if (problems_.empty()) return;
        std::stable_sort(problems_.begin(), problems_.end(), [](const ConfigProblem& a, const ConfigProblem& b) {
            return std::pair(a.file, a.line) < std::pair(b.file, b.line);
        });
        throw ConfigError(problems_);
    }

    // --- the file ---

    JsonNode parse() {
        std::string text;
        try {
            text = read_file(file_);
        } catch (const IoError& error) {
            throw ConfigError({{"", 0, "", std::string(error.what()) + "; expected a sweep file"}});
        }
        JsonDocument document = parse_json(text, true);
        if (document.mistake) throw ConfigError({{shown_, document.mistake->line, "", document.mistake->message}});
        return std::move(document.root);
    }

    bool is_object(const JsonNode& node, int line, const std::string& path, std::string_view expected) {
        if (node.kind == JsonNode::Kind::object) return true;
        report(line, path, "is " + describe(node) + "; expected " + std::string(expected));
        return false;
    }

    /// The members of an object but those that are given a second time, which are reported.
    std::vector<const JsonMember*> members_of(const JsonNode& node, const std::string& path) {
        std::vector<const JsonMember*> members;
        std::map<std::string_view, int> lines;
        for (const JsonMember& member : node.members) {
            const auto [first, fresh] = lines.emplace(member.key, member.line);
            if (fresh)
                members.push_back(&member);
            else
                report(member.line, join_path(path, printable(member.key, kMaxShown)),
                       "is given twice, first in line " + std::to_string(first->second) + "; expected once");
        }
        return members;
    }

    void read_members(const JsonNode& root) {
        static constexpr auto kKeys = std::to_array<std::string_view>({"name", "base", "grid", "variants", "seeds"});
        if (!is_object(root, root.line, "", "an object with the keys " + any_of(kKeys))) return;
        name_ = file_.stem().string();
        const std::vector<const JsonMember*> members = members_of(root, "");
        for (const JsonMember* member : members) {
            if (member->key == "name")
                read_name(*member);
            else if (member->key == "base")
                read_base(*member);
            else if (member->key == "grid")
                read_grid(*member);
            else if (member->key == "variants")
                read_variants(*member);
            else if (member->key == "seeds")
                read_seeds(*member);
            else
                report_unknown(*member, kKeys);
        }
        if (std::none_of(members.begin(), members.end(), [](const auto* member) { return member->key == "base"; }))
            report(0, "base", "is missing; expected a config file's path, or an object with a config's keys");
        if (axes_.empty() && seeds_.empty() && problems_.empty())
            report(0, "", "makes one run alone; expected `grid`, `variants` or `seeds`");
    }

    void report_unknown(const JsonMember& member, std::span<const std::string_view> keys) {
        const Field root = config_fields();
        const std::string_view meant = nearest(member.key, keys);
        std::string message = "is not a key of a sweep";
        if (!meant.empty())
            message += "; did you mean `" + std::string(meant) + "`?";
        else if (find_key(root, member.key) != nullptr)
            message += "; keys of a config belong into `base`";
        else
            message += "; expected " + any_of(keys);
        report(member.line, printable(member.key, kMaxShown), message);
    }

    void read_name(const JsonMember& member) {
        const Field root = config_fields();
        const Field& rule = *find_key(root, "name");
        const std::string* text = string_in(member.value);
        if (text != nullptr && keeps_rule(rule, *text))
            name_ = *text;
        else
            report(member.line, "name", "is " + describe(member.value) + "; expected " + expectation(rule));
    }

    void read_base(const JsonMember& member) {
        if (const std::string* text = string_in(member.value)) {
            base_file_ = file_.parent_path() / *text;
            return;
        }
        if (!is_object(member.value, member.line, "base", "a config file's path, or an object with a config's keys"))
            return;
        for (const JsonMember* key : members_of(member.value, "base")) {
            if (key->key == "$schema") continue;
            if (key->key != "extends") {
                base_.push_back(assignment(key->key, key->value, key->line));
                continue;
            }
            if (const std::string* text = string_in(key->value))
                base_file_ = file_.parent_path() / *text;
            else
                report(key->line, "base.extends",
                       "is " + describe(key->value) + "; expected the path of a config file");
        }
    }

    void read_grid(const JsonMember& member) {
        if (!is_object(member.value, member.line, "grid", "an object of keys, each with a list or a range")) return;
        for (const JsonMember* key : members_of(member.value, "grid")) {
            const std::string path = "grid." + printable(key->key, kMaxShown);
            if (key->key == "seed" || key->key == "name") {
                report(key->line, path,
                       key->key == "seed" ? "is no axis; expected `seeds`: [1, 2, 3]"
                                          : "is no axis; each cell is named by its settings");
                continue;
            }
            Axis axis{key->key, {}};
            if (key->value.kind == JsonNode::Kind::array)
                read_list(*key, path, axis);
            else if (key->value.kind == JsonNode::Kind::object)
                read_range(*key, path, axis);
            else
                report(key->line, path,
                       "is " + describe(key->value) +
                           "; expected a list of values, or an object with from, to, points");
            axes_.push_back(std::move(axis));
        }
    }

    void read_list(const JsonMember& key, const std::string& path, Axis& axis) {
        if (key.value.items.empty()) report(key.line, path, "is empty; expected at least one value");
        for (const JsonNode& item : key.value.items)
            add_point(axis, key.key, path, item);
    }

    void add_point(Axis& axis, const std::string& key, const std::string& path, const JsonNode& value) {
        const std::string* text = string_in(value);
        const std::string label = text != nullptr ? *text : json_text(value);
        for (const Point& point : axis.points)
            if (point.value == label)
                return report(value.line, path,
                              "has " + printable(label, kMaxShown) + " twice; expected each value once");
        axis.points.push_back({label, {assignment(key, value, value.line)}});
    }

    void read_range(const JsonMember& key, const std::string& path, Axis& axis) {
        constexpr double kMostPoints = 100;
        static constexpr auto kKeys = std::to_array<std::string_view>({"from", "to", "points", "scale"});
        std::optional<double> from, to, points;
        bool log = true;
        const auto refuse = [&](const JsonMember& member, std::string_view expected) {
            report(member.line, join_path(path, member.key),
                   "is " + describe(member.value) + "; expected " + std::string(expected));
        };
        const std::size_t before = problems_.size();
        for (const JsonMember* member : members_of(key.value, path)) {
            const std::optional<double> number = number_in(member->value);
            if (member->key == "from" || member->key == "to") {
                (member->key == "from" ? from : to) = number;
                if (!number) refuse(*member, "a number");
            } else if (member->key == "points") {
                points = number;
                if (!number || *number != std::floor(*number) || *number < 2 || *number > kMostPoints)
                    refuse(*member, "an integer from 2 to 100");
            } else if (member->key == "scale") {
                const std::string* text = string_in(member->value);
                log = text != nullptr && *text == "log";
                if (text == nullptr || (*text != "log" && *text != "linear")) refuse(*member, "\"log\" or \"linear\"");
            } else {
                const std::string_view meant = nearest(member->key, kKeys);
                report(member->line, join_path(path, printable(member->key, kMaxShown)),
                       "is not a key of a range; " + (meant.empty() ? "expected " + any_of(kKeys)
                                                                    : "did you mean `" + std::string(meant) + "`?"));
            }
        }
        if (problems_.size() > before) return;
        if (!from || !to || !points) return report(key.line, path, "is no range; expected from, to and points");
        if (log && !(*from > 0 && *to > 0))
            return report(key.line, path, "has an end that is not above 0; expected one for \"scale\": \"log\"");
        for (double i = 0; i < *points; ++i) {
            constexpr int kDigits = 4;
            const double share = i / (*points - 1);
            const double inner = log ? *from * std::pow(*to / *from, share) : *from + (*to - *from) * share;
            JsonNode value;
            value.line = key.line;
            const bool at_end = i == 0 || i + 1 == *points;
            value.scalar = JsonNode::Number{at_end ? (i == 0 ? *from : *to) : rounded_to_digits(inner, kDigits), ""};
            add_point(axis, key.key, path, value);
        }
    }

    void read_variants(const JsonMember& member) {
        if (!is_object(member.value, member.line, "variants", "an object of names, each with an object of keys"))
            return;
        Axis axis{std::string(kVariant), {}};
        if (member.value.members.empty()) report(member.line, "variants", "is empty; expected at least one variant");
        std::map<std::string, std::string> contents;
        for (const JsonMember* variant : members_of(member.value, "variants")) {
            const std::string path = "variants." + printable(variant->key, kMaxShown);
            if (!is_object(variant->value, variant->line, path, "an object of keys")) continue;
            Point point{variant->key, {}};
            for (const JsonMember* key : members_of(variant->value, path)) {
                if (key->key == "seed" || key->key == "name")
                    report(key->line, join_path(path, key->key), "cannot be set by a variant");
                else
                    point.assignments.push_back(assignment(key->key, key->value, key->line));
            }
            const auto [same, fresh] = contents.emplace(json_text(variant->value), variant->key);
            if (!fresh)
                report(variant->line, path,
                       "sets the same as " + printable(same->second, kMaxShown) + "; expected another set of keys");
            axis.points.push_back(std::move(point));
        }
        axes_.push_back(std::move(axis));
    }

    void read_seeds(const JsonMember& member) {
        if (member.value.kind != JsonNode::Kind::array || member.value.items.empty())
            return report(member.line, "seeds",
                          "is " + describe(member.value) + "; expected a list of seeds, such as [1, 2, 3]");
        for (const JsonNode& item : member.value.items) {
            const auto* seed = std::get_if<std::uint64_t>(&item.scalar);
            if (item.kind != JsonNode::Kind::scalar || seed == nullptr)
                report(item.line, "seeds", "has " + describe(item) + "; expected integers of at least 0");
            else if (std::find(seeds_.begin(), seeds_.end(), *seed) != seeds_.end())
                report(item.line, "seeds", "has " + std::to_string(*seed) + " twice; expected each seed once");
            else
                seeds_.push_back(*seed);
        }
    }

    /// Paths within it are made absolute: an override's would start at the working directory.
    Assignment assignment(const std::string& path, JsonNode value, int line) const {
        make_absolute(value, path);
        return {path, std::move(value), line};
    }

    void make_absolute(JsonNode& node, std::string_view path) const {
        for (JsonMember& member : node.members)
            make_absolute(member.value, join_path(path, member.key));
        const std::string* text = string_in(node);
        const Field* field = text != nullptr ? find_path(fields_, path) : nullptr;
        if (field != nullptr && field->rule.text == Rule::Text::path && !text->empty())
            node.scalar = (directory_ / *text).lexically_normal().string();
    }

    // --- keys that are set in two places ---

    /// What one object sets twice, as a path and within a section, as in `{"model.width": 64, "model": {"width": 32}}`.
    void refuse_double_keys_in(const std::vector<Assignment>& assignments) {
        std::vector<std::pair<std::string, const Assignment*>> uses;
        for (const Assignment& assignment : assignments)
            for (const std::string& path : paths_in(assignment)) {
                const auto use = std::find_if(uses.begin(), uses.end(), [&](const auto& other) {
                    return other.second != &assignment && overlap(other.first, path);
                });
                if (use != uses.end())
                    report(assignment.line, path,
                           "is set in line " + std::to_string(use->second->line) +
                               ", too; expected one place that sets it");
                uses.emplace_back(path, &assignment);
            }
    }

    void refuse_double_keys() {
        refuse_double_keys_in(base_);
        for (const Axis& axis : axes_)
            for (const Point& point : axis.points)
                refuse_double_keys_in(point.assignments);
        struct Use {
            std::string path;
            std::string where;
            std::size_t axis;
        };
        std::vector<Use> uses;
        for (const std::string& text : overrides_) {
            const std::string path = text.substr(0, text.find('='));
            if (path == "name")
                problems_.push_back({"--set", 0, path, "cannot be set; each cell is named by its settings"});
            if (path == "seed" && !seeds_.empty())
                problems_.push_back({"--set", 0, path, "is set by `seeds`, too; expected one place that sets it"});
            uses.push_back({path, "--set", axes_.size()});
        }
        for (std::size_t i = 0; i < axes_.size(); ++i) {
            std::set<std::string> seen;
            for (const Point& point : axes_[i].points)
                for (const Assignment& assignment : point.assignments) {
                    for (const std::string& path : paths_in(assignment)) {
                        if (!seen.insert(path).second) continue;
                        for (const Use& use : uses)
                            if (use.axis != i && overlap(use.path, path))
                                report(assignment.line, path,
                                       "is set by " + use.where + ", too; expected one place that sets it");
                        uses.push_back({path, axes_[i].name == kVariant ? "`variants`" : "`grid`", i});
                    }
                }
        }
    }

    /// The values that an assignment sets; an empty section sets none.
    std::vector<std::string> paths_in(const Assignment& assignment) const {
        std::vector<std::string> paths;
        collect_paths(assignment.value, assignment.path, paths);
        return paths;
    }
    void collect_paths(const JsonNode& node, const std::string& path, std::vector<std::string>& paths) const {
        const Field* field = find_path(fields_, path);
        const bool is_section = field != nullptr && field->is_section() && node.kind == JsonNode::Kind::object;
        if (!is_section) return paths.push_back(path);
        for (const JsonMember& member : node.members)
            collect_paths(member.value, join_path(path, member.key), paths);
    }

    // --- cells ---

    void make_cells(Grid& grid) {
        const std::vector<std::uint64_t> seeds = seeds_.empty() ? std::vector<std::uint64_t>{0} : seeds_;
        double count = static_cast<double>(seeds.size());
        for (const Axis& axis : axes_)
            count *= static_cast<double>(axis.points.size());
        if (count > static_cast<double>(kMaxCells))
            return report(0, "",
                          "makes " + number_text(count) + " cells; expected at most " + std::to_string(kMaxCells));
        std::vector<std::size_t> at(axes_.size(), 0);
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
            std::size_t rest = i / seeds.size();
            for (std::size_t axis = axes_.size(); axis-- > 0;) {
                at[axis] = rest % axes_[axis].points.size();
                rest /= axes_[axis].points.size();
            }
            add_cell(grid, at, seeds[i % seeds.size()]);
        }
        name_the_cells_of_problems();
    }

    void add_cell(Grid& grid, const std::vector<std::size_t>& at, std::uint64_t seed) {
        GridCell cell;
        std::vector<const Assignment*> assignments;
        std::vector<std::string> overrides;
        for (const Assignment& assignment : base_) {
            assignments.push_back(&assignment);
            overrides.push_back(assignment.override_text());
        }
        overrides.insert(overrides.end(), overrides_.begin(), overrides_.end());
        for (std::size_t i = 0; i < axes_.size(); ++i) {
            const Point& point = axes_[i].points[at[i]];
            cell.settings.push_back({axes_[i].name, point.value});
            for (const Assignment& assignment : point.assignments) {
                assignments.push_back(&assignment);
                overrides.push_back(assignment.override_text());
            }
        }
        cell.name = unused_name(cell.settings, seed);
        overrides.push_back("name=" + cell.name);
        if (!seeds_.empty()) overrides.push_back("seed=" + std::to_string(seed));
        try {
            cell.config =
                base_file_.empty() ? config_from_json("{}", file_, overrides) : load_config(base_file_, overrides);
            cell.seed = cell.config.seed;
            grid.cells.push_back(std::move(cell));
        } catch (const ConfigError& error) {
            for (ConfigProblem problem : error.problems()) {
                locate(problem, assignments);
                add_cell_problem(std::move(problem), cell.name);
            }
        }
    }

    /// From an override to the line of the sweep file that it was made of.
    void locate(ConfigProblem& problem, const std::vector<const Assignment*>& assignments) const {
        if (problem.file != "--set") return;
        for (auto assignment = assignments.rbegin(); assignment != assignments.rend(); ++assignment) {
            const int line = line_of(**assignment, problem.path);
            if (line == 0) continue;
            problem.file = shown_;
            problem.line = line;
            return;
        }
    }

    /// Cells share most mistakes.
    void add_cell_problem(ConfigProblem problem, const std::string& cell) {
        std::vector<std::string>& cells = cells_of_[problem.text()];
        cells.push_back(cell);
        if (cells.size() == 1) problems_.push_back(std::move(problem));
    }

    /// Not where it is all of them: then the mistake is not about a cell.
    void name_the_cells_of_problems() {
        for (ConfigProblem& problem : problems_) {
            const std::vector<std::string>& cells = cells_of_[problem.text()];
            if (cells.size() == names_.size()) continue;
            problem.message += " (cell " + cells.front();
            if (cells.size() > 1) problem.message += " and " + std::to_string(cells.size() - 1) + " more";
            problem.message += ")";
        }
    }

    // --- names ---

    std::string short_axis(const std::string& axis) const {
        const auto last = [](const std::string& path) { return path.substr(path.rfind('.') + 1); };
        for (const Axis& other : axes_)
            if (other.name != axis && last(other.name) == last(axis)) return axis;
        return last(axis);
    }

    std::string unused_name(const std::vector<Setting>& settings, std::uint64_t seed) {
        constexpr std::size_t kLongestValue = 40, kLongestName = 200;
        std::string name;
        const auto add = [&](const std::string& axis, const std::string& value) {
            std::string word;
            for (const char c : value) {
                const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                                   std::string_view("_.+-").find(c) != std::string_view::npos;
                if (plain)
                    word += c;
                else if (!word.empty() && word.back() != '-')
                    word += '-';
            }
            if (word.size() > 1 && word.back() == '-') word.pop_back();
            name += (name.empty() ? "" : ",") + axis + "=" + word.substr(0, kLongestValue);
        };
        for (const Setting& setting : settings)
            add(short_axis(setting.axis), setting.value);
        if (!seeds_.empty()) add("seed", std::to_string(seed));
        name.resize(std::min(name.size(), kLongestName));
        std::string unused = name;
        for (int i = 2; !names_.insert(unused).second; ++i)
            unused = name + "~" + std::to_string(i);
        return unused;
    }

    const Field fields_ = config_fields();
    fs::path file_;
    std::string shown_;
    fs::path directory_; ///< where relative paths start
    std::vector<std::string> overrides_;

    std::string name_;
    fs::path base_file_; ///< empty: the base is what `base_` has, on the defaults
    std::vector<Assignment> base_;
    std::vector<Axis> axes_;
    std::vector<std::uint64_t> seeds_; ///< empty: that of the base
    std::set<std::string> names_;
    std::vector<ConfigProblem> problems_;
    std::map<std::string, std::vector<std::string>> cells_of_; ///< of each problem of a cell
};

} // namespace

Grid load_grid(const fs::path& file, std::span<const std::string> overrides) {
    return GridReader(file, overrides).read();
}

bool is_sweep_file(const fs::path& file) try {
    const JsonDocument document = parse_json(read_file(file), true);
    const auto has = [&](std::string_view key) {
        return std::any_of(document.root.members.begin(), document.root.members.end(),
                           [&](const JsonMember& member) { return member.key == key; });
    };
    return !document.mistake && has("base") && (has("grid") || has("variants") || has("seeds"));
} catch (const IoError&) {
    return false;
}

} // namespace ballast
