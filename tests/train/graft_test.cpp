// Runs that start from another run: nothing moves where nothing changed, and what changed is told.

#include "ballast/train/graft.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/config/load.h"
#include "ballast/lab/diagnose.h"
#include "ballast/lab/replay.h"
#include "ballast/lab/verify.h"
#include "ballast/train/safetensors.h"
#include "ballast/train/trainer.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace fs = std::filesystem;

namespace {

using Overrides = std::vector<std::string>;

std::string content(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

const std::atomic<bool> kNever{false};

/// Small models on the start of the corpus that ships with the project.
class Lab {
public:
    Lab() {
        set_threads(1); // tiny models, and a test machine is busy
        std::ofstream(directory_ / "text.txt", std::ios::binary)
            << content(std::string(BALLAST_SOURCE_DIR) + "/data/tiny_tales.txt").substr(0, 40000);
    }

    fs::path path(const std::string& name) const { return directory_ / name; }

    Config config(const Overrides& overrides = {}) const {
        const std::string base = R"({"data": {"path": "text.txt"},
            "model": {"layers": 2, "heads": 2, "width": 16, "context": 16, "init": {"kind": "fan_in"}},
            "optimizer": {"lr": 3e-3}, "schedule": {"kind": "constant", "warmup": 3},
            "train": {"steps": 12, "batch": 4, "micro_batch": 2, "eval_every": 0, "eval_batches": 2,
                      "checkpoint_every": 5},
            "stability": {"probe_every": 0}})";
        return config_from_json(base, directory_ / "config.json", overrides);
    }

    /// A run of some steps, far enough from its start that gains and biases have moved.
    void train(const std::string& name, const Overrides& overrides = {}) const {
        Trainer::start(config(overrides), path(name)).run({}, kNever);
    }

    /// `overrides` and the start from a run.
    Config grafted(const std::string& source, Overrides overrides = {}) const {
        overrides.push_back("init_from.run=\"" + path(source).string() + "\"");
        return config(overrides);
    }

    /// The record alone; nothing is written.
    GraftRecord graft(const std::string& source, const Overrides& overrides = {}) const {
        const Config config = grafted(source, overrides);
        const Dataset data(data_options(config));
        ParamTable table;
        const Transformer model(table, config.model, data.vocab_size());
        table.allocate(config.seed);
        return ballast::graft(*load_graft_source(config.init_from), config, data, table, model);
    }

private:
    TemporaryDirectory directory_;
};

const GraftedTensor& tensor(const GraftRecord& record, const std::string& name) {
    for (const GraftedTensor& tensor : record.tensors)
        if (tensor.name == name) return tensor;
    FAIL("no tensor " + name);
    return record.tensors.front();
}

std::vector<float> values_of(const fs::path& run, std::int64_t step, const std::string& name) {
    const SafetensorsFile file(checkpoint_path(run, step) / "params.safetensors");
    const TensorEntry* const entry = file.find(name);
    REQUIRE(entry != nullptr);
    std::vector<float> values(entry->bytes.size() / sizeof(float));
    std::memcpy(values.data(), entry->bytes.data(), entry->bytes.size());
    return values;
}

/// What `action` throws; empty when it does not.
template <class Action>
std::string error_of(Action&& action) {
    try {
        action();
    } catch (const Error& error) {
        return error.what();
    }
    return {};
}

} // namespace

