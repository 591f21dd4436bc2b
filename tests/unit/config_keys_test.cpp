#include "ballast/config/keys.h"

#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string>

#include "ballast/config/config.h"
#include "ballast/config/describe.h"
#include "ballast/config/load.h"
#include "catch.h"
#include "config_random.h"

using namespace ballast;

namespace {

template <class T>
struct ListOf {
    static constexpr bool value = false;
};
template <class Item>
struct ListOf<std::vector<Item>> {
    static constexpr bool value = true;
};

/// Calls f(path, key) for every key of T, of its sections and of the items of its lists.
template <class T, class F>
void walk(const std::string& prefix, const F& f) {
    for_each_key<T>([&]<class M>(const Key<T, M>& key) {
        const std::string path = prefix + std::string(key.name);
        f(path, key);
        if constexpr (HasKeys<M>) walk<M>(path + ".", f);
        if constexpr (ListOf<M>::value) walk<typename M::value_type>(path + "[].", f);
    });
}

std::string whole_file(const std::string& name) {
    std::ifstream file(std::string(BALLAST_SOURCE_DIR) + "/" + name, std::ios::binary);
    REQUIRE(file.good());
    return {std::istreambuf_iterator<char>(file), {}};
}

template <class E>
void check_enum() {
    std::set<std::string_view> names;
    for (const auto& entry : values_of(E{})) {
        CHECK(names.insert(entry.name).second);
        CHECK(to_string(entry.value) == entry.name);
        E read = values_of(E{}).front().value;
        CHECK(from_string(entry.name, read));
        CHECK(read == entry.value);
    }
    E untouched = values_of(E{}).back().value;
    CHECK_FALSE(from_string("no such value", untouched));
    CHECK(untouched == values_of(E{}).back().value);
}

struct Small {
    BALLAST_KEYS_BEGIN(Small);
    int first = 1;
    BALLAST_KEY(first, "The first.", between(0, 9));
    double unlisted = 2;
    bool second = true;
    BALLAST_KEY(second, "The second.");
    BALLAST_KEYS_END;
};

} // namespace

TEST_CASE("a struct lists its keys in order and stays an aggregate", "[config]") {
    std::string names;
    for_each_key<Small>([&](const auto& key) { names += std::string(key.name) + ":" + std::string(key.doc) + ";"; });
    CHECK(names == "first:The first.;second:The second.;");
    const Small small{.first = 7, .unlisted = 0, .second = false};
    CHECK(small.first == 7);
    CHECK(small != Small{});
}

TEST_CASE("a rule contains what lies between its limits", "[config]") {
    CHECK(between(1, 3).contains(1));
    CHECK(between(1, 3).contains(3));
    CHECK_FALSE(between(1, 3).contains(3.0001));
    CHECK_FALSE(above(0).contains(0));
    CHECK(above(0).contains(5e-324));
    CHECK_FALSE(at_least(0).below(1).contains(1));
    CHECK(at_least(0).below(1).contains(0));
    CHECK(Rule{}.contains(-1e300));
    CHECK_FALSE(between(0, 1).contains(std::nan("")));
}

TEST_CASE("every key has one sentence", "[config]") {
    int keys = 0;
    walk<Config>("", [&](const std::string& path, const auto& key) {
        INFO(path);
        ++keys;
        REQUIRE(key.doc.size() > 10);
        CHECK(key.doc.back() == '.');
        CHECK(key.doc.find('\n') == std::string_view::npos);
        CHECK(key.doc.find('|') == std::string_view::npos); // it stands in a Markdown table
    });
    CHECK(keys > 60);
}

TEST_CASE("the whole config is made of listed keys", "[config]") {
    // A member without a BALLAST_KEY line keeps its default in a random config, and no test could see it; sizes can.
    std::size_t listed = 0, total = 0;
    const auto count = [&]<class T>(const T&) {
        std::size_t members = 0;
        for_each_key<T>([&]<class M>(const Key<T, M>&) { members += sizeof(M); });
        listed += members;
        total += sizeof(T);
        CHECK(members <= sizeof(T));
        CHECK(sizeof(T) - members < 4 * alignof(T)); // padding alone
    };
    walk<Config>("", [&]<class T, class M>(const std::string& path, const Key<T, M>&) {
        INFO(path);
        if constexpr (HasKeys<M>) count(M{});
        if constexpr (ListOf<M>::value) count(typename M::value_type{});
    });
    count(Config{});
    CHECK(listed <= total);
}

