#include "ballast/data/grammar.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <set>

#include "ballast/base/error.h"
#include "ballast/base/rng.h"

namespace ballast {

namespace {

[[noreturn]] void fail(const std::string& what) { throw DataError("grammar: " + what); }

std::string_view trim(std::string_view text) {
    const std::size_t first = text.find_first_not_of(' ');
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(separator, begin), text.size());
        parts.push_back(trim(text.substr(begin, end - begin)));
        begin = end + 1;
    }
    return parts;
}

char upper(char c) { return static_cast<char>(std::toupper(static_cast<unsigned char>(c))); }

double nats_of(std::uint32_t weight, std::uint32_t total) {
    return std::log(static_cast<double>(total) / static_cast<double>(weight));
}

} // namespace

// ---- Reading the grammar --------------------------------------------------------------------------------------------

Grammar::Grammar(std::string_view text) {
    Table* table = nullptr;
    Choice* rule = nullptr;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, end - begin);
        begin = end + 1;
        const std::string_view content = trim(line);
        if (content.empty() || content[0] == '#') continue;
        if (line[0] != ' ') {
            const std::size_t space = content.find(' ');
            const std::size_t colon = content.find(':');
            if (space > colon || colon == std::string_view::npos)
                fail("expected a table or a rule: " + std::string(line));
            const std::string name(content.substr(space + 1, colon - space - 1));
            table = nullptr;
            rule = nullptr;
            if (content.substr(0, space) == "table") {
                table = &tables_[name];
                for (const std::string_view column : split(trim(content.substr(colon + 1)), ' '))
                    table->columns.emplace_back(column);
            } else {
                rule = &rules_[name];
                if (start_.empty()) start_ = name;
            }
        } else if (table != nullptr) {
            std::vector<Sequence> row;
            for (const std::string_view cell : split(content, '/')) {
                std::size_t position = 0;
                row.push_back(parse_sequence(cell, position));
            }
            if (row.size() != table->columns.size()) fail("a row does not fill its columns: " + std::string(line));
            table->rows.push_back(std::move(row));
        } else if (rule != nullptr) {
            std::size_t position = 0;
            add_alternative(*rule, content, position);
        } else {
            fail("a line that belongs to nothing: " + std::string(line));
        }
    }
    for (const Sequence& alternative : this->rule(start_).alternatives)
        find_origins(alternative, "", {});
}

void Grammar::add_alternative(Choice& choice, std::string_view text, std::size_t& position) const {
    std::uint32_t weight = 1;
    const std::size_t star = text.find_first_not_of("0123456789", position);
    if (star != std::string_view::npos && star > position && text[star] == '*') {
        weight = static_cast<std::uint32_t>(std::stoul(std::string(text.substr(position, star - position))));
        position = star + 1;
    }
    choice.alternatives.push_back(parse_sequence(text, position));
    choice.weights.push_back(weight);
    choice.total += weight;
}

/// Stops at the end of the text and before a `|` or `]`.
Grammar::Sequence Grammar::parse_sequence(std::string_view text, std::size_t& position) const {
    Sequence sequence;
    std::string literal;
    const auto push = [&](Node node) {
        if (!literal.empty()) {
            Node before;
            before.text = std::exchange(literal, {});
            sequence.push_back(std::move(before));
        }
        sequence.push_back(std::move(node));
    };
    const auto until = [&](char close) {
        const std::size_t begin = position + 1;
        const std::size_t end = text.find(close, begin);
        if (end == std::string_view::npos) fail("not closed: " + std::string(text));
        position = end + 1;
        return text.substr(begin, end - begin);
    };
    while (position < text.size() && text[position] != '|' && text[position] != ']') {
        if (text[position] == '[') {
            Node node;
            node.kind = Node::Kind::choice;
            do {
                ++position;
                add_alternative(node.choice, text, position);
                if (position == text.size()) fail("not closed: " + std::string(text));
            } while (text[position] == '|');
            ++position;
            push(std::move(node));
        } else if (text[position] == '{') {
            Node node;
            node.kind = Node::Kind::rule;
            node.text = until('}');
            if (node.text.starts_with('^')) {
                node.capital = true;
                node.text.erase(0, 1);
            }
            push(std::move(node));
        } else if (text[position] == '<') {
            push(parse_reference(until('>')));
        } else if (text.substr(position, 2) == "\\n") {
            literal += '\n';
            position += 2;
        } else {
            literal += text[position++];
        }
    }
    if (!literal.empty()) {
        Node node;
        node.text = std::move(literal);
        sequence.push_back(std::move(node));
    }
    return sequence;
}