TEST_CASE("an unchanged architecture grafts without any drift, to the bit", "[graft]") {
    const Lab lab;
    std::vector<Overrides> architectures;
    for (const auto& placement : values_of(Placement{}))
        architectures.push_back({"model.norm.placement=" + std::string(placement.name)});
    for (const auto& kind : values_of(NormKind{}))
        if (kind.value != NormKind::none) architectures.push_back({"model.norm.kind=" + std::string(kind.name)});
    architectures.push_back({"model.norm.kind=rmsnorm", "model.norm.unit_offset=true", "model.qk_norm=head"});
    architectures.push_back({"model.qk_norm=full", "model.v_norm=head", "model.kv_heads=1", "model.position=rope"});
    architectures.push_back({"model.tie_embeddings=false", "model.bias=true", "model.embedding.norm=true"});
    architectures.push_back({"model.residual=rezero", "model.ffn.kind=swiglu", "model.ffn.inner_norm=true"});
    architectures.push_back({"model.norm.depth_scale=inv_sqrt", "model.position=alibi", "model.dropout=0.2"});
    for (std::size_t i = 0; i < architectures.size(); ++i) {
        CAPTURE(architectures[i]);
        const std::string name = "source" + std::to_string(i);
        lab.train(name, architectures[i]);
        for (const bool calibrate : {false, true}) {
            Overrides overrides = architectures[i];
            overrides.push_back(calibrate ? "init_from.calibrate=true" : "seed=99");
            const fs::path run = lab.path(name + (calibrate ? "-calibrated" : "-seed"));
            const Trainer trainer = Trainer::start(lab.grafted(name, overrides), run);
            const GraftRecord& record = trainer.graft().value();
            CHECK(record.drift.is_zero());
            CHECK(record.drift.kl == 0);
            CHECK(record.drift.loss_before == record.drift.loss_after);
            REQUIRE(record.drift.blocks.size() == 2);
            for (const BlockDrift& block : record.drift.blocks) {
                CHECK(block.change == 0);
                CHECK(block.cosine == Approx(1));
            }
            CHECK(record.changes.empty());
            CHECK(record.new_norms.empty());
            CHECK(record.count("reused") == static_cast<std::int64_t>(record.tensors.size()));
            CHECK(content(checkpoint_path(run, 0) / "params.safetensors") ==
                  content(checkpoint_path(lab.path(name), 12) / "params.safetensors"));
        }
    }
}

TEST_CASE("fitted norms are no further from the source than norms with gain 1", "[graft]") {
    const Lab lab;
    lab.train("pre", {"train.steps=60", "model.layers=3"});
    // Norms that are added to all that there was: each can come nearer by its own gain alone.
    for (const Overrides& added :
         std::vector<Overrides>{{"model.norm.placement=sandwich"},
                                {"model.norm.placement={\"pre\": true, \"post\": true}"},
                                {"model.qk_norm=head"},
                                {"model.qk_norm=full", "model.v_norm=head"},
                                {"model.embedding.norm=true"},
                                {"model.ffn.inner_norm=true"},
                                {"model.embedding.norm=true", "model.norm.embedding.kind=rmsnorm"},
                                {"model.embedding.norm=true", "model.norm.embedding.kind=dyt"},
                                {"model.embedding.norm=true", "model.norm.embedding.kind=batchnorm"},
                                {"model.embedding.norm=true", "model.norm.embedding.kind=scalenorm"}}) {
        Overrides overrides = added;
        overrides.insert(overrides.end(), {"model.layers=3", "init_from.calibrate=true"});
        const GraftRecord record = lab.graft("pre", overrides);
        CAPTURE(added, record.drift.kl, record.uncalibrated.value().kl);
        CHECK(record.calibrated);
        CHECK_FALSE(record.new_norms.empty());
        CHECK(record.drift.kl <= record.uncalibrated->kl);
        CHECK(record.drift.mean_logit <= record.uncalibrated->mean_logit);
        CHECK(record.drift.blocks.front().change <= record.uncalibrated->blocks.front().change);
    }
    // The last post-norm takes the place of the final norm, so calibration has most to gain.
    const GraftRecord post =
        lab.graft("pre", {"model.layers=3", "model.norm.placement=post", "init_from.calibrate=true"});
    CHECK(post.drift.loss_after < post.uncalibrated->loss_after);
    // In eval mode a batchnorm with fitted statistics is the identity.
    const GraftRecord batchnorm = lab.graft("pre", {"model.layers=3", "model.embedding.norm=true",
                                                    "model.norm.embedding.kind=batchnorm", "init_from.calibrate=true"});
    CHECK(batchnorm.drift.max_logit < 1e-3);
}

