// What is done with a config or a trained run without training: eval, generate, explain, check, schema.

#include <cmath>
#include <nlohmann/json.hpp>

#include "catch.h"
#include "program.h"

namespace fs = std::filesystem;

namespace {

using Json = nlohmann::json;

Json eval(Workplace& work, Workplace::Arguments more = {}) {
    more.insert(more.begin(), {"eval", "runs/small", "--threads", "1", "--json"});
    const Outcome outcome = work.run(more);
    CAPTURE(more, outcome.err);
    REQUIRE(outcome.status == 0);
    REQUIRE(lines_of(outcome.out).size() == 1);
    return Json::parse(outcome.out);
}

Json explain(Workplace& work, const Workplace::Arguments& overrides) {
    Workplace::Arguments words{"explain", "small.json", "--json"};
    for (const std::string& override : overrides)
        words.insert(words.end(), {"--set", override});
    const Outcome outcome = work.run(words);
    CAPTURE(words, outcome.err);
    REQUIRE(outcome.status == 0);
    return Json::parse(outcome.out);
}

std::vector<std::string> warnings(Workplace& work, const Workplace::Arguments& overrides) {
    std::vector<std::string> names;
    const Json explanation = explain(work, overrides);
    for (const Json& warning : explanation.at("warnings")) {
        names.push_back(warning.at("name"));
        for (const char* member : {"message", "reason", "source"})
            CHECK_FALSE(warning.at(member).get<std::string>().empty());
    }
    return names;
}

} // namespace

TEST_CASE("eval sees every token of a split once") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string text = content(work / "text.txt");
    const std::size_t train_size = static_cast<std::size_t>(static_cast<double>(text.size()) * 0.9);

    const Json val = eval(work);
    CHECK(val.at("checkpoint") == 20);
    CHECK(val.at("tokens") == text.size() - train_size - 1);
    const double loss = val.at("loss");
    CHECK(val.at("perplexity").get<double>() == Approx(std::exp(loss)));
    CHECK(val.at("bits_per_char").get<double>() == Approx(loss / std::log(2.0)));
    CHECK(eval(work, {"--split", "train"}).at("tokens") == train_size - 1);

    // The same text from another file, and one token at a time.
    write(work / "val.txt", text.substr(train_size));
    CHECK(eval(work, {"--data", "val.txt"}).at("loss") == val.at("loss"));

    // The text in pieces that begin where a window does has the same loss in all.
    const std::size_t windows = 8 * 6;
    write(work / "head.txt", text.substr(train_size, windows + 1));
    write(work / "tail.txt", text.substr(train_size + windows));
    const Json head = eval(work, {"--data", "head.txt"});
    const Json tail = eval(work, {"--data", "tail.txt"});
    const double sum = head.at("loss").get<double>() * head.at("tokens").get<double>() +
                       tail.at("loss").get<double>() * tail.at("tokens").get<double>();
    CHECK(sum == Approx(loss * val.at("tokens").get<double>()).epsilon(1e-6));
    CHECK(head.at("tokens").get<std::size_t>() == windows);

    const Outcome plain = work.run({"eval", "runs/small", "--threads", "1"});
    CHECK(contains(plain.out, "bits per char"));
    CHECK(contains(plain.out, "checkpoint of step 20"));
}

