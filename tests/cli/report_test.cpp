// `ballast report` as a user runs it; tests/interop/test_report.py looks at the page in a browser.

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

TEST_CASE("a report is one page, and is written over by the next") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const Outcome first = work.run({"report", "runs/small", "-o", "page.html"});
    CAPTURE(first.err);
    CHECK(first.status == 0);
    CHECK(contains(first.out, "page.html: 1 run, "));
    const std::string page = content(work / "page.html");
    CHECK(contains(page, "<!DOCTYPE html>"));
    CHECK_FALSE(contains(page, "<script src"));
    CHECK_FALSE(contains(page, "sourceMappingURL"));

    // A directory of runs stands for all of them.
    REQUIRE(work.run(train_small({"--out", "runs/other", "--set", "seed=2"})).status == 0);
    const Outcome second = work.run({"report", "runs", "--out", "page.html"});
    CHECK(second.status == 0);
    CHECK(contains(second.out, "page.html: 2 runs, "));
    CHECK(content(work / "page.html") != page);
    fs::create_directories(work / "sweep");
    fs::rename(work / "runs", work / "sweep" / "runs");
    CHECK(contains(work.run({"report", "sweep", "-o", "page.html"}).out, "page.html: 2 runs, "));
}

TEST_CASE("a report of runs that cannot be read says so") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    fs::create_directories(work / "empty");
    fs::copy(work / "runs" / "small", work / "runs" / "bad", fs::copy_options::recursive);
    write(work / "runs" / "bad" / "events.jsonl", "[]\n");

    const Outcome some = work.run({"report", "runs/smal", "runs/bad", "empty", "runs/small", "-o", "page.html"});
    CHECK(some.status == 0);
    const std::vector<std::string> lines = lines_of(some.err);
    REQUIRE(lines.size() == 3);
    CHECK(lines[0] == "runs/smal: left out: no such run directory");
    CHECK(contains(lines[1], "runs/bad: left out: runs/bad/events.jsonl:1: "));
    CHECK(contains(lines[2], "empty: left out: not a run directory"));
    CHECK(contains(some.out, "page.html: 1 run, "));

    const Outcome none = work.run({"report", "runs/bad", "-o", "none.html"});
    CHECK(none.status == 2);
    CHECK(none.out.empty());
    CHECK_FALSE(fs::exists(work / "none.html"));
}

TEST_CASE("a report does not take the place of anything but a page") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string before = content(work / "runs/small/metrics.jsonl");
    const Outcome wrong = work.run({"report", "runs/small", "-o", "runs/small/metrics.jsonl"});
    CHECK(wrong.status == 2);
    CHECK(wrong.err == "--out: runs/small/metrics.jsonl; expected a file whose name ends in .html\n");
    CHECK(content(work / "runs/small/metrics.jsonl") == before);
    CHECK(work.run({"report", "runs/small"}).status == 2);
    CHECK(work.run({"report", "-o", "page.html"}).status == 2);
    const Outcome nowhere = work.run({"report", "runs/small", "-o", "absent/page.html"});
    CHECK(nowhere.status == 1);
    CHECK(contains(nowhere.err, "absent/page.html"));
}
