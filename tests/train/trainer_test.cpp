// Whole training runs on small models: they learn, stop where they must, and go on to the bit.

#include "ballast/train/trainer.h"

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/config/load.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

std::string content(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

/// A small model on the start of the corpus that ships with the project.
class Lab {
public:
    Lab() {
        const std::string corpus = content(std::string(BALLAST_SOURCE_DIR) + "/data/tiny_tales.txt");
        REQUIRE(corpus.size() > 40000);
        std::ofstream(directory_ / "text.txt", std::ios::binary) << corpus.substr(0, 40000);
    }

    std::filesystem::path path(const std::string& name) const { return directory_ / name; }

    Config config(std::vector<std::string> overrides = {}) const {
        const std::string base = R"({"data": {"path": "text.txt"},
            "model": {"layers": 2, "heads": 2, "width": 32, "context": 16, "dropout": 0.1},
            "schedule": {"warmup": 3},
            "train": {"steps": 12, "batch": 4, "micro_batch": 2, "eval_every": 4, "eval_batches": 2,
                      "checkpoint_every": 5}})";
        return config_from_json(base, directory_ / "config.json", overrides);
    }

    void write(const std::string& name, const std::string& text) const {
        std::ofstream(directory_ / name, std::ios::binary) << text;
    }

private:
    TemporaryDirectory directory_;
};

/// Calls a function at every step.
class Probe final : public MetricsSink {
public:
    explicit Probe(std::function<void(const StepRecord&)> at_step) : at_step_(std::move(at_step)) {}
    void write(const StepRecord& record) override { at_step_(record); }

private:
    std::function<void(const StepRecord&)> at_step_;
};

const std::atomic<bool> kNever{false};

RunSummary run_all(Trainer& trainer) { return trainer.run({}, kNever); }

RunSummary run_new(const Config& config, const std::filesystem::path& out) {
    Trainer trainer = Trainer::start(config, out);
    return run_all(trainer);
}

/// Everything that must not depend on how a run came to its end: parameters, moments, records without the times.
void require_same_run(const std::filesystem::path& a, const std::filesystem::path& b, std::int64_t step) {
    for (const char* file : {"params.safetensors", "optim.safetensors"}) {
        const std::string left = content(checkpoint_path(a, step) / file);
        REQUIRE(!left.empty());
        CHECK(left == content(checkpoint_path(b, step) / file));
    }
    CHECK(read_checkpoint_info(checkpoint_path(a, step)).state.stability ==
          read_checkpoint_info(checkpoint_path(b, step)).state.stability);
    std::vector<StepRecord> left = read_metrics(a / "metrics.jsonl");
    std::vector<StepRecord> right = read_metrics(b / "metrics.jsonl");
    REQUIRE(left.size() == static_cast<std::size_t>(step));
    REQUIRE(right.size() == left.size());
    for (std::size_t i = 0; i < left.size(); ++i) {
        left[i].seconds = right[i].seconds = 0;
        left[i].tokens_per_second = right[i].tokens_per_second = 0;
        CHECK(to_json(left[i]) == to_json(right[i]));
    }
}

} // namespace

TEST_CASE("every kind and placement of norms overfits a single batch", "[train]") {
    const Lab lab;
    // One window and its last target: every batch is the same, and it can be learned by heart.
    lab.write("one.txt", "the quick brown f");
    for (const auto& placement : values_of(Placement{}))
        for (const auto& named : values_of(NormKind{})) {
            const NormKind kind = named.value;
            // Every placement of layernorm, and every kind as pre-norm.
            if (kind == NormKind::none || (kind != NormKind::layernorm && placement.name != "pre")) continue;
            const Config config =
                lab.config({"data.path=" + lab.path("one.txt").string(), "data.val_fraction=0", "model.dropout=0",
                            "model.norm.placement=" + std::string(placement.name),
                            "model.norm.kind=" + std::string(to_string(kind)), "model.init.kind=fan_in",
                            "optimizer.lr=3e-3", "schedule.kind=constant", "train.steps=150", "train.batch=2"});
            CAPTURE(placement.name, to_string(kind));
            const RunSummary summary =
                run_new(config, lab.path(std::string(placement.name) + "-" + std::string(to_string(kind))));
            CHECK(summary.verdict == "stable");
            CHECK(summary.final_loss < 0.05);
            CHECK_FALSE(summary.final_val_loss); // there is no validation split
        }
}