TEST_CASE("each enum's names are unique and read back", "[config]") {
    check_enum<NormKind>();
    check_enum<OwnNormKind>();
    check_enum<DepthScale>();
    check_enum<HeadNorm>();
    check_enum<EmbeddingScale>();
    check_enum<ResidualKind>();
    check_enum<Placement>();
    check_enum<OwnPlacement>();
    check_enum<Switch>();
    check_enum<FfnKind>();
    check_enum<PositionKind>();
    check_enum<InitKind>();
    check_enum<TokenizerKind>();
    check_enum<DataFormat>();
    check_enum<OptimizerKind>();
    check_enum<DecayKind>();
    check_enum<ScheduleKind>();
}

TEST_CASE("the defaults are valid, but for the data that only the user has", "[config]") {
    Config config;
    const auto problems = validate(config);
    REQUIRE(problems.size() == 1);
    CHECK(problems[0].path == "data.path");
    config.data.path = "text.txt";
    CHECK(validate(config).empty());
}

TEST_CASE("the schema and the reference list every key with its sentence", "[config]") {
    const std::string schema = config_schema(), reference = config_reference();
    std::size_t at_schema = 0, at_end = schema.size();
    walk<Config>("", [&](const std::string& path, const auto& key) {
        INFO(path);
        // A section's keys stand two levels deeper, those of a list's items three.
        const auto depth = 2 * std::count(path.begin(), path.end(), '.') + std::count(path.begin(), path.end(), '[');
        const std::string indent(static_cast<std::size_t>(4 + 2 * depth), ' ');
        // In the order of the list, with the indentation of its section.
        const std::size_t found = schema.find("\n" + indent + "\"" + std::string(key.name) + "\": {\n", at_schema);
        REQUIRE(found < at_end);
        at_schema = found + 1;
        CHECK(schema.find("\"description\": \"" + std::string(key.doc), found) < schema.find('}', found));
    });
    walk<Config>("", [&]<class T, class M>(const std::string& path, const Key<T, M>& key) {
        INFO(path);
        const std::string entry = HasKeys<M> ? "\n## `" + path + "`\n" : "\n| `" + std::string(key.name) + "` | ";
        CHECK(reference.find(entry) != std::string::npos);
        CHECK(reference.find(std::string(key.doc)) != std::string::npos);
    });
}

TEST_CASE("the generated files are up to date", "[config]") {
    // `ballast schema` and `ballast schema --reference` write them.
    CHECK(whole_file("configs/schema.json") == config_schema());
    CHECK(whole_file("docs/config.md") == config_reference());
}

TEST_CASE("diff lists exactly the keys that differ", "[config]") {
    Config a, b;
    CHECK(diff(a, b).empty());
    b.model.norm.placement = placement_named("post");
    b.optimizer.betas[1] = 0.95;
    b.train.steps = 7;
    const std::vector<KeyDifference> expected = {{"model.norm.placement", "\"pre\"", "\"post\""},
                                                 {"optimizer.betas", "[0.9, 0.99]", "[0.9, 0.95]"},
                                                 {"train.steps", "2000", "7"}};
    CHECK(diff(a, b) == expected);
}

TEST_CASE("a hash changes with every key", "[config]") {
    RandomConfig random(1);
    Config base = random.next(), target = random.next();
    resolve(base);
    resolve(target);
    std::set<std::string> hashes = {config_hash(base)};
    std::size_t changed = 0;
    for (const KeyDifference& difference : diff(base, target)) {
        INFO(difference.path);
        Config other = base;
        bool valid = true;
        try {
            const std::vector<std::string> overrides = {difference.path + "=" + difference.b};
            other = config_from_json(to_json(base), "x.json", overrides);
        } catch (const ConfigError&) {
            valid = false; // it does not go together with another key
        }
        if (!valid) continue;
        ++changed;
        CHECK(hashes.insert(config_hash(other)).second);
    }
    CHECK(changed > 20);
    CHECK(config_hash(base).size() == 16);
    CHECK(config_hash(Config(base)) == config_hash(base));
}