Grammar::Node Grammar::parse_reference(std::string_view text) const {
    Node node;
    node.kind = Node::Kind::reference;
    if (text.substr(0, 1) == "^") {
        node.capital = true;
        text.remove_prefix(1);
    }
    if (const std::size_t dot = text.find('.'); dot != std::string_view::npos) {
        node.column = text.substr(dot + 1);
        text = text.substr(0, dot);
    }
    if (const std::size_t equals = text.find('='); equals != std::string_view::npos) {
        node.kind = Node::Kind::draw;
        node.table = text.substr(equals + 1);
        text = text.substr(0, equals);
    }
    node.variable = text;
    return node;
}

const Grammar::Table& Grammar::table(const std::string& name) const {
    const auto found = tables_.find(name);
    if (found == tables_.end() || found->second.rows.empty()) fail("no table " + name);
    return found->second;
}

const Grammar::Choice& Grammar::rule(const std::string& name) const {
    const auto found = rules_.find(name);
    if (found == rules_.end() || found->second.alternatives.empty()) fail("no rule " + name);
    return found->second;
}

const Grammar::Sequence& Grammar::column(const Value& value, const std::string& name) const {
    if (name.empty()) return value.table->rows[value.row][0];
    const auto& names = value.table->columns;
    const auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end()) fail("no column " + name);
    return value.table->rows[value.row][static_cast<std::size_t>(found - names.begin())];
}

/// Notes where each variable is drawn: at the top, or inside a column of the row that `parent` has.
void Grammar::find_origins(const Sequence& sequence, const std::string& parent, const Value& parent_value) {
    for (const Node& node : sequence) {
        if (node.kind == Node::Kind::choice || node.kind == Node::Kind::rule) {
            for (const Sequence& alternative :
                 (node.kind == Node::Kind::rule ? rule(node.text) : node.choice).alternatives)
                find_origins(alternative, parent, parent_value);
        } else if (node.kind == Node::Kind::draw) {
            const Table& drawn = table(node.table);
            Origin& origin = origins_[node.variable];
            if (!origin.tables.empty() && origin.parent != parent) fail("two origins of " + node.variable);
            origin.parent = parent;
            const auto same = std::find_if(origin.tables.begin(), origin.tables.end(),
                                           [&](const auto& entry) { return entry.first == parent_value; });
            if (same != origin.tables.end() && same->second != &drawn) fail("two tables for " + node.variable);
            if (same == origin.tables.end()) origin.tables.emplace_back(parent_value, &drawn);
            // All columns, since a later reference may print any of them.
            for (std::size_t row = 0; row < drawn.rows.size(); ++row)
                for (const Sequence& cell : drawn.rows[row])
                    find_origins(cell, node.variable, {&drawn, row});
        }
    }
}

// ---- Writing --------------------------------------------------------------------------------------------------------

struct Grammar::Writing {
    const std::function<std::uint64_t(std::uint64_t)>& below;
    Story story;
    Values values;
    bool capital = false;

    std::uint32_t choose(std::uint32_t count) {
        story.choices.push_back(static_cast<std::uint32_t>(below(count)));
        story.nats += nats_of(1, count);
        return story.choices.back();
    }
    std::uint32_t choose(const Choice& choice) {
        std::uint64_t ticket = below(choice.total);
        std::uint32_t index = 0;
        while (ticket >= choice.weights[index])
            ticket -= choice.weights[index++];
        story.choices.push_back(index);
        story.nats += nats_of(choice.weights[index], choice.total);
        return index;
    }
};

