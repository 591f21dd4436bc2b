// Verdicts, records and pages of claims.

#include <cmath>
#include <limits>
#include <set>

#include "ballast/base/error.h"
#include "ballast/base/file.h"
#include "ballast/lab/claim.h"
#include "ballast/lab/claim_record.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

ClaimRecord record_with(const std::string& criterion, double value) {
    ClaimRecord record;
    record.name = "b13";
    record.criterion = criterion;
    record.result.require_at_least("ratio \"a/b\"", value, 2);
    record.result.report("|nothing|", kNone);
    record.result.chart = {"Title <&>", "x", "y", true, true, {{"one", {{1, 10}, {10, 1000}, {0, 5}, {3, kNone}}}}};
    record.result.remarks = {"A remark."};
    record.runs = 3;
    record.seconds = 0.1;
    record.training_seconds = 1e3;
    record.version = "1";
    record.cpu = "some";
    record.date = "2024-01-01T00:00:00Z";
    return record;
}

} // namespace

TEST_CASE("a claim is as good as its worst figure that is judged") {
    ClaimResult result;
    CHECK(result.verdict() == ClaimVerdict::inconclusive);
    result.report("aside", 1e9);
    CHECK(result.verdict() == ClaimVerdict::inconclusive);
    result.require_within("in", 1, 0, 1);
    result.require_at_most("at the limit", 2, 2);
    result.require("true", true);
    CHECK(result.verdict() == ClaimVerdict::pass);
    ClaimResult undecided = result;
    undecided.require_at_least("none", kNone, 0);
    CHECK(undecided.verdict() == ClaimVerdict::inconclusive);
    undecided.require("false", false);
    CHECK(undecided.verdict() == ClaimVerdict::fail);
}

TEST_CASE("a difference has to be above twice its standard error") {
    const auto verdict = [](std::vector<double> values) {
        ClaimResult result;
        result.require_above_noise("difference", sample_of(values));
        return result.verdict();
    };
    CHECK(verdict({1.0, 1.1, 0.9}) == ClaimVerdict::pass);
    CHECK(verdict({-1.0, -1.1, -0.9}) == ClaimVerdict::fail);
    CHECK(verdict({1.0, -1.0, 0.5}) == ClaimVerdict::inconclusive);
    CHECK(verdict({1.0}) == ClaimVerdict::inconclusive);
    CHECK(verdict({}) == ClaimVerdict::inconclusive);
}

TEST_CASE("a record reads back to the same, and the result by an earlier criterion is kept") {
    const TemporaryDirectory directory;
    CHECK_FALSE(read_claim_record(directory.path(), "b13"));
    write_claim_record(directory.path(), record_with("first", 1));
    const auto read = read_claim_record(directory.path(), "b13");
    REQUIRE(read);
    CHECK(to_json(*read) == to_json(record_with("first", 1)));
    CHECK(read->verdict() == ClaimVerdict::fail);

    write_claim_record(directory.path(), record_with("first", 1.5));
    CHECK_FALSE(read_claim_record(directory.path(), "b13", true));
    write_claim_record(directory.path(), record_with("second", 3));
    write_claim_record(directory.path(), record_with("third", 4));
    const auto first = read_claim_record(directory.path(), "b13", true);
    REQUIRE(first);
    CHECK(to_json(*first) == to_json(record_with("first", 1.5)));
    CHECK(read_claim_record(directory.path(), "b13")->criterion == "third");
    const std::string page = claims_page(directory.path(), "charts/");
    CHECK(page.find("**The first criterion** was: first") != std::string::npos);
    CHECK(page.find("Not run by this criterion yet") != std::string::npos);
    CHECK(page.find("](charts/b13.svg)") != std::string::npos);
    CHECK(page.find("\n| \\|nothing\\| | none |  |  |\n") != std::string::npos); // a bar would end the cell

    write_file_atomic(directory.path() / "b13.json", std::string_view("{\"name\": 1}"));
    CHECK_THROWS_AS(read_claim_record(directory.path(), "b13"), IoError);
}

TEST_CASE("a trial with other settings decides nothing") {
    ClaimRecord record = record_with("first", 3);
    CHECK(record.verdict() == ClaimVerdict::pass);
    record.settings = {"train.steps=4"};
    CHECK(record.verdict() == ClaimVerdict::inconclusive);
}

TEST_CASE("a chart shows the points that its axes can have") {
    const std::string svg = claim_svg(record_with("", 1).result.chart);
    CHECK(svg.find("Title &lt;&amp;&gt;") != std::string::npos);
    std::size_t circles = 0;
    for (std::size_t at = svg.find("<circle"); at != std::string::npos; at = svg.find("<circle", at + 1))
        ++circles;
    CHECK(circles == 2);
    CHECK(svg.find("nan") == std::string::npos);
    CHECK(claim_svg({"", "", "", false, false, {{"none", {{kNone, 1}}}}}).empty());
}

TEST_CASE("every claim says all that is asked of one") {
    std::set<std::string_view> names;
    for (const Claim* claim : claims()) {
        INFO(claim->name);
        CHECK(names.insert(claim->name).second);
        for (const std::string_view text : {claim->title, claim->source, claim->criterion, claim->note})
            CHECK_FALSE(text.empty());
        std::set<std::string_view> sweeps;
        for (const ClaimSweep& sweep : claim->sweeps) {
            CHECK((sweep.from.empty() || sweeps.count(sweep.from) == 1));
            sweeps.insert(sweep.name);
        }
    }
    CHECK(&claim_named("B13") == &claim_named("b13"));
    CHECK_THROWS_AS(claim_named("b99"), UsageError);
}
