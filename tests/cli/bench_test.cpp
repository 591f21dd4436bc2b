// What `ballast bench` prints is consistent with itself. No test asks how fast anything is.

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "ballast/ops/registry.h"
#include "catch.h"
#include "program.h"

namespace {

using Json = nlohmann::json;

Workplace::Arguments bench(Workplace::Arguments words) {
    words.insert(words.begin(), "bench");
    words.insert(words.end(), {"--threads", "1", "--seconds", "0"});
    return words;
}

/// The figures of a benchmark of the small run.
Json figures(Workplace& work, Workplace::Arguments words) {
    words.emplace_back("--json");
    const Outcome outcome = work.run(bench(words));
    CAPTURE(words, outcome.err);
    REQUIRE(outcome.status == 0);
    REQUIRE(lines_of(outcome.out).size() == 1);
    Json json = Json::parse(outcome.out);
    CHECK(json.at("machine").at("threads") == 1);
    CHECK(json.at("peak_flops") > 0);
    CHECK(json.at("bandwidth") > 0);
    return json;
}

bool is_op(const std::string& name) {
    const auto all = ballast::ops::registry();
    return std::any_of(all.begin(), all.end(), [&](const ballast::OpDef* op) { return op->name == name; });
}

double number(const Json& object, const char* key) { return object.at(key).get<double>(); }

} // namespace

TEST_CASE("bench: the parts of a step are the step") {
    Workplace work;
    work.write_small_run();
    // In micro-batches: every pass counts.
    const Json json = figures(work, {"small.json", "--set", "train.micro_batch=2"});
    CHECK(json.at("bench") == "steps");
    REQUIRE(json.at("models").size() == 1);
    const Json& model = json.at("models").at(0);
    CHECK(model.at("name") == "small.json");
    CHECK(model.at("tokens_per_step") == 32);
    CHECK(model.at("steps") >= 3);
    CHECK(number(model, "fastest_seconds") <= number(model, "step_seconds"));
    CHECK(number(model, "step_seconds") <= number(model, "slowest_seconds"));
    CHECK(number(model, "share_of_peak") ==
          Approx(number(model, "flops_per_step") / number(model, "step_seconds") / number(model, "peak_flops")));
    CHECK(model.at("peak_bytes") > 0);
    CHECK(model.at("probe_every") == 10);
    CHECK(std::isfinite(number(model, "probe_share")));
    CHECK_FALSE(model.contains("start_seconds"));

    double seconds = 0, share = 0;
    std::map<std::string, std::int64_t> calls;
    for (const Json& op : model.at("ops")) {
        CAPTURE(op);
        CHECK(is_op(op.at("name")));
        calls[op.at("name")] = op.at("calls");
        CHECK(number(op, "forward_seconds") > 0);
        CHECK(number(op, "backward_seconds") >= 0);
        CHECK(number(op, "share") > 0);
        CHECK(number(op, "share") <= 1);
        seconds += number(op, "forward_seconds") + number(op, "backward_seconds");
        share += number(op, "share");
    }
    for (const Json& part : model.at("rest")) {
        CHECK(number(part, "share") > 0);
        seconds += number(part, "seconds");
        share += number(part, "share");
    }
    CHECK(seconds == Approx(number(model, "typical_seconds")));
    CHECK(share == Approx(1));
    // Two layers, two micro-batches; the loss once in each.
    CHECK(calls.at("attention") == 4);
    CHECK(calls.at("layernorm") == 10);
    CHECK(calls.at("cross_entropy") == 2);
}

TEST_CASE("bench: the models of configs/bench are built in") {
    Workplace work;
    const Json json = figures(work, {"--set", "model.width=24", "--set", "model.context=8", "--vocabulary", "65"});
    REQUIRE(json.at("models").size() == 3);
    const std::vector<std::int64_t> tokens{12 * 8, 8 * 8, 4 * 8};
    for (std::size_t i = 0; i < 3; ++i) {
        const Json& model = json.at("models").at(i);
        CHECK(model.at("name") == "p" + std::to_string(i + 1));
        CHECK(model.at("tokens_per_step") == tokens[i]);
        CHECK(model.contains("start_seconds") == (i == 0));
    }
    CHECK(number(json.at("models").at(0), "start_seconds") > 0);
}

TEST_CASE("bench ops: every call of a step, by its shapes") {
    Workplace work;
    work.write_small_run();
    const Json json = figures(work, {"ops", "small.json", "--vocabulary", "40"});
    CHECK(json.at("bench") == "ops");
    const Json& model = json.at("models").at(0);
    double seconds = 0;
    bool has_logits = false;
    for (const Json& call : model.at("calls")) {
        CAPTURE(call);
        CHECK(is_op(call.at("op")));
        const std::string name = call.at("name");
        CHECK(contains(name, call.at("op").get<std::string>() + " ["));
        has_logits = has_logits || contains(name, "[32, 16] [40, 16]");
        seconds += number(call, "forward_seconds") + number(call, "backward_seconds");
        const Json& forward = call.at("forward");
        const bool computes = forward.at("limit") == "peak";
        CHECK(number(forward, "share_of_limit") ==
              Approx(computes ? number(forward, "flops_per_second") / number(json, "peak_flops")
                              : number(forward, "bytes_per_second") / number(json, "bandwidth")));
    }
    CHECK(has_logits);
    CHECK(seconds < number(model, "typical_seconds"));
}