Grammar::Story Grammar::write(const std::function<std::uint64_t(std::uint64_t)>& below) const {
    Writing writing{below, {}, {}};
    const Choice& start = rule(start_);
    write(start.alternatives[writing.choose(start)], writing);
    return std::move(writing.story);
}

void Grammar::write(const Sequence& sequence, Writing& writing) const {
    for (const Node& node : sequence) {
        writing.capital = writing.capital || node.capital;
        switch (node.kind) {
        case Node::Kind::text:
            writing.story.text += writing.capital ? upper(node.text[0]) : node.text[0];
            writing.story.text.append(node.text, 1);
            writing.capital = false;
            break;
        case Node::Kind::choice: write(node.choice.alternatives[writing.choose(node.choice)], writing); break;
        case Node::Kind::rule: {
            const Choice& choice = rule(node.text);
            write(choice.alternatives[writing.choose(choice)], writing);
            break;
        }
        case Node::Kind::draw: {
            const Table& drawn = table(node.table);
            const Value value{&drawn, writing.choose(static_cast<std::uint32_t>(drawn.rows.size()))};
            if (!writing.values.emplace(node.variable, value).second) fail(node.variable + " is drawn twice");
            write(column(value, node.column), writing);
            break;
        }
        case Node::Kind::reference: {
            const auto value = writing.values.find(node.variable);
            if (value == writing.values.end()) fail(node.variable + " is used before it is drawn");
            write(column(value->second, node.column), writing);
            break;
        }
        }
    }
}

// ---- Reading --------------------------------------------------------------------------------------------------------

/// What remains to be matched: a sequence from an index on, then the rest of the frame that it is part of.
struct Grammar::Frame {
    const Sequence* sequence;
    std::size_t index;
    const Frame* parent;
};

struct Grammar::Reading {
    std::string_view text;
    Story story; ///< the derivation so far
    Values values;
    std::vector<Story> whole;      ///< derivations of a beginning of the text
    double prefix_probability = 0; ///< of the derivations that the text is a beginning of

    template <class Continue>
    void choose(std::size_t index, double nats, Continue&& go_on) {
        const double before = story.nats;
        story.nats += nats;
        story.choices.push_back(static_cast<std::uint32_t>(index));
        go_on();
        story.choices.pop_back();
        story.nats = before;
    }
};

void Grammar::read(const Frame* frame, std::size_t position, bool capital, Reading& reading) const {
    while (frame != nullptr && frame->index == frame->sequence->size())
        frame = frame->parent;
    if (frame == nullptr) {
        reading.whole.push_back(reading.story);
        reading.whole.back().text = reading.text.substr(0, position);
    }
    if (frame == nullptr || position == reading.text.size()) {
        if (position == reading.text.size()) reading.prefix_probability += std::exp(-reading.story.nats);
        return;
    }
    const Node& node = (*frame->sequence)[frame->index];
    const Frame next{frame->sequence, frame->index + 1, frame->parent};
    capital = capital || node.capital;
    const auto enter = [&](const Sequence& sequence) {
        const Frame inside{&sequence, 0, &next};
        read(&inside, position, capital, reading);
    };
    const auto enter_any = [&](const Choice& choice) {
        for (std::size_t i = 0; i < choice.alternatives.size(); ++i)
            reading.choose(i, nats_of(choice.weights[i], choice.total), [&] { enter(choice.alternatives[i]); });
    };
    switch (node.kind) {
    case Node::Kind::text: {
        const std::string_view rest = reading.text.substr(position);
        const std::size_t count = std::min(rest.size(), node.text.size());
        if (rest[0] != (capital ? upper(node.text[0]) : node.text[0])) return;
        if (rest.substr(1, count - 1) != std::string_view(node.text).substr(1, count - 1)) return;
        if (count < node.text.size())
            reading.prefix_probability += std::exp(-reading.story.nats);
        else
            read(&next, position + count, false, reading);
        break;
    }
    case Node::Kind::choice: enter_any(node.choice); break;
    case Node::Kind::rule: enter_any(rule(node.text)); break;
    case Node::Kind::draw: {
        const Table& drawn = table(node.table);
        for (std::size_t row = 0; row < drawn.rows.size(); ++row) {
            reading.values[node.variable] = {&drawn, row};
            reading.choose(row, nats_of(1, static_cast<std::uint32_t>(drawn.rows.size())), [&] {
                enter(column({&drawn, row}, node.column));
            });
        }
        break;
    }
    case Node::Kind::reference: enter(column(reading.values.at(node.variable), node.column)); break;
    }
}