TEST_CASE("what becomes of each tensor is told, and done", "[graft]") {
    const Lab lab;
    lab.train("source");
    SECTION("norms elsewhere") {
        const GraftRecord record = lab.graft("source", {"model.norm.placement=post"});
        CHECK(tensor(record, "blocks.0.ffn.pre_norm.gain").fate == "dropped");
        CHECK(tensor(record, "final_norm.gain").fate == "dropped");
        CHECK(tensor(record, "blocks.1.attention.post_norm.gain").fate == "new");
        CHECK(tensor(record, "blocks.1.attention.post_norm.gain").note == "starts at 1");
        CHECK(tensor(record, "blocks.1.ffn.input.weight").fate == "reused");
        CHECK(record.new_norms.size() == 4);
        CHECK(record.changes.size() == 2); // the placement, and with it the final norm
        CHECK(record.drift.max_logit > 0);
        CHECK(record.drift.loss_after > record.drift.loss_before);
    }
    SECTION("another kind or epsilon") {
        const GraftRecord kind = lab.graft("source", {"model.norm.kind=rmsnorm"});
        CHECK(kind.count("new") + kind.count("dropped") + kind.count("mismatched") == 0);
        CHECK(kind.drift.max_logit > 0);
        CHECK(lab.graft("source", {"model.norm.eps=1e-3"}).drift.max_logit > 0);
        const GraftRecord scale = lab.graft("source", {"model.norm.kind=scalenorm"});
        CHECK(tensor(scale, "final_norm.gain").fate == "mismatched");
        CHECK(tensor(scale, "final_norm.gain").note == "[16] in the source, [1] here; starts at 4");
    }
    SECTION("a unit offset is the same function") {
        lab.train("rms", {"model.norm.kind=rmsnorm"});
        const GraftRecord record = lab.graft("rms", {"model.norm.kind=rmsnorm", "model.norm.unit_offset=true"});
        CHECK(tensor(record, "final_norm.gain").note == "minus 1: with a unit offset here");
        CHECK(record.drift.max_logit < 1e-4);
    }
    SECTION("without the final norm") {
        const GraftRecord record = lab.graft("source", {"model.final_norm=off"});
        CHECK(tensor(record, "final_norm.gain").fate == "dropped");
        CHECK(record.drift.blocks.back().change == 0);
        CHECK(record.drift.max_logit > 0);
    }
    SECTION("embeddings that are no longer tied compute the same") {
        const GraftRecord record = lab.graft("source", {"model.tie_embeddings=false"});
        CHECK(tensor(record, "head.weight").note == "copied from embedding.tokens, to which the source ties it");
        CHECK(record.drift.is_zero());
    }
    SECTION("embeddings that become tied lose the output matrix") {
        lab.train("untied", {"model.tie_embeddings=false"});
        const GraftRecord record = lab.graft("untied");
        CHECK(tensor(record, "head.weight").fate == "dropped");
        CHECK(tensor(record, "head.weight").note == "tied to embedding.tokens here");
    }
    SECTION("more and fewer layers") {
        const GraftRecord more = lab.graft("source", {"model.layers=3"});
        CHECK(tensor(more, "blocks.2.attention.qkv.weight").fate == "new");
        CHECK(more.drift.blocks.size() == 2);
        CHECK(more.drift.blocks.back().change == 0);
        CHECK(more.drift.max_logit > 0);
        // There is nothing in the source that norms of a further layer could be fitted to.
        const GraftRecord asked = lab.graft("source", {"model.layers=3", "init_from.calibrate=true"});
        CHECK_FALSE(asked.calibrated);
        CHECK(tensor(asked, "blocks.2.ffn.pre_norm.gain").note == "starts at 1");
        const GraftRecord fewer = lab.graft("source", {"model.layers=1"});
        CHECK(tensor(fewer, "blocks.1.attention.qkv.weight").fate == "dropped");
        CHECK(fewer.drift.blocks.size() == 1);
        CHECK(fewer.drift.blocks.back().change == 0);
    }
    SECTION("positions of another length keep the first ones") {
        const GraftRecord shorter = lab.graft("source", {"model.context=9"});
        CHECK(tensor(shorter, "embedding.positions").note == "the first 9 of 16 positions");
        CHECK(shorter.drift.is_zero());
        const GraftRecord longer = lab.graft("source", {"model.context=20"});
        CHECK(tensor(longer, "embedding.positions")
                  .note.starts_with("the first 16 of 16 positions; 4 further ones drawn with standard deviation"));
        CHECK(longer.drift.is_zero());
    }
    SECTION("another hidden width is drawn anew") {
        const GraftRecord record = lab.graft("source", {"model.ffn.width=24"});
        CHECK(record.count("mismatched") == 4);
        CHECK(tensor(record, "blocks.0.ffn.input.weight").note.starts_with("[64, 16] in the source, [24, 16] here"));
    }
}