TEST_CASE("an interrupted run goes on to the bits of an unbroken one", "[train]") {
    const Lab lab;
    const std::vector<std::string> overrides = GENERATE(
        std::vector<std::string>{}, std::vector<std::string>{"optimizer.kind=sgd", "log.csv=true"},
        std::vector<std::string>{"model.norm.placement=post", "model.position=rope", "model.kv_heads=1",
                                 "model.ffn.kind=swiglu", "optimizer.decay=independent"},
        std::vector<std::string>{"model.norm.kind=batchnorm", "model.norm.momentum=0.3", "model.qk_norm=head"});
    const Config config = lab.config(overrides);
    set_threads(2);
    CHECK(run_new(config, lab.path("unbroken")).verdict == "stable");

    const std::int64_t cut = GENERATE(1, 5, 7, 11);
    CAPTURE(overrides, cut);
    std::atomic<bool> interrupt{false};
    Probe probe([&](const StepRecord& record) { interrupt = record.step == cut; });
    MetricsSink* const sinks[] = {&probe};
    {
        Trainer first = Trainer::start(config, lab.path("cut"));
        const RunSummary summary = first.run(sinks, interrupt);
        CHECK(summary.verdict == "interrupted");
        CHECK(summary.step == cut);
    }
    set_threads(3); // another thread count changes nothing
    {
        Trainer second = Trainer::resume(lab.path("cut"));
        CHECK(second.state().step == cut);
        const RunSummary summary = run_all(second);
        CHECK(summary.verdict == "stable");
        CHECK(summary.resumed == 1);
    }
    set_threads(available_processors());
    require_same_run(lab.path("unbroken"), lab.path("cut"), 12);
}

TEST_CASE("a run that died between checkpoints goes on to the bits of an unbroken one", "[train]") {
    const Lab lab;
    const Config config = lab.config();
    const std::int64_t death = GENERATE(3, 8, 11); // before the first checkpoint, and after the first and second
    Probe probe([&](const StepRecord& record) {
        if (record.step == death)
            std::filesystem::copy(lab.path("unbroken"), lab.path("dead"), std::filesystem::copy_options::recursive);
    });
    MetricsSink* const sinks[] = {&probe};
    Trainer whole = Trainer::start(config, lab.path("unbroken"));
    whole.run(sinks, kNever);
    {
        std::ofstream torn(lab.path("dead") / "metrics.jsonl", std::ios::app);
        torn << R"({"step": )" << death + 1 << R"(, "tok)"; // it was writing a line
    }
    CHECK(read_metrics(lab.path("dead") / "metrics.jsonl").size() == static_cast<std::size_t>(death));
    Trainer again = Trainer::resume(lab.path("dead"));
    CHECK(again.state().step == death / 5 * 5);
    run_all(again);
    require_same_run(lab.path("unbroken"), lab.path("dead"), 12);
}

TEST_CASE("a finished run is left as it is, and goes on when it is given more steps", "[train]") {
    const Lab lab;
    const RunSummary before = run_new(lab.config({"schedule.kind=constant"}), lab.path("run"));
    {
        Trainer again = Trainer::resume(lab.path("run"));
        const RunSummary after = run_all(again);
        CHECK(after.final_loss == before.final_loss);
        CHECK(after.finished == before.finished);
    }
    { // what it is not trained with does not get into its config
        const std::string config = content(lab.path("run") / "config.json");
        for (const char* unused : {"optimizer.lr=9", "train.steps=5"}) {
            const std::vector<std::string> overrides{unused};
            Trainer again = Trainer::resume(lab.path("run"), overrides);
            CHECK(again.is_finished());
            run_all(again);
            CHECK(content(lab.path("run") / "config.json") == config);
        }
    }
    { // killed between its last checkpoint and its summary
        std::filesystem::remove(lab.path("run") / "summary.json");
        Trainer again = Trainer::resume(lab.path("run"));
        const RunSummary after = run_all(again);
        CHECK(after.final_loss == before.final_loss);
        CHECK(after.final_val_loss == before.final_val_loss);
        CHECK(after.best_val_step == before.best_val_step);
        CHECK(RunDirectory::open(lab.path("run")).summary().verdict == "stable");
    }
    {
        const std::vector<std::string> more{"train.steps=20"};
        Trainer longer = Trainer::resume(lab.path("run"), more);
        CHECK(run_all(longer).step == 20);
    }
    CHECK(read_metrics(lab.path("run") / "metrics.jsonl").size() == 20);
    // A constant schedule does not look at the end, so the longer run is the one that was longer from the start; but
    // the shorter one evaluated at its end, which is a line of records that the other does not have.
    run_new(lab.config({"schedule.kind=constant", "train.steps=20"}), lab.path("long"));
    CHECK(content(checkpoint_path(lab.path("run"), 20) / "params.safetensors") ==
          content(checkpoint_path(lab.path("long"), 20) / "params.safetensors"));
}