Grammar::Reading Grammar::read_all(std::string_view text) const {
    Node node;
    node.kind = Node::Kind::rule;
    node.text = start_;
    const Sequence start{node};
    const Frame frame{&start, 0, nullptr};
    Reading reading{text, {}, {}, {}};
    read(&frame, 0, false, reading);
    return reading;
}

std::vector<Grammar::Story> Grammar::read(std::string_view text) const { return read_all(text).whole; }

double Grammar::prefix_nats(std::string_view text) const { return -std::log(read_all(text).prefix_probability); }

// ---- Expectations ---------------------------------------------------------------------------------------------------

namespace {
template <class Expectation>
void add(Expectation& sum, double weight, const Expectation& term) {
    sum.nats += weight * term.nats;
    sum.characters += weight * term.characters;
}
} // namespace

Grammar::Expectation Grammar::expectation() const {
    Values known;
    return expect(rule(start_), known);
}

Grammar::Expectation Grammar::expect(const Choice& choice, Values& known) const {
    Expectation sum;
    for (std::size_t i = 0; i < choice.alternatives.size(); ++i) {
        const double probability = static_cast<double>(choice.weights[i]) / choice.total;
        add(sum, probability, {nats_of(choice.weights[i], choice.total), 0});
        add(sum, probability, expect(choice.alternatives[i], known));
    }
    return sum;
}

/// Expectations add up, so each node is taken alone: over the variables it mentions, given those `known` because the
/// node stands in one of their columns.
Grammar::Expectation Grammar::expect(const Sequence& sequence, Values& known) const {
    Expectation sum;
    for (const Node& node : sequence) {
        switch (node.kind) {
        case Node::Kind::text: sum.characters += static_cast<double>(node.text.size()); break;
        case Node::Kind::choice: add(sum, 1, expect(node.choice, known)); break;
        case Node::Kind::rule: add(sum, 1, expect(rule(node.text), known)); break;
        case Node::Kind::draw:
            sum.nats += nats_of(1, static_cast<std::uint32_t>(table(node.table).rows.size()));
            [[fallthrough]];
        case Node::Kind::reference: add(sum, 1, expect_reference(node, known)); break;
        }
    }
    return sum;
}