TEST_CASE("a checkpoint can be chosen") {
    Workplace work;
    work.write_small_run(R"("steps": 60, "checkpoint_every": 20, "keep_checkpoints": 0)");
    REQUIRE(work.run(train_small({"--set", "optimizer.lr=0.01"})).status == 0);
    std::map<int, double> losses;
    for (const std::string& line : lines_of(content(work / "runs/small/metrics.jsonl"))) {
        const Json record = Json::parse(line);
        const int step = record.at("step");
        if (step % 20 == 0) losses[step] = record.at("val_loss");
    }
    const auto best = std::min_element(losses.begin(), losses.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    CHECK(eval(work, {"--checkpoint", "newest"}).at("checkpoint") == 60);
    CHECK(eval(work, {"--checkpoint", "20"}).at("checkpoint") == 20);
    CHECK(eval(work, {"--checkpoint", "best"}).at("checkpoint") == best->first);
    CHECK(eval(work, {"--checkpoint", "20"}).at("loss") != eval(work).at("loss"));

    // A damaged one is passed over, with a warning, but not when it is asked for.
    write(work / "runs/small/checkpoints/step-00000060/params.safetensors", "damaged");
    const Outcome passed_over = work.run({"eval", "runs/small", "--threads", "1"});
    CHECK(passed_over.status == 0);
    CHECK(contains(passed_over.err, "warning: "));
    CHECK(contains(passed_over.out, "checkpoint of step 40"));
    CHECK(work.run({"eval", "runs/small", "--checkpoint", "60"}).status == 1);
}

TEST_CASE("generated text is a function of the seed and begins with the prompt") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const auto generate = [&](Workplace::Arguments more) {
        more.insert(more.begin(), {"generate", "runs/small", "--threads", "1", "--prompt", "the cat"});
        const Outcome outcome = work.run(more);
        CAPTURE(more, outcome.err);
        REQUIRE(outcome.status == 0);
        return outcome.out;
    };
    const std::string text = generate({});
    CHECK(text.starts_with("the cat"));
    CHECK(text.back() == '\n');
    CHECK(text.size() == std::string("the cat").size() + 200 + 1);
    CHECK(generate({"--tokens", "40"}) == text.substr(0, std::string("the cat").size() + 40) + "\n");
    CHECK(generate({"--seed", "1"}) == text);
    CHECK(generate({"--seed", "2"}) != text);
    CHECK(generate({"--temperature", "0", "--seed", "2"}) == generate({"--top-k", "1", "--seed", "3"}));
    CHECK(generate({"--tokens", "0"}) == "the cat\n");
}

TEST_CASE("token files without text are evaluated, and prompted with ids") {
    Workplace work;
    work.write_small_run();
    fs::create_directory(work / "tokens");
    std::string train, val;
    for (int i = 0; i < 400; ++i)
        (i < 300 ? train : val) += {static_cast<char>(i * i % 23), '\0'};
    write(work / "tokens/train.bin", train);
    write(work / "tokens/val.bin", val);
    REQUIRE(work.run(train_small({"--set", "data.path=tokens"})).status == 0);
    const Json own = eval(work);
    CHECK(own.at("tokens") == 99);
    CHECK(own.contains("bits_per_token"));
    CHECK(eval(work, {"--data", "tokens/val.bin"}).at("loss") == own.at("loss"));
    CHECK(eval(work, {"--data", "tokens"}).at("loss") == own.at("loss"));
    CHECK(eval(work, {"--data", "tokens", "--split", "train"}).at("tokens") == 299);
    const Outcome text = work.run({"generate", "runs/small", "--threads", "1", "--prompt", "1 4", "--tokens", "3"});
    CHECK(text.status == 0);
    CHECK(text.out.starts_with("1 4 "));
    CHECK(std::count(text.out.begin(), text.out.end(), ' ') == 4);
    CHECK(work.run({"generate", "runs/small", "--prompt", "1 99"}).status == 2);
}

TEST_CASE("explain writes the block's equation with its norms and values") {
    Workplace work;
    work.write_small_run();
    const auto [overrides, attention, output] = GENERATE(table<Workplace::Arguments, std::string, std::string>({
        {{}, "x ← x + Attention(LayerNorm(x; eps=1e-5))", "logits = LayerNorm(x; eps=1e-5) Eᵀ"},
        {{"model.norm.placement=post", "model.norm.kind=rmsnorm", "model.norm.eps=1e-6"},
         "x ← RMSNorm(x + Attention(x); eps=1e-6)",
         "logits = x Eᵀ"},
        {{"model.norm.placement=none", "model.dropout=0.1", "model.tie_embeddings=false"},
         "x ← x + dropout(Attention(x); p=0.1)",
         "logits = x Hᵀ"},
        {{"model.norm.kind=none"}, "x ← x + Attention(x)", "logits = x Eᵀ"},
        {{"model.norm.placement=sandwich", "model.norm.kind=dyt", "model.norm.out.kind=rmsnorm"},
         "x ← x + RMSNorm(Attention(DyT(x; α=0.5)); eps=1e-5)",
         "logits = DyT(x; α=0.5) Eᵀ"},
        {{"model.norm.placement=deepnorm", "model.init.kind=deepnorm"},
         "x ← LayerNorm(1.414 x + Attention(x); eps=1e-5)",
         "logits = x Eᵀ"},
        {{"model.norm.kind=rmsnorm", "model.norm.partial=0.25", "model.residual=layerscale",
          "model.norm.depth_scale=inv_sqrt"},
         "x ← x + a ∘ Attention(RMSNorm(x; eps=1e-5, p=0.25) / √l)",
         "logits = RMSNorm(x; eps=1e-5, p=0.25) Eᵀ"},
        {{"model.norm.attn={\"out\": true}", "model.norm.final.kind=scalenorm"},
         "x ← x + LayerNorm(Attention(x); eps=1e-5)",
         "logits = ScaleNorm(x; eps=1e-5) Eᵀ"},
    }));
    CAPTURE(overrides);
    const Json json = explain(work, overrides);
    CHECK(json.at("blocks").at(0).at("attention") == attention);
    CHECK(json.at("output") == output);

    Workplace::Arguments words{"explain", "small.json"};
    for (const std::string& override : overrides)
        words.insert(words.end(), {"--set", override});
    const Outcome text = work.run(words);
    CHECK(text.status == 0);
    CHECK(contains(text.out, "2 times:\n    " + attention + "\n"));
    CHECK(contains(text.out, output + "\n"));
}