TEST_CASE("a run whose records were taken away goes on, and says so", "[train]") {
    const Lab lab;
    run_new(lab.config({"train.steps=5"}), lab.path("run"));
    std::vector<std::string> warnings;
    const Log log = Log::to([&](LogLevel level, std::string_view message) {
        if (level == LogLevel::warning) warnings.emplace_back(message);
    });
    const std::vector<std::string> more{"train.steps=7"};
    { const Trainer whole = Trainer::resume(lab.path("run"), more, log); }
    CHECK(warnings.empty());
    std::filesystem::remove(lab.path("run") / "metrics.jsonl");
    { const Trainer robbed = Trainer::resume(lab.path("run"), more, log); }
    REQUIRE(warnings.size() == 1);
    CHECK(warnings[0].find("steps 1 to 5 are missing") != std::string::npos);
}

TEST_CASE("a run that died between its stop and its summary has the same end, and goes on only when it is told to") {
    const Lab lab;
    const Config config =
        lab.config({"train.steps=200", "optimizer.lr=10", "optimizer.clip=0", "schedule.kind=constant",
                    "stability.divergence_window=5", "train.checkpoint_every=1000"});
    const RunSummary summary = run_new(config, lab.path("run"));
    REQUIRE(summary.verdict == "diverged");
    REQUIRE(summary.step < 200);
    std::filesystem::remove(lab.path("run") / "summary.json");
    {
        Trainer after = Trainer::resume(lab.path("run"));
        const RunSummary again = run_all(after);
        CHECK(again.step == summary.step);
        CHECK(again.verdict == summary.verdict);
        CHECK(again.reason == summary.reason);
        CHECK(again.final_loss == summary.final_loss);
        CHECK(again.onset == summary.onset);
    }
    Trainer on = Trainer::resume(lab.path("run"));
    CHECK(run_all(on).step > summary.step);
}

TEST_CASE("a loss or parameter that is not finite ends the run with a verdict and a whole directory", "[train]") {
    const Lab lab;
    SECTION("a step that throws the parameters out of range") {
        const RunSummary summary =
            run_new(lab.config({"optimizer.lr=1e30", "schedule.kind=constant", "schedule.warmup=0"}), lab.path("run"));
        CHECK(summary.verdict == "non_finite");
        CHECK_FALSE(summary.reason.empty());
    }
    SECTION("a loss that is not finite from the start") {
        const RunSummary summary =
            run_new(lab.config({"model.init.std=1e30", "model.norm.placement=none"}), lab.path("run"));
        CHECK(summary.verdict == "non_finite");
        CHECK(summary.step == 0);
        verify_checkpoint(checkpoint_path(lab.path("run"), 0));
    }
    SECTION("a last update that only an evaluation sees the harm of") {
        const RunSummary summary =
            run_new(lab.config({"optimizer.lr=1e18", "schedule.kind=constant", "schedule.warmup=0", "train.steps=1"}),
                    lab.path("run"));
        CHECK(summary.verdict == "non_finite");
        CHECK(summary.reason == "step 1: the validation loss is not finite");
        CHECK(list_checkpoints(lab.path("run")).empty()); // the parameters are finite, but spoilt
    }
    const std::vector<StepRecord> records = read_metrics(lab.path("run") / "metrics.jsonl");
    const std::vector<Event> events = read_events(lab.path("run") / "events.jsonl");
    REQUIRE_FALSE(records.empty());
    REQUIRE(events.size() == 1);
    CHECK(events[0].kind == "non_finite");
    CHECK(events[0].step == records.back().step);
    CHECK(RunDirectory::open(lab.path("run")).summary().verdict == "non_finite");
    // Going on from there comes to the same end at the same step, and repeats no line.
    Trainer again = Trainer::resume(lab.path("run"));
    CHECK(run_all(again).verdict == "non_finite");
    CHECK(read_metrics(lab.path("run") / "metrics.jsonl").size() == records.size());
}