Grammar::Expectation Grammar::expect_reference(const Node& node, Values& known) const {
    if (const auto value = known.find(node.variable); value != known.end())
        return expect(column(value->second, node.column), known);

    const auto found = origins_.find(node.variable);
    if (found == origins_.end()) fail(node.variable + " is never drawn");
    const Origin& origin = found->second;

    // First the values of the variables that this one depends on, then its own.
    if (!origin.parent.empty() && !known.contains(origin.parent)) {
        const Origin& above = origins_.at(origin.parent);
        if (!above.parent.empty()) fail("variables depend on each other over more than one step: " + node.variable);
        Expectation sum;
        const Table& rows = *above.tables.front().second;
        for (std::size_t row = 0; row < rows.rows.size(); ++row) {
            known[origin.parent] = {&rows, row};
            add(sum, 1.0 / static_cast<double>(rows.rows.size()), expect_reference(node, known));
        }
        known.erase(origin.parent);
        return sum;
    }
    for (const auto& [name, value] : known)
        if (origins_.at(name).parent == node.variable)
            fail("a column of " + name + " mentions " + node.variable + ", which it depends on");

    const Value parent_value = origin.parent.empty() ? Value{} : known.at(origin.parent);
    const auto entry = std::find_if(origin.tables.begin(), origin.tables.end(),
                                    [&](const auto& candidate) { return candidate.first == parent_value; });
    if (entry == origin.tables.end()) fail(node.variable + " is not drawn in every row of " + origin.parent);
    const Table& rows = *entry->second;
    Expectation sum;
    for (std::size_t row = 0; row < rows.rows.size(); ++row) {
        known[node.variable] = {&rows, row};
        add(sum, 1.0 / static_cast<double>(rows.rows.size()), expect(column({&rows, row}, node.column), known));
    }
    known.erase(node.variable);
    return sum;
}

// ---- Unambiguity ----------------------------------------------------------------------------------------------------

/// All texts that a sequence can produce, whatever the values of variables drawn elsewhere, as an automaton without
/// cycles.
class Grammar::Automaton {
public:
    Automaton(const Grammar& grammar, const Sequence& sequence) : grammar_(grammar), accept_(add(sequence, 0, false)) {}

    /// A text of one automaton that is the whole or the beginning of a text of the other; empty when there is none.
    static std::string confusion(const Automaton& a, const Automaton& b) {
        std::set<std::pair<std::size_t, std::size_t>> seen;
        std::string text;
        return follow(a, b, a.closure(0), b.closure(0), text, seen) ? "\"" + text + "\"" : "";
    }

private:
    struct State {
        std::vector<std::size_t> free; ///< steps without a character
        std::vector<std::pair<char, std::size_t>> steps;
    };

    std::size_t new_state() {
        states_.emplace_back();
        return states_.size() - 1;
    }

    std::size_t add(const Sequence& sequence, std::size_t from, bool capital) {
        for (const Node& node : sequence) {
            capital = capital || node.capital;
            if (node.kind == Node::Kind::text) {
                for (const char c : node.text) {
                    const std::size_t to = new_state();
                    states_[from].steps.emplace_back(std::exchange(capital, false) ? upper(c) : c, to);
                    from = to;
                }
                continue;
            }
            const std::size_t to = new_state();
            const auto branch = [&](const Sequence& inside) {
                const std::size_t begin = new_state();
                states_[from].free.push_back(begin);
                const std::size_t end = add(inside, begin, capital);
                states_[end].free.push_back(to);
            };
            if (node.kind == Node::Kind::choice || node.kind == Node::Kind::rule) {
                const Choice& choice = node.kind == Node::Kind::rule ? grammar_.rule(node.text) : node.choice;
                for (const Sequence& alternative : choice.alternatives)
                    branch(alternative);
            } else {
                std::vector<const Table*> tables;
                if (node.kind == Node::Kind::draw) {
                    tables.push_back(&grammar_.table(node.table));
                } else {
                    for (const auto& [parent, table] : grammar_.origins_.at(node.variable).tables)
                        tables.push_back(table);
                }
                for (const Table* const table : tables)
                    for (std::size_t row = 0; row < table->rows.size(); ++row)
                        branch(grammar_.column({table, row}, node.column));
            }
            from = to;
            capital = false;
        }
        return from;
    }

    std::vector<std::size_t> closure(std::size_t state) const {
        std::vector<std::size_t> states{state};
        std::set<std::size_t> seen{state};
        for (std::size_t i = 0; i < states.size(); ++i)
            for (const std::size_t next : states_[states[i]].free)
                if (seen.insert(next).second) states.push_back(next);
        return states;
    }

    bool accepts(const std::vector<std::size_t>& states) const {
        return std::find(states.begin(), states.end(), accept_) != states.end();
    }