TEST_CASE("explain names blocks that differ, and everything within a sublayer") {
    Workplace work;
    work.write_small_run();
    const Json mixed = explain(work, {"model.layers=4", "model.norm.layers=[{\"until\": 0.25, \"ffn\": \"post\"}]"});
    REQUIRE(mixed.at("blocks").size() == 2);
    CHECK(mixed.at("blocks").at(0).at("last") == 1);
    CHECK(mixed.at("blocks").at(0).at("ffn") == "x ← LayerNorm(x + FFN(x); eps=1e-5)");
    CHECK(mixed.at("blocks").at(1).at("first") == 2);
    CHECK(mixed.at("blocks").at(1).at("ffn") == "x ← x + FFN(LayerNorm(x; eps=1e-5))");
    const Outcome text = work.run({"explain", "small.json", "--set", "model.layers=4", "--set",
                                   "model.norm.layers=[{\"until\": 0.25, \"ffn\": \"post\"}]"});
    CHECK(contains(text.out, "\nblock 1:\n"));
    CHECK(contains(text.out, "\nblocks 2 to 4:\n"));

    const Json scheme = explain(work, {"model.qk_norm=head", "model.norm.qk.kind=rmsnorm", "model.v_norm=full",
                                       "model.logit_softcap=30", "model.head_scale=true", "model.ffn.inner_norm=true",
                                       "model.embedding.norm=true", "model.embedding.scale=sqrt_width"});
    const std::string meanings = scheme.at("meanings").dump();
    for (const char* part : {"30 tanh(Q Kᵀ / √", "Q ← RMSNorm(Q; eps=1e-5) and K likewise, head by head",
                             "V ← LayerNorm(V; eps=1e-5), all heads together", "each head's output times a learned",
                             "LayerNorm(gelu(x Uᵀ); eps=1e-5) Wᵀ", "RMSNorm: x / √(mean(x²) + eps), per token"})
        CHECK(contains(meanings, part));
    CHECK(contains(scheme.at("embedding").get<std::string>(), "x = LayerNorm(√"));
}

TEST_CASE("explain shows what a batchnorm keeps, and what norms cost") {
    Workplace work;
    work.write_small_run();
    const Json json = explain(work, {"model.norm.kind=batchnorm"});
    REQUIRE(json.at("buffers").size() == 6); // mean and variance of the norms of attention, of ffn and at the end
    CHECK(json.at("buffers").at(0).at("name") == "blocks.*.attention.pre_norm.running_mean");
    const Json& cost = json.at("norm_cost");
    CHECK(cost.at("norms") == 5);
    const double share = cost.at("share_of_step_estimated");
    CHECK((share > 0 && share < 1));
    CHECK(cost.at("bandwidth").get<double>() > 1e8);
    const Outcome text = work.run({"explain", "small.json"});
    CHECK(contains(text.out, "% of a step: an estimate from this machine's limits"));
    CHECK(contains(work.run({"explain", "small.json", "--set", "model.norm.placement=none"}).out, "\nnorms: none\n"));
}