TEST_CASE("policies for what is not finite", "[train]") {
    const Lab lab;
    const std::string policy = GENERATE("skip", "rewind", "continue");
    const Config config =
        lab.config({"optimizer.lr=1e39", "schedule.kind=constant", "schedule.warmup=0", "train.steps=6",
                    "train.checkpoint_every=2", "stability.on_non_finite=" + policy, "stability.max_rewinds=2"});
    const RunSummary summary = run_new(config, lab.path("run"));
    const std::vector<StepRecord> records = read_metrics(lab.path("run") / "metrics.jsonl");
    const std::vector<Event> events = read_events(lab.path("run") / "events.jsonl");
    CAPTURE(policy, summary.verdict, summary.reason);
    REQUIRE_FALSE(events.empty());
    if (policy == "skip") { // every update is dropped
        CHECK(summary.verdict == "spiky");
        CHECK(summary.step == 6);
        CHECK(records.size() == 6);
        CHECK(records[3].events == "non_finite skipped");
        const Dataset data(data_options(config));
        Learner fresh(config, data);
        ParamTable saved;
        const Transformer model(saved, config.model, data.vocab_size());
        saved.allocate(config.seed + 1);
        load_parameters(checkpoint_path(lab.path("run"), 6), saved);
        CHECK(std::equal(saved.values(), saved.values() + saved.size(), fresh.table().values()));
    } else if (policy == "rewind") { // each try comes to the same end
        CHECK(summary.verdict == "non_finite");
        CHECK(summary.rewinds == 2);
        CHECK(records.size() == 1);
        CHECK(events.front().kind == "rewind");
        CHECK(events.back().kind == "non_finite");
        CHECK(events.back().batch == 3); // the third
    } else {
        CHECK(summary.verdict == "non_finite");
        CHECK(summary.step == 6);
        CHECK(records.size() == 6);
        CHECK(std::isnan(records.back().loss));
    }
}

TEST_CASE("micro-batches add up to their batch", "[train]") {
    const Lab lab;
    const auto losses = [&](const std::string& micro_batch, const std::string& name) {
        run_new(lab.config({"train.micro_batch=" + micro_batch, "model.dropout=0"}), lab.path(name));
        return read_metrics(lab.path(name) / "metrics.jsonl");
    };
    const auto whole = losses("4", "whole");
    const auto parts = losses("1", "parts");
    const auto again = losses("1", "again");
    for (std::size_t i = 0; i < whole.size(); ++i) {
        // Sums in another order: float rounding, amplified by twelve steps of Adam.
        CHECK(parts[i].loss == Approx(whole[i].loss).epsilon(2e-4));
        CHECK(parts[i].gradient_norm == Approx(whole[i].gradient_norm).epsilon(2e-3));
        CHECK(parts[i].loss == again[i].loss);
    }
}

TEST_CASE("runs of one seed see the same batches and tensors whatever the placement", "[train]") {
    const Lab lab;
    const Config a = lab.config({"model.norm.placement=pre"});
    const Config b = lab.config({"model.norm.placement=post", "model.layers=3", "model.init.kind=fan_in"});
    const Dataset data(data_options(a));
    const Learner left(a, data);
    const Learner same(lab.config({"model.norm.placement=none"}), data);
    const Learner right(b, data);
    const auto equal = [](const Learner& x, const Learner& y, const char* name) {
        const Param* p = x.table().find(name);
        const Param* q = y.table().find(name);
        REQUIRE((p != nullptr && q != nullptr));
        return std::equal(x.table().values() + p->offset, x.table().values() + p->offset + p->shape.elements(),
                          y.table().values() + q->offset);
    };
    CHECK(equal(left, same, "blocks.1.ffn.input.weight"));
    CHECK(equal(left, same, "embedding.tokens"));
    CHECK_FALSE(equal(left, right, "blocks.1.ffn.input.weight")); // another init draws other numbers
}

TEST_CASE("a resume refuses what would make the run another one", "[train]") {
    const Lab lab;
    run_new(lab.config(), lab.path("run"));
    const std::vector<std::string> wider{"model.ffn.width=64", "train.steps=20"};
    CHECK_THROWS_AS(Trainer::resume(lab.path("run"), wider), CheckpointError);
    lab.write("text.txt", std::string(30000, 'a') + "bcd");
    CHECK_THROWS_AS(Trainer::resume(lab.path("run")), Error);
    CHECK_THROWS_AS(Trainer::start(lab.config(), lab.path("run")), UsageError);
    CHECK_THROWS_AS(Trainer::resume(lab.path("nowhere")), UsageError);
}

