#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ballast {

/// A stochastic grammar with variables, read from text, whose stories can be written, read back and measured: a source
/// of training text whose true entropy is known, and with it the lowest loss that a language model can reach.
///
///     table pet: kind noise            a table and its columns; each row is one value a variable can have
///       dog / barked
///       cat / purred [softly|loudly]
///     rule story:                      a rule; each line is one alternative, all equally likely
///       A <pet=pet> came. The <pet> <pet.noise>.\n
///       {other rule}, said [she|he].
///
/// `[a|b]` chooses, `{rule}` stands for a rule, `<v=table>` draws a row for the variable v and prints its first column
/// (`<v=table.column>` another one), `<v>` and `<v.column>` print columns of the row that v has; `<^v>`, `<^v=table>`
/// and `{^rule}` print with a capital. Columns may hold choices, draws and references. `3*` before an alternative makes
/// it three times as likely, `\n` is a new line and # begins a comment line. Blanks around lines and cells are dropped.
///
/// Three things are required, so that probabilities are exact; the first is checked by confusions(), the others when
/// an expectation is taken:
/// - among the alternatives of a choice, no text that one can produce is the beginning of a text that another can. Read
///   from left to right, a text then has at most one derivation: its probability is the product of its choices';
/// - a variable is drawn once in a story, from one table, or from one table for each row of a second variable in whose
///   columns it is drawn. What is drawn and chosen is otherwise independent;
/// - a column does not mention a variable that the drawing of its own variable depends on, unless that is known.
class Grammar {
public:
    /// Throws DataError naming what the text gets wrong. The first rule is the start.
    explicit Grammar(std::string_view text);

    struct Story {
        std::string text;
        std::vector<std::uint32_t> choices; ///< index of the alternative or row, in the order of the text
        double nats = 0;                    ///< -log probability
    };

    /// Writes a story with `below(n)`, a uniform integer in [0, n).
    Story write(const std::function<std::uint64_t(std::uint64_t)>& below) const;

    /// Every derivation of a story that `text` begins with (Story::text is that part): one, or none, for a grammar
    /// without confusions.
    std::vector<Story> read(std::string_view text) const;

    /// -log of the probability that a story begins with `text`, which may stop anywhere.
    double prefix_nats(std::string_view text) const;

    struct Expectation {
        double nats = 0;       ///< entropy of a story
        double characters = 0; ///< mean length of a story
    };

    /// Exact, by recursion over the grammar.
    Expectation expectation() const;

    /// One line for each pair of alternatives whose texts may be confused: empty when derivations are unambiguous.
    /// Errs on the side of reporting, since it lets a reference print any value its variable may have.
    std::vector<std::string> confusions() const;

private:
    struct Node;
    using Sequence = std::vector<Node>;

    struct Choice {
        std::vector<Sequence> alternatives;
        std::vector<std::uint32_t> weights;
        std::uint32_t total = 0;
    };
    struct Node {
        enum class Kind { text, choice, rule, draw, reference };
        Kind kind = Kind::text;
        std::string text; ///< text, or the name of the rule
        Choice choice;
        std::string variable;
        std::string table;    ///< draw
        std::string column;   ///< draw and reference; empty: the first
        bool capital = false; ///< rule, draw and reference
    };
    struct Table {
        std::vector<std::string> columns;
        std::vector<std::vector<Sequence>> rows;
    };
    /// A row of a table: what a variable has for a value.
    struct Value {
        const Table* table = nullptr;
        std::size_t row = 0;
        bool operator==(const Value&) const = default;
    };
    using Values = std::map<std::string, Value>;

    /// How a variable gets its value: from one table, or from one for each row of `parent`.
    struct Origin {
        std::string parent;
        std::vector<std::pair<Value, const Table*>> tables; ///< the Value is that of the parent
    };

    class Automaton;
    struct Writing;
    struct Reading;
    struct Frame;

    Sequence parse_sequence(std::string_view text, std::size_t& position) const;
    Node parse_reference(std::string_view text) const;
    void add_alternative(Choice& choice, std::string_view text, std::size_t& position) const;

    const Table& table(const std::string& name) const;
    const Choice& rule(const std::string& name) const;
    const Sequence& column(const Value& value, const std::string& name) const;
    void find_origins(const Sequence& sequence, const std::string& parent, const Value& parent_value);

    void write(const Sequence& sequence, Writing& writing) const;
    Reading read_all(std::string_view text) const;
    void read(const Frame* frame, std::size_t position, bool capital, Reading& reading) const;
    Expectation expect(const Choice& choice, Values& known) const;
    Expectation expect(const Sequence& sequence, Values& known) const;
    Expectation expect_reference(const Node& node, Values& known) const;

    std::map<std::string, Table> tables_;
    std::map<std::string, Choice> rules_;
    std::string start_;
    std::map<std::string, Origin> origins_;
};

/// Whole stories one after the other until there are at least `bytes`, a function of the seed alone.
std::string write_stories(const Grammar& grammar, std::uint64_t seed, std::size_t bytes);

/// -log of the probability, in nats, that an endless row of stories begins with `text`, which may stop anywhere. The
/// difference of two beginnings of a text is what a perfect model, which sees all that came before, loses in between.
/// Throws DataError, with the offset, where a story does not follow from the grammar in exactly one way.
double nats_of_stories(const Grammar& grammar, std::string_view text);

} // namespace ballast