TEST_CASE("explain of two configs shows what differs, in equations and keys") {
    Workplace work;
    work.write_small_run();
    write(work / "other.json", R"({"extends": "small.json", "model": {"norm": {"placement": "post"},
        "final_norm": "on"}, "optimizer": {"lr": 0.5}})");
    const Outcome outcome = work.run({"explain", "small.json", "other.json", "--json"});
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    const Json json = Json::parse(outcome.out);
    REQUIRE(json.at("equations").size() == 2);
    CHECK(json.at("equations").at(0).at("where") == "blocks 1 to 2, attention");
    CHECK(json.at("equations").at(0).at("a") == "x ← x + Attention(LayerNorm(x; eps=1e-5))");
    CHECK(json.at("equations").at(0).at("b") == "x ← LayerNorm(x + Attention(x); eps=1e-5)");
    CHECK(json.at("equations").at(1).at("where") == "blocks 1 to 2, ffn");
    REQUIRE(json.at("keys").size() == 2);
    CHECK(json.at("keys").at(0).at("path") == "model.norm.placement");
    CHECK(json.at("keys").at(0).at("b") == "post");
    CHECK(json.at("keys").at(1).at("b") == 0.5);
    CHECK(json.at("warnings_a").empty());
    REQUIRE(json.at("warnings_b").size() == 1);
    CHECK(json.at("warnings_b").at(0).at("name") == "post_with_final_norm");

    const Outcome text = work.run({"explain", "small.json", "other.json"});
    CHECK(contains(text.out, "b  x ← LayerNorm(x + FFN(x); eps=1e-5)\n"));
    CHECK(contains(text.out, "in b alone\nwarning: placement post with a final norm"));
    const Outcome same = work.run({"explain", "small.json", "small.json"});
    CHECK(contains(same.out, "no key differs"));
    CHECK(work.run({"explain", "small.json", "missing.json"}).status == 2);
}

TEST_CASE("check and train refuse the same norms, in the same words") {
    Workplace work;
    work.write_small_run();
    write(work / "bad.json", "{\"extends\": \"small.json\",\n\"model\": {\"norm\":\n{\"momentum\": 0.5}}}");
    const Outcome checked = work.run({"check", "bad.json"}), trained = work.run({"train", "bad.json", "--out", "bad"});
    CHECK(checked.status == 2);
    CHECK(trained.status == 2);
    CHECK(contains(checked.err, "bad.json:3: model.norm.momentum: model.norm.momentum 0.5 changes nothing"));
    CHECK(lines_of(checked.err).front() == lines_of(trained.err).front());
    CHECK(
        contains(work.run({"check", "small.json", "--set", "model.norm.partial=2"}).err, "--set: model.norm.partial"));
}

TEST_CASE("explain's table adds up, and is that of the model that is trained") {
    Workplace work;
    work.write_small_run();
    const Json json = explain(work, {"model.tie_embeddings=false", "model.bias=true", "model.ffn.kind=swiglu"});
    std::int64_t total = 0, decayed = 0;
    for (const Json& row : json.at("parameters")) {
        std::int64_t elements = row.at("repeats");
        for (const std::int64_t extent : row.at("shape"))
            elements *= extent;
        CHECK(row.at("count") == elements);
        total += elements;
        if (row.at("decays").get<bool>()) decayed += elements;
    }
    CHECK(json.at("parameter_count") == total);
    CHECK(json.at("decayed_count") == decayed);
    CHECK(decayed < total);
    CHECK_FALSE(json.at("vocabulary_assumed").get<bool>());

    const Outcome dry = work.run(train_small({"--dry-run", "--set", "model.tie_embeddings=false", "--set",
                                              "model.bias=true", "--set", "model.ffn.kind=swiglu"}));
    REQUIRE(dry.status == 0);
    std::string grouped = std::to_string(total);
    if (grouped.size() > 3) grouped.insert(grouped.size() - 3, ",");
    CHECK(contains(dry.err, " " + grouped + " parameters"));

    fs::remove(work / "text.txt");
    CHECK(explain(work, {}).at("vocabulary_assumed").get<bool>());
    CHECK(contains(work.run({"explain", "small.json"}).out, "note: the vocabulary is assumed"));
}