TEST_CASE("bench norms: kernels, shares and a chart") {
    Workplace work;
    const Json json = figures(work, {"norms", "--kinds", "layernorm", "batchnorm", "--widths", "32", "48", "--sizes",
                                     "0.01", "--widest-step", "32", "--svg", "norms.svg"});
    CHECK(json.at("kernels").size() == 4);
    for (const Json& kernel : json.at("kernels")) {
        CHECK(is_op(kernel.at("kind")));
        const double bytes = number(kernel, "forward_bytes") + number(kernel, "backward_bytes");
        const double time = number(kernel, "forward_seconds") + number(kernel, "backward_seconds");
        CHECK(number(kernel, "bytes_per_second") == Approx(bytes / time));
    }
    REQUIRE(json.at("shares").size() == 3);
    for (const Json& share : json.at("shares")) {
        CAPTURE(share);
        CHECK(share.at("width") == 32);
        CHECK(number(share, "share") == Approx(number(share, "norm_seconds") / number(share, "step_seconds")));
        CHECK((number(share, "share") > 0) == (share.at("kind") != "none"));
        CHECK(number(share, "share") < 1);
    }
    const std::string svg = content(work / "norms.svg");
    CHECK(svg.starts_with("<svg "));
    CHECK(contains(svg, ">layernorm</text>"));
    CHECK(contains(svg, ">batchnorm</text>"));
}

TEST_CASE("bench: figures are compared with earlier ones of the same benchmark") {
    Workplace work;
    work.write_small_run();
    Json earlier = figures(work, {"small.json"});
    earlier.at("models").at(0).at("step_seconds") = 1000;
    earlier.at("machine").at("cpu") = "another";
    write(work / "earlier.json", earlier.dump());

    const Json json = figures(work, {"small.json", "--compare", "earlier.json"});
    const Json& comparison = json.at("comparison");
    REQUIRE(comparison.at("machine").size() == 1);
    CHECK(contains(comparison.at("machine").at(0), "cpu: another, now "));
    bool found = false;
    for (const Json& figure : comparison.at("figures")) {
        CHECK(number(figure, "after") >= 0);
        if (figure.at("name") != "small.json step_seconds") continue;
        found = true;
        CHECK(figure.at("before") == 1000);
        CHECK(number(figure, "ratio") == Approx(1000 / number(json.at("models").at(0), "step_seconds")));
    }
    CHECK(found);
    const Outcome text = work.run(bench({"small.json", "--compare", "earlier.json"}));
    CHECK(text.status == 0);
    CHECK(contains(text.out, "small.json linear forward_seconds"));
    CHECK(contains(text.out, "times as fast"));
}

TEST_CASE("bench refuses what it cannot measure or compare, before it measures") {
    Workplace work;
    work.write_small_run();
    write(work / "text.json", "what?");
    write(work / "other.json", R"({"bench": "norms", "machine": {}})");
    write(work / "wide.json", R"({"data": {"path": "text.txt"}, "model": {"width": 30, "heads": 4}})");
    const auto [arguments, status, expected] = GENERATE(table<Workplace::Arguments, int, std::string>({
        {{"bench", "small.json", "--compare", "none.json"}, 1, "none.json: "},
        {{"bench", "small.json", "--compare", "text.json"},
         2,
         "text.json: expected what `ballast bench --json` prints"},
        {{"bench", "small.json", "--compare", "other.json"}, 2, "expected those of bench steps"},
        {{"bench", "p4"}, 2, "p4"},
        {{"bench", "wide.json"}, 2, "wide.json:1: model.heads"},
        {{"bench", "ops", "small.json", "--vocabulary", "1"}, 2, "ballast bench ops: --vocabulary"},
        {{"bench", "norms", "--kinds", "l2"}, 2, "ballast bench norms: --kinds"},
        {{"bench", "norms", "--width", "3"}, 2, "did you mean --widths?"},
        {{"bench", "--seconds", "-1"}, 2, "--seconds"},
    }));
    CAPTURE(arguments);
    const Outcome outcome = work.run(arguments);
    CAPTURE(outcome.err);
    CHECK(outcome.status == status);
    CHECK(outcome.out.empty());
    CHECK(lines_of(outcome.err).size() == 1);
    CHECK(contains(outcome.err, expected));
}
