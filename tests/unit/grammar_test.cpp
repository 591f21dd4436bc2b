#include "ballast/data/grammar.h"

#include <cmath>
#include <map>
#include <random>
#include <string>

#include "ballast/base/error.h"
#include "catch.h"

using namespace ballast;

namespace {

// A story needs its variables in columns, under parents, after choices: everything the grammar language has.
constexpr std::string_view kSmall = R"(
# child decides who may be the hero
table child: kind name they
  girl / <hero=girls> / she
  boy / <hero=boys> / he
table girls: name
  Ann
  Beatrice
table boys: name
  Carl
  [Dan|Emil] the Great
  Fritz
table pet: kind noise
  dog / barked [at <hero>|softly]
  cat / purred
rule story:
  3*There was <child=child.name>.[ {pet}|!]\n
  A <child=child> came: <child.name>. {^they} saw <hero>.\n
rule pet:
  A <pet=pet>! The <pet> <pet.noise>. <^pet.noise>!
rule they:
  <child.they>
)";

/// Every story with its probability, by always taking the next untried ticket.
std::map<std::string, double> all_stories(const Grammar& grammar) {
    std::map<std::string, double> stories;
    std::vector<std::uint64_t> tickets;
    for (;;) {
        std::vector<std::uint64_t> bounds;
        double probability = 1;
        const Grammar::Story story = grammar.write([&](std::uint64_t bound) {
            if (bounds.size() == tickets.size()) tickets.push_back(0);
            probability /= static_cast<double>(bound);
            bounds.push_back(bound);
            return tickets[bounds.size() - 1];
        });
        stories[story.text] += probability;
        while (!tickets.empty() && tickets.back() + 1 == bounds[tickets.size() - 1])
            tickets.pop_back();
        if (tickets.empty()) return stories;
        ++tickets.back();
    }
}

std::string message_of(const std::string& grammar_text) {
    try {
        const Grammar grammar(grammar_text);
        grammar.expectation();
    } catch (const DataError& error) {
        return error.what();
    }
    return "";
}

std::size_t confusions(const std::string& grammar_text) { return Grammar(grammar_text).confusions().size(); }

} // namespace

TEST_CASE("probabilities of a small grammar are exact") {
    const Grammar grammar(kSmall);
    CHECK(grammar.confusions().empty());
    const auto stories = all_stories(grammar);
    CHECK(stories.at("There was Ann.!\n") == Approx(0.75 * 0.5 * 0.5 * 0.5));
    CHECK(stories.at("There was Emil the Great. A cat! The cat purred. Purred!\n") ==
          Approx(0.75 * 0.5 / 3 * 0.5 * 0.5 * 0.5));
    CHECK(stories.at("A girl came: Beatrice. She saw Beatrice.\n") == Approx(0.25 * 0.5 * 0.5));
    CHECK(stories.contains("A boy came: Dan the Great. He saw Emil the Great.\n")); // a column chooses each time
    CHECK_FALSE(stories.contains("A boy came: Ann. He saw Ann.\n"));

    double sum = 0;
    double nats = 0;
    double characters = 0;
    for (const auto& [text, probability] : stories) {
        sum += probability;
        nats -= probability * std::log(probability);
        characters += probability * static_cast<double>(text.size());
        const auto derivations = grammar.read(text + "There was");
        REQUIRE(derivations.size() == 1);
        CHECK(derivations[0].text == text);
        CHECK(derivations[0].nats == Approx(-std::log(probability)));
    }
    CHECK(sum == Approx(1));
    const Grammar::Expectation expectation = grammar.expectation();
    CHECK(expectation.nats == Approx(nats));
    CHECK(expectation.characters == Approx(characters));

    for (const auto& [text, probability] : stories) {
        for (std::size_t size = 0; size <= text.size(); ++size) {
            double together = 0;
            for (const auto& [other, other_probability] : stories)
                if (other.starts_with(text.substr(0, size))) together += other_probability;
            CHECK(grammar.prefix_nats(text.substr(0, size)) == Approx(-std::log(together)).margin(1e-12));
        }
    }
}