TEST_CASE("explain warns of what is known to go wrong, and of nothing else") {
    Workplace work;
    work.write_small_run();
    const auto [overrides, expected] = GENERATE(table<Workplace::Arguments, std::vector<std::string>>({
        {{}, {}},
        {{"model.norm.placement=post"}, {}},
        {{"model.final_norm=off"}, {"pre_without_final_norm"}},
        {{"model.norm.placement=post", "model.final_norm=on"}, {"post_with_final_norm"}},
        {{"model.norm.placement=none"}, {"no_norm_no_branch_scaling"}},
        {{"model.norm.kind=none"}, {"no_norm_no_branch_scaling"}},
        {{"model.norm.placement=post", "model.layers=11", "schedule.warmup=0"}, {"post_deep_without_warmup"}},
        {{"model.norm.placement=post", "model.layers=10", "schedule.warmup=0"}, {}},
        {{"model.norm.placement=post", "model.layers=11"}, {}},
        {{"model.norm.eps=1e-12"}, {"eps_unresolved"}},
        {{"model.norm.eps=0.01"}, {"eps_large"}},
        {{"model.init.std=0.5"}, {"tied_large_logits"}},
        {{"model.init.std=0.5", "model.tie_embeddings=false"}, {}},
        {{"model.norm.placement=none", "model.residual=rezero"}, {}},
        {{"model.norm.placement=none", "model.residual=rezero", "model.layers=200"}, {"no_norm_too_deep"}},
        {{"model.norm.placement=sandwich", "model.final_norm=off"}, {"pre_without_final_norm"}},
        {{"model.norm.placement=branch_out"}, {}},
        {{"model.norm.kind=batchnorm"}, {"batchnorm_sees_future"}},
        {{"model.norm.kind=batchnorm", "train.micro_batch=1"}, {"batchnorm_sees_future", "batchnorm_micro_batches"}},
        {{"model.norm.placement=deepnorm"}, {"deepnorm_with_other_init"}},
        {{"model.norm.placement=deepnorm", "model.init.kind=deepnorm"}, {}},
        {{"model.init.kind=deepnorm"}, {"deepnorm_init_alone"}},
        {{"model.norm.kind=dyt"}, {}},
        {{"model.norm.out.eps=1e-12", "model.norm.placement=sandwich"}, {"eps_unresolved"}},
        {{"model.norm.final.eps=1e-12"}, {"eps_unresolved"}},
        {{"model.norm.final.eps=0.01"}, {}}, // the stream has grown there
    }));
    CAPTURE(overrides);
    CHECK(warnings(work, overrides) == expected);
}

TEST_CASE("explain and resume warn of an eps that the checkpoint was not trained with") {
    Workplace work;
    work.write_small_run();
    REQUIRE(work.run(train_small()).status == 0);
    const std::string from = "init_from.run=" + (work / "runs/small").string();
    CHECK(warnings(work, {from}).empty());
    CHECK(warnings(work, {from, "model.norm.final.eps=1e-6"}) == std::vector<std::string>{"eps_changed"});
    CHECK(contains(work.run({"explain", "small.json", "--set", from, "--set", "model.norm.eps=1e-6"}).out,
                   "warning: eps is another than the checkpoint was trained with: pre from 1e-05 to 1e-06, final "));
    // A run that is not there yet is no mistake.
    const Outcome missing = work.run({"explain", "small.json", "--set", "init_from.run=runs/none"});
    CHECK(missing.status == 0);
    CHECK(contains(missing.out, "note: the run to start from cannot be read, so nothing is said of its eps: "));

    const auto resumed = [&](const char* eps, const char* steps) {
        return work.run({"resume", "runs/small", "--threads", "1", "--set", eps, "--set", steps}).err;
    };
    CHECK_FALSE(contains(resumed("model.norm.eps=1e-5", "train.steps=21"), "another eps"));
    CHECK(
        contains(resumed("model.norm.eps=1e-3", "train.steps=22"),
                 "norms go on with another eps than the checkpoint was trained with, which changes its loss: pre from "
                 "1e-05 to 0.001, final from 1e-05 to 0.001"));
}

TEST_CASE("the shipped schema, reference and configs are those of this program") {
    Workplace work;
    const fs::path source = BALLAST_SOURCE_DIR;
    CHECK(work.run({"schema"}).out == content(source / "configs/schema.json"));
    CHECK(work.run({"schema", "--reference"}).out == content(source / "docs/config.md"));
    CHECK(work.run({"schema", "--records"}).out == content(source / "docs/records.md"));
    Workplace::Arguments words{"check"};
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(source / "configs")) {
        const fs::path folder = entry.path().parent_path().filename();
        const bool grid = folder == "sweep" || folder == "claims";
        if (entry.path().extension() == ".json" && !grid) words.push_back(entry.path().string());
    }
    const Outcome outcome = work.run(words);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 0);
    CHECK(lines_of(outcome.out).size() == words.size() - 1);
}

TEST_CASE("check knows a schema of another version") {
    Workplace work;
    write(work / "schema.json", "{}");
    const Outcome outcome = work.run({"check", "schema.json"});
    CHECK(outcome.status == 2);
    CHECK(contains(outcome.err, "schema.json: not the schema of this version; expected the output of ballast schema"));
}
