// Probes: what they measure, and that they change nothing.

#include "ballast/train/layer_probe.h"

#include <cmath>
#include <limits>
#include <set>

#include "ballast/base/error.h"
#include "ballast/base/parallel.h"
#include "ballast/config/load.h"
#include "ballast/config/placement.h"
#include "ballast/ops/ops.h"
#include "ballast/ops/registry.h"
#include "ballast/train/learner.h"
#include "ballast/train/metrics.h"
#include "catch.h"
#include "temporary_directory.h"

using namespace ballast;

namespace {

class Lab {
public:
    explicit Lab(const std::vector<std::string>& overrides = {})
        : config_(make(overrides)), data_(data_options(config_)) {}

    const Config& config() const { return config_; }
    const Dataset& data() const { return data_; }

private:
    Config make(const std::vector<std::string>& overrides) const {
        std::string text;
        for (int i = 0; i < 400; ++i)
            text += "the cat sat on mat " + std::to_string(i * i) + ".\n";
        write_file_atomic(directory_ / "text.txt", text);
        return config_from_json(R"({"data": {"path": "text.txt"},
            "model": {"layers": 3, "heads": 2, "width": 16, "context": 8},
            "train": {"batch": 4, "micro_batch": 2}})",
                                directory_ / "config.json", overrides);
    }

    TemporaryDirectory directory_;
    Config config_;
    Dataset data_;
};

void make_step(Learner& learner, std::int64_t step, LayerProbe* probe) {
    Learner::Step result = learner.gradients(step, step, probe);
    learner.update(result, probe);
}

std::vector<std::string> lines_of(const LayerProbe& probe) {
    std::vector<std::string> lines;
    for (const LayerRecord& record : probe.records())
        lines.push_back(to_json(record));
    return lines;
}

const LayerRecord& find(const LayerProbe& probe, std::int64_t layer, std::string_view site) {
    for (const LayerRecord& record : probe.records())
        if (record.layer.value_or(-1) == layer && record.site == site) return record;
    FAIL("no record of " << site);
    throw Error("unreachable");
}

} // namespace

TEST_CASE("a probed run has the bits of one that is not, and the probe's do not depend on the threads", "[probe]") {
    const Lab lab({"model.dropout=0.1"});
    Learner plain(lab.config(), lab.data()), probed(lab.config(), lab.data()), threaded(lab.config(), lab.data());
    LayerProbe probe(probed.table(), lab.config().optimizer), other(threaded.table(), lab.config().optimizer);
    for (std::int64_t step = 1; step <= 4; ++step) {
        make_step(plain, step, nullptr);
        make_step(probed, step, &probe);
        set_threads(3);
        make_step(threaded, step, &other);
        set_threads(available_processors());
        CHECK(lines_of(probe) == lines_of(other));
    }
    CHECK(std::equal(plain.table().values(), plain.table().values() + plain.table().size(), probed.table().values()));
}

TEST_CASE("every place of every placement has its records", "[probe]") {
    const std::string placement = GENERATE("pre", "post", "sandwich", "branch_out", "deepnorm", "none");
    const std::string ffn = GENERATE("gelu", "swiglu");
    const std::string gain = GENERATE("true", "false");
    if (placement == "none" && gain == "false") return; // a gain of nothing is no config
    const Lab lab({"model.norm.placement=" + placement, "model.ffn.kind=" + ffn, "model.norm.gain=" + gain});
    Learner learner(lab.config(), lab.data());
    LayerProbe probe(learner.table(), lab.config().optimizer);
    make_step(learner, 1, &probe);
    CAPTURE(placement, ffn, gain);

    std::set<std::string> places;
    std::int64_t norms = 0, parameters = 0;
    for (const LayerRecord& record : probe.records()) {
        CHECK(record.step == 1);
        CHECK(places.insert(std::to_string(record.layer.value_or(-1)) + record.site).second);
        norms += record.input_rms.has_value() ? 1 : 0;
        parameters += record.gradient_rms.has_value() ? 1 : 0;
        if (record.gradient_rms) CHECK(record.update_ratio.has_value());
        if (record.input_rms) CHECK(record.gain_mean.has_value() == (gain == "true"));
    }
    const PlacementRow& row = placement_row(lab.config().model.norm.placement);
    const bool final_norm = lab.config().model.final_norm == Switch::on;
    CHECK(norms == 3 * 2 * (int{row.pre} + int{row.out} + int{row.post}) + int{final_norm});
    CHECK(parameters == static_cast<std::int64_t>(learner.table().params().size()));
    CHECK(find(probe, -1, "embedding").stream_rms.has_value());
    for (std::int64_t layer = 0; layer < 3; ++layer) {
        const LayerRecord& attention = find(probe, layer, "attention");
        CHECK(attention.max_attention_logit.size() == 2);
        for (const double entropy : attention.attention_entropy) {
            CHECK(entropy > 0);
            CHECK(entropy < std::log(8.0));
        }
        CHECK(attention.branch_ratio.has_value());
        CHECK(find(probe, layer, "ffn").dead_share.has_value());
        CHECK(find(probe, layer, "ffn").stream_rms.has_value());
        CHECK(find(probe, layer, "block").angular_distance.has_value());
        // A norm at the end of a sublayer makes the stream one of RMS 1.
        if (placement == "post" && gain == "false")
            CHECK(*find(probe, layer, "ffn").stream_rms == Approx(1).margin(.02));
    }
}