TEST_CASE("nats of stories in a row add up, and a part of a story counts for what it says") {
    const Grammar grammar(kSmall);
    const std::string text = write_stories(grammar, 7, 500);
    CHECK(text == write_stories(grammar, 7, 500));
    CHECK(text != write_stories(grammar, 8, 500));
    CHECK(text.size() >= 500);
    double before = 0;
    for (std::size_t size = 0; size <= text.size(); ++size) {
        const double nats = nats_of_stories(grammar, text.substr(0, size));
        CHECK(nats >= before - 1e-9);
        before = nats;
    }
    const std::string first = "There was Ann.!\n";
    CHECK(nats_of_stories(grammar, first + first) == Approx(2 * std::log(32.0 / 3)));
    CHECK(nats_of_stories(grammar, first + "T") == Approx(std::log(32.0 / 3) + std::log(4.0 / 3)));
    CHECK_THROWS_AS(nats_of_stories(grammar, first + "X"), DataError);
    CHECK_THROWS_AS(nats_of_stories(grammar, first + "There was Bob"), DataError);
}

TEST_CASE("a choice that the text cannot settle is reported, wherever it hides") {
    CHECK(confusions("rule s:\n  [a|b]c\n") == 0);
    CHECK(confusions("rule s:\n  [a|ab]c\n") == 1);
    CHECK(confusions("rule s:\n  [a|]c\n") == 1);
    CHECK(confusions("rule s:\n  [a|a]\n") == 1);
    CHECK(confusions("rule s:\n  x\n  xy\n  z\n") == 1);
    CHECK(confusions("rule s:\n  [a[x|y]|a[y|z]]\n") == 1);
    CHECK(confusions("rule s:\n  [a[x|y]|a[v|z]]\n") == 0);
    CHECK(confusions("rule s:\n  [{r}|bb]\nrule r:\n  a\n  b\n") == 1);
    CHECK(confusions("table t: c\n  ball\n  balloon\nrule s:\n  <v=t>.\n") == 1);
    CHECK(confusions("table t: c d\n  x / same\n  y / same\nrule s:\n  <v=t.d> <v>.\n") == 1);
    CHECK(confusions("table t: c\n  x[p|pq]\nrule s:\n  <v=t>.\n") == 1);
    CHECK(confusions("table t: c\n  ab\n  b\nrule s:\n  <v=t> [<v>|A|abc]\n") == 1);
    CHECK(confusions("table t: c\n  ab\n  b\nrule s:\n  <v=t> [<^v>|A|abc]\n") == 1);
    CHECK(confusions("table t: c\n  ab\n  b\nrule s:\n  <v=t> [<^v>|C|abc]\n") == 0);
}

TEST_CASE("an ambiguous text has several derivations, and they are found") {
    const Grammar grammar("rule s:\n  [a|ab][c|bc]\n");
    CHECK(grammar.read("abc").size() == 2);
    CHECK(grammar.prefix_nats("abc") == Approx(std::log(2.0)));
    CHECK_THROWS_AS(nats_of_stories(grammar, "abc"), DataError);
}

TEST_CASE("mistakes in a grammar are named") {
    const auto contains = [](const std::string& text, const std::string& part) {
        CAPTURE(text);
        return text.find(part) != std::string::npos;
    };
    CHECK(contains(message_of(""), "no rule"));
    CHECK(contains(message_of("story\n  x\n"), "expected a table or a rule"));
    CHECK(contains(message_of("  x\n"), "belongs to nothing"));
    CHECK(contains(message_of("rule s:\n  {r}\n"), "no rule r"));
    CHECK(contains(message_of("rule s:\n  <v=t>\n"), "no table t"));
    CHECK(contains(message_of("rule s:\n  <v>\n"), "v is never drawn"));
    CHECK(contains(message_of("rule s:\n  [a|b\n"), "not closed"));
    CHECK(contains(message_of("rule s:\n  {r\n"), "not closed"));
    CHECK(contains(message_of("table t: a b\n  x\nrule s:\n  <v=t>\n"), "does not fill its columns"));
    CHECK(contains(message_of("table t: a\n  x\nrule s:\n  <v=t.b>\n"), "no column b"));
    CHECK(contains(message_of("table t: a\n  x\ntable u: a\n  y\nrule s:\n  <v=t>\n  <v=u>\n"), "two tables for v"));
    const Grammar twice("table t: a\n  x\nrule s:\n  <v=t><v=t>\n");
    CHECK_THROWS_AS(twice.write([](std::uint64_t) { return 0U; }), DataError);
}