TEST_CASE("the best checkpoint outlives pruning", "[train]") {
    const Lab lab;
    const RunSummary summary =
        run_new(lab.config({"train.steps=16", "train.checkpoint_every=2", "train.eval_every=2",
                            "train.keep_checkpoints=1", "optimizer.lr=0.3", "schedule.final_lr=0.3"}),
                lab.path("run"));
    REQUIRE(summary.best_val_step > 0);
    const std::vector<std::int64_t> kept = list_checkpoints(lab.path("run"));
    CHECK(kept.back() == 16);
    CHECK(kept.size() <= 2);
    CHECK(std::find(kept.begin(), kept.end(), summary.best_val_step) != kept.end());
}

TEST_CASE("the loss follows the curve it has always followed", "[train]") {
    const Lab lab;
    run_new(lab.config({"train.steps=60", "train.batch=8", "model.dropout=0", "optimizer.lr=3e-3"}), lab.path("run"));
    const auto records = read_metrics(lab.path("run") / "metrics.jsonl");
    REQUIRE(records.size() == 60);
    const auto mean = [&](std::size_t begin, std::size_t end) {
        double sum = 0;
        for (std::size_t i = begin; i < end; ++i)
            sum += records[i].loss;
        return sum / static_cast<double>(end - begin);
    };
    // Seen on one machine; others round differently, which sixty steps do not make visible at this tolerance.
    CHECK(records[0].loss == Approx(4.0973).margin(1e-3));
    CHECK(mean(10, 20) == Approx(3.2686).margin(1e-2));
    CHECK(mean(50, 60) == Approx(3.0808).margin(1e-2));
}

namespace {

/// Tiny Shakespeare, which does not ship with the project: the file that BALLAST_SHAKESPEARE names, or one beside the
/// project. Empty where there is none.
std::filesystem::path shakespeare() {
    if (const char* const named = std::getenv("BALLAST_SHAKESPEARE")) return named;
    const auto beside = std::filesystem::path(BALLAST_SOURCE_DIR) / "../shared/data/tinyshakespeare.txt";
    return std::filesystem::exists(beside) ? beside : std::filesystem::path();
}

/// nanoGPT's recipe for a CPU on that text; nothing, and a warning, where there is none.
std::optional<Config> recipe(std::vector<std::string> overrides) {
    const std::filesystem::path text = shakespeare();
    if (text.empty()) {
        WARN("not run: BALLAST_SHAKESPEARE does not name tinyshakespeare.txt");
        return {};
    }
    overrides.insert(overrides.end(), {"data.path=" + text.string(), "train.eval_every=0"});
    return load_config(std::string(BALLAST_SOURCE_DIR) + "/configs/shakespeare.json", overrides);
}

} // namespace

TEST_CASE("the nanoGPT recipe reaches its published loss on real text", "[train][long]") {
    const std::optional<Config> config = recipe({});
    if (!config) return;
    const TemporaryDirectory directory;
    Trainer trainer = Trainer::start(*config, directory / "run");
    CHECK(trainer.data().train().size() == 1003854);
    CHECK(trainer.data().validation().size() == 111540);
    const RunSummary summary = run_all(trainer);
    CHECK(summary.verdict == "stable");
    REQUIRE(summary.final_val_loss);
    CHECK(*summary.final_val_loss == Approx(1.88).margin(0.06));
}

TEST_CASE("the nanoGPT recipe trains with other norms, or ends with a verdict", "[train][long]") {
    for (const char* norm : {"model.norm.placement=post", "model.norm.kind=rmsnorm", "model.norm.placement=none"}) {
        CAPTURE(norm);
        const std::optional<Config> config = recipe({norm, "train.steps=300", "train.eval_batches=20"});
        if (!config) return;
        const TemporaryDirectory directory;
        const RunSummary summary = run_new(*config, directory / "run");
        if (summary.verdict != "stable" && summary.verdict != "spiky") {
            CHECK_FALSE(summary.reason.empty());
            continue;
        }
        REQUIRE(summary.final_val_loss);
        CHECK(*summary.final_val_loss < 2.75); // the frequencies of the characters alone give 3.3
    }
}
