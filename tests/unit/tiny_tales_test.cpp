#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "ballast/base/file.h"
#include "ballast/base/rng.h"
#include "ballast/data/dataset.h"
#include "ballast/data/grammar.h"
#include "catch.h"

using namespace ballast;

namespace {

const std::filesystem::path kData = std::filesystem::path(BALLAST_SOURCE_DIR) / "data";

Grammar tales() { return Grammar(read_file(kData / "tiny_tales.grammar")); }

nlohmann::json facts() { return nlohmann::json::parse(read_file(kData / "tiny_tales.json")); }

} // namespace

TEST_CASE("the derivation of a tale is unambiguous") { CHECK(tales().confusions().empty()); }

TEST_CASE("the tool's seed and size give the corpus byte for byte") {
    const std::string text = read_file(kData / "tiny_tales.txt");
    CHECK(write_stories(tales(), facts().at("seed").get<std::uint64_t>(), 1000000) == text);
    CHECK(facts().at("bytes") == text.size());
    CHECK(std::all_of(text.begin(), text.end(), [](char c) { return c == '\n' || (c >= ' ' && c <= '~'); }));
}

TEST_CASE("reading a tale recovers the choices that wrote it") {
    const Grammar grammar = tales();
    const RandomStream stream(99, "other stories");
    std::uint64_t drawn = 0;
    const auto below = [&](std::uint64_t bound) { return stream.below(drawn++, bound); };
    constexpr int kStories = 2000;
    double nats = 0;
    double nats_squared = 0;
    double characters = 0;
    double characters_squared = 0;
    for (int i = 0; i < kStories; ++i) {
        const Grammar::Story story = grammar.write(below);
        const auto derivations = grammar.read(story.text + "Once upon");
        REQUIRE(derivations.size() == 1);
        REQUIRE(derivations[0].choices == story.choices);
        REQUIRE(derivations[0].text == story.text);
        REQUIRE(derivations[0].nats == Approx(story.nats));
        REQUIRE(story.text.ends_with("\n\n"));
        REQUIRE(story.text.size() > 500);
        REQUIRE(story.text.size() < 1000);
        const auto size = static_cast<double>(story.text.size());
        nats += story.nats;
        nats_squared += story.nats * story.nats;
        characters += size;
        characters_squared += size * size;
    }
    // The exact expectations lie within four standard errors of the sample's means.
    const Grammar::Expectation exact = grammar.expectation();
    const auto error = [](double sum, double squares) {
        const double mean = sum / kStories;
        return std::sqrt((squares / kStories - mean * mean) / kStories);
    };
    CHECK(std::abs(nats / kStories - exact.nats) < 4 * error(nats, nats_squared));
    CHECK(std::abs(characters / kStories - exact.characters) < 4 * error(characters, characters_squared));
}

TEST_CASE("the entropies beside the corpus are its own") {
    const Grammar grammar = tales();
    DataOptions options;
    options.path = kData / "tiny_tales.txt";
    const Dataset dataset(options);
    const std::string text = read_file(options.path);
    const auto size = static_cast<double>(text.size());
    const Grammar::Expectation exact = grammar.expectation();
    const double whole = nats_of_stories(grammar, text);
    const double train = nats_of_stories(grammar, text.substr(0, static_cast<std::size_t>(dataset.train().size())));
    CHECK(facts().at("entropy_nats_per_char") == Approx(exact.nats / exact.characters).margin(1e-6));
    CHECK(facts().at("text_nats_per_char") == Approx(whole / size).margin(1e-6));
    CHECK(facts().at("validation_nats_per_char") ==
          Approx((whole - train) / static_cast<double>(dataset.validation().size())).margin(1e-6));
    // Far below what a model without context can reach, and not nothing.
    CHECK(exact.nats / exact.characters > 0.2);
    CHECK(exact.nats / exact.characters < 0.1 * dataset.unigram_entropy());
}

TEST_CASE("a changed tale is not mistaken for one") {
    const Grammar grammar = tales();
    const std::string text = read_file(kData / "tiny_tales.txt");
    const std::string story = grammar.read(text).at(0).text;
    for (std::size_t i = 0; i < story.size(); ++i) {
        std::string changed = story;
        changed[i] = '#';
        CHECK(grammar.read(changed).empty());
    }
}