    static bool follow(const Automaton& a, const Automaton& b, const std::vector<std::size_t>& in_a,
                       const std::vector<std::size_t>& in_b, std::string& text,
                       std::set<std::pair<std::size_t, std::size_t>>& seen) {
        if (a.accepts(in_a) || b.accepts(in_b)) return true;
        for (const std::size_t i : in_a)
            for (const auto& [c, next_a] : a.states_[i].steps)
                for (const std::size_t j : in_b)
                    for (const auto& [d, next_b] : b.states_[j].steps) {
                        if (c != d || !seen.emplace(next_a, next_b).second) continue;
                        text.push_back(c);
                        if (follow(a, b, a.closure(next_a), b.closure(next_b), text, seen)) return true;
                        text.pop_back();
                    }
        return false;
    }

    const Grammar& grammar_;
    std::vector<State> states_{1};
    std::size_t accept_;
};

std::vector<std::string> Grammar::confusions() const {
    std::vector<std::string> found;
    const auto compare = [&](const std::vector<const Sequence*>& alternatives, const std::string& where) {
        std::vector<Automaton> automata;
        for (const Sequence* const alternative : alternatives)
            automata.emplace_back(*this, *alternative);
        for (std::size_t i = 0; i < automata.size(); ++i)
            for (std::size_t j = 0; j < i; ++j)
                if (const std::string text = Automaton::confusion(automata[j], automata[i]); !text.empty())
                    found.push_back(where + ": alternatives " + std::to_string(j + 1) + " and " +
                                    std::to_string(i + 1) + " both begin " + text);
    };
    std::function<void(const Sequence&, const std::string&)> visit;
    const auto visit_choice = [&](const Choice& choice, const std::string& where) {
        std::vector<const Sequence*> alternatives;
        for (const Sequence& alternative : choice.alternatives) {
            alternatives.push_back(&alternative);
            visit(alternative, where);
        }
        compare(alternatives, where);
    };
    visit = [&](const Sequence& sequence, const std::string& where) {
        for (const Node& node : sequence) {
            if (node.kind == Node::Kind::choice) visit_choice(node.choice, where);
            if (node.kind == Node::Kind::draw) {
                const Table& drawn = table(node.table);
                std::vector<const Sequence*> cells;
                for (std::size_t row = 0; row < drawn.rows.size(); ++row)
                    cells.push_back(&column({&drawn, row}, node.column));
                compare(cells, where + ", <" + node.variable + "=" + node.table + ">");
            }
        }
    };
    for (const auto& [name, choice] : rules_)
        visit_choice(choice, "rule " + name);
    for (const auto& [name, table] : tables_)
        for (const auto& row : table.rows)
            for (const Sequence& cell : row)
                visit(cell, "table " + name);
    return found;
}

// ---- Stories in a row -----------------------------------------------------------------------------------------------

std::string write_stories(const Grammar& grammar, std::uint64_t seed, std::size_t bytes) {
    const RandomStream stream(seed, "stories");
    std::uint64_t drawn = 0;
    std::string text;
    while (text.size() < bytes)
        text += grammar.write([&](std::uint64_t bound) { return stream.below(drawn++, bound); }).text;
    return text;
}

double nats_of_stories(const Grammar& grammar, std::string_view text) {
    double nats = 0;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::string_view rest = text.substr(begin);
        const std::vector<Grammar::Story> stories = grammar.read(rest);
        const auto not_one = [&](const std::string& how) {
            fail("the story at byte offset " + std::to_string(begin) + " follows in " + how + "; expected one way");
        };
        if (stories.size() > 1) not_one("several ways");
        if (stories.empty()) {
            const double end = grammar.prefix_nats(rest);
            if (std::isinf(end)) not_one("no way");
            return nats + end;
        }
        nats += stories[0].nats;
        begin += stories[0].text.size();
    }
    return nats;
}

} // namespace ballast