TEST_CASE("a grafted run goes on, verifies and replays to the bit, without its source", "[graft]") {
    const Lab lab;
    lab.train("source");
    const Overrides changes = {
        "model.norm.placement=post",   "init_from.calibrate=true", "init_from.new_norm_lr_scale=0.25",
        "init_from.new_norm_warmup=7", "train.steps=14",           "train.keep_checkpoints=1",
        "stability.snapshot_every=0"};
    const Config config = lab.grafted("source", changes);
    Trainer::start(config, lab.path("whole")).run({}, kNever);
    Trainer::start(config, lab.path("broken")); // killed before the first step
    fs::rename(lab.path("source"), lab.path("gone"));

    class StopAt final : public MetricsSink {
    public:
        StopAt(std::int64_t step, std::atomic<bool>& interrupt) : step_(step), interrupt_(interrupt) {}
        void write(const StepRecord& record) override { interrupt_ = record.step == step_; }

    private:
        std::int64_t step_;
        std::atomic<bool>& interrupt_;
    };
    std::atomic<bool> interrupt{false};
    StopAt stop(6, interrupt);
    MetricsSink* const sinks[] = {&stop};
    CHECK(Trainer::resume(lab.path("broken")).run(sinks, interrupt).verdict == "interrupted");
    {
        Trainer again = Trainer::resume(lab.path("broken"));
        CHECK(again.state().step == 6);
        CHECK(again.graft().value().new_norms.size() == 4);
        again.run({}, kNever);
    }
    for (const char* file : {"params.safetensors", "optim.safetensors"})
        CHECK(content(checkpoint_path(lab.path("whole"), 14) / file) ==
              content(checkpoint_path(lab.path("broken"), 14) / file));
    const std::vector<StepRecord> a = read_metrics(lab.path("whole") / "metrics.jsonl");
    const std::vector<StepRecord> b = read_metrics(lab.path("broken") / "metrics.jsonl");
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
        CHECK((a[i].loss == b[i].loss && a[i].update_norm == b[i].update_norm));

    // The start outlives the pruning of checkpoints, and verify and replay begin with it.
    CHECK(list_checkpoints(lab.path("whole")) == std::vector<std::int64_t>{0, 14});
    CHECK(verify(lab.path("whole"), {.from = 0, .steps = {}}).proven());
    const ReplayResult replayed = Replay(lab.path("broken"), 5, 0).run();
    CHECK(replayed.compared == 5);
    CHECK_FALSE(replayed.first_different.has_value());

    const std::vector<Event> events = read_events(lab.path("broken") / "events.jsonl");
    REQUIRE_FALSE(events.empty());
    CHECK(events.front().kind == "graft");
    CHECK(events.front().message.find("model.norm.placement from \"pre\" to \"post\"") != std::string::npos);
    const GraftRecord record = read_graft_record(lab.path("broken")).value();
    CHECK(to_json(record) == to_json(*read_graft_record(lab.path("whole"))));
    CHECK(record.source_step == 12);

    // Without the weights of the start there is no way back to it.
    fs::remove_all(lab.path("broken") / "checkpoints");
    CHECK(error_of([&] { Trainer::resume(lab.path("broken")); }).find("the weights that it started from are lost") !=
          std::string::npos);
}