TEST_CASE("a branch counts as it is scaled", "[probe]") {
    const auto ratio = [](const std::vector<std::string>& overrides) {
        const Lab lab(overrides);
        Learner learner(lab.config(), lab.data());
        LayerProbe probe(learner.table(), lab.config().optimizer);
        make_step(learner, 1, &probe);
        return find(probe, 0, "attention").branch_ratio.value();
    };
    const double plain = ratio({});
    CHECK(plain > 0);
    CHECK(ratio({"model.residual=layerscale", "model.layerscale_init=0.5"}) == Approx(plain / 2).epsilon(1e-5));
    CHECK(ratio({"model.residual=skipinit"}) == 0);
    CHECK(ratio({"model.residual=rezero", "model.norm.placement=none"}) == 0);
}

TEST_CASE("parameters' records are what the step did", "[probe]") {
    const Lab lab;
    Learner learner(lab.config(), lab.data());
    LayerProbe probe(learner.table(), lab.config().optimizer);
    make_step(learner, 1, &probe);
    const std::vector<float> before(learner.table().values(), learner.table().values() + learner.table().size());
    Learner::Step step = learner.gradients(2, 2, &probe);
    CHECK_FALSE(find(probe, -1, "embedding.tokens").update_ratio.has_value()); // there was none yet
    learner.update(step, &probe);

    double gradient_squares = 0;
    for (const LayerRecord& record : probe.records())
        if (record.gradient_norm) gradient_squares += *record.gradient_norm * *record.gradient_norm;
    CHECK(std::sqrt(gradient_squares) == Approx(step.record.gradient_norm));

    const Param& param = *learner.table().find("blocks.1.ffn.output.weight");
    double update = 0, size = 0;
    for (std::int64_t i = param.offset; i < param.offset + param.shape.elements(); ++i) {
        const auto old = static_cast<double>(before[static_cast<std::size_t>(i)]);
        update += std::pow(static_cast<double>(learner.table().values()[i]) - old, 2);
        size += old * old;
    }
    const LayerRecord& record = find(probe, 1, "ffn.output.weight");
    CHECK(*record.update_ratio == Approx(std::sqrt(update / size)).epsilon(1e-4));
    CHECK(*record.parameter_rms == Approx(std::sqrt(size / static_cast<double>(param.shape.elements()))));
    CHECK(*record.gradient_to_eps == Approx(*record.gradient_rms / 1e-8));
    const LayerRecord& norm = find(probe, 1, "ffn.pre_norm");
    CHECK(*norm.input_rms == Approx(*find(probe, 1, "attention").stream_rms)); // which it reads
    CHECK(*norm.gain_mean == Approx(1).margin(0.01));
}

TEST_CASE("a model without attention or blocks has what it has", "[probe]") {
    ParamTable table;
    const Parameter weight = table.add("head.weight", {3, 4}, ParamInit::normal(1), DecayGroup::decay);
    table.allocate(1);
    table.allocate_gradients();
    LayerProbe probe(table, OptimizerConfig{.kind = OptimizerKind::sgd});
    Tape tape(ops::registry());
    const std::vector<float> x(8, 1.0F);
    tape.begin(Mode::train);
    const Var y = ops::linear(tape, tape.constant({2, 4}, x.data()), weight(tape));
    probe.activations(1, tape);
    tape.backward(y);
    probe.gradients();
    REQUIRE(probe.records().size() == 1);
    CHECK(probe.records()[0].site == "head.weight");
    CHECK_FALSE(probe.records()[0].gradient_to_eps.has_value()); // that is for Adam
}

TEST_CASE("layer records come back from their lines", "[probe]") {
    LayerRecord record;
    record.step = 7;
    record.layer = 3;
    record.site = "attention";
    record.stream_rms = 0.1F;
    record.kurtosis = std::numeric_limits<double>::infinity();
    record.stream_mean = std::nan("");
    record.max_attention_logit = {1.5, -std::numeric_limits<double>::infinity()};
    const std::string line = to_json(record);
    CHECK(line == R"({"step":7,"layer":3,"site":"attention","stream_rms":0.1,"stream_mean":"NaN",)"
                  R"("kurtosis":"Infinity","max_attention_logit":[1.5,"-Infinity"]})");
    const LayerRecord read = layer_record_from_json(line);
    CHECK(to_json(read) == line);
    CHECK_FALSE(read.gain_mean.has_value());
    for (const char* bad : {"", "{}", R"({"step":0})", R"({"step":1,"layer":"a"})", R"({"step":1,"kurtosis":[]})",
                            R"({"step":1,"max_attention_logit":3})"})
        CHECK_THROWS_AS(layer_record_from_json(bad), IoError);

    const TemporaryDirectory directory;
    {
        LayerLog log(directory / "layers.jsonl");
        for (record.step = 10; record.step <= 30; record.step += 10)
            log.write(std::vector<LayerRecord>{record, record});
    }
    { const LayerLog again(directory / "layers.jsonl", 25); }
    const std::vector<LayerRecord> kept = read_layers(directory / "layers.jsonl");
    REQUIRE(kept.size() == 4);
    CHECK(kept.back().step == 20);
}