TEST_CASE("new norms learn at their own rate, and nothing else does", "[graft]") {
    const Lab lab;
    lab.train("source");
    const auto gains_after = [&](const std::string& name, const Overrides& rate, const std::string& tensor) {
        Overrides overrides = rate;
        overrides.insert(overrides.end(), {"model.norm.placement=sandwich", "train.steps=1", "schedule.warmup=0"});
        Trainer::start(lab.grafted("source", overrides), lab.path(name)).run({}, kNever);
        const std::vector<float> before = values_of(lab.path(name), 0, tensor);
        std::vector<float> change = values_of(lab.path(name), 1, tensor);
        for (std::size_t i = 0; i < change.size(); ++i)
            change[i] -= before[i];
        return change;
    };
    const std::string added = "blocks.1.ffn.out_norm.gain", kept = "blocks.1.ffn.pre_norm.gain";
    const std::vector<float> full = gains_after("full", {}, added);
    CHECK(full != std::vector<float>(16, 0));
    CHECK(gains_after("frozen", {"init_from.new_norm_lr_scale=0"}, added) == std::vector<float>(16, 0));
    CHECK(gains_after("kept", {"init_from.new_norm_lr_scale=0"}, kept) == gains_after("kept-full", {}, kept));
    const std::vector<float> half = gains_after("half", {"init_from.new_norm_lr_scale=0.5"}, added);
    const std::vector<float> warming = gains_after("warming", {"init_from.new_norm_warmup=4"}, added);
    for (std::size_t i = 0; i < full.size(); ++i) {
        CHECK(half[i] == Approx(full[i] / 2).margin(1e-6));
        CHECK(warming[i] == Approx(full[i] / 4).margin(1e-6));
    }
}

TEST_CASE("what cannot be grafted is refused in one line", "[graft]") {
    const Lab lab;
    lab.train("source");
    const auto refusal = [&](const std::string& source, const Overrides& overrides = {}) {
        std::string error = error_of([&] { lab.graft(source, overrides); });
        CHECK(error.find('\n') == std::string::npos);
        return error;
    };
    CHECK_THAT(refusal("nowhere"), ContainsSubstring("nowhere: no such run directory"));
    std::ofstream(lab.path("other.txt")) << std::string(4000, 'a') + std::string(400, '~');
    CHECK_THAT(refusal("source", {"data.path=\"" + lab.path("other.txt").string() + "\""}),
               ContainsSubstring("is not that of the data (2 characters); the data also has \"~\"; the data lacks "));
    CHECK_THAT(refusal("source", {"data.tokenizer.kind=byte"}),
               ContainsSubstring("is not that of the data (256 bytes)"));
    CHECK_THAT(refusal("source", {"model.width=32"}), ContainsSubstring("its model.width is 16, here it is 32"));
    CHECK_THAT(refusal("source", {"init_from.checkpoint=7"}),
               ContainsSubstring("has no checkpoint 7; expected newest, best or a step"));
    {
        const Trainer busy = Trainer::resume(lab.path("source"));
        CHECK_THAT(refusal("source"), ContainsSubstring("a process works on this run"));
    }
    CHECK_THAT(error_of([&] { Trainer::resume(lab.path("source"), Overrides{"init_from.run=/elsewhere"}); }),
               ContainsSubstring("init_from cannot name another start"));
    const fs::path params = checkpoint_path(lab.path("source"), 12) / "params.safetensors";
    fs::resize_file(params, fs::file_size(params) - 1);
    CHECK_THAT(refusal("source", {"init_from.checkpoint=12"}), ContainsSubstring("damaged"));
    CHECK(refusal("source").empty()); // the newest that is whole
    fs::remove_all(lab.path("source") / "checkpoints");
    CHECK_THAT(refusal("source"), ContainsSubstring("has no checkpoint yet"));
    CHECK_FALSE(fs::exists(lab.path("never")));
}
