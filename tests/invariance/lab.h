#pragma once

// What the tests of whole models share: a text to learn, and configs that are small but large enough for every parallel
// loop to have several tasks.

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "ballast/base/rng.h"
#include "ballast/config/load.h"
#include "ballast/train/learner.h"
#include "temporary_directory.h"

namespace lab {

using namespace ballast;

/// Overrides of a config, as `--set` takes them.
using Overrides = std::vector<std::string>;

class Lab {
public:
    Lab() {
        write_text();
        data_.emplace(data_options(config()));
    }

    /// Resolved. The base has every value that the tests rely on.
    Config config(const Overrides& overrides = {}) const {
        const std::string base = R"({"data": {"path": "text.txt"},
            "model": {"layers": 2, "heads": 4, "width": 64, "context": 72},
            "schedule": {"warmup": 3},
            "train": {"steps": 20, "batch": 12, "eval_batches": 1}})";
        return config_from_json(base, directory_ / "config.json", overrides);
    }

    const Dataset& data() const { return *data_; }

private:
    /// Words of four letters out of a few hundred: something to learn.
    void write_text() const {
        const RandomStream letters(3, "letters"), words(3, "words");
        std::string text;
        for (std::uint64_t i = 0; text.size() < 20000; ++i) {
            const std::uint64_t word = words.below(i, 300);
            for (std::uint64_t k = 0; k < 4; ++k)
                text += static_cast<char>('a' + letters.below(4 * word + k, 26));
            text += ' ';
        }
        std::ofstream(directory_ / "text.txt", std::ios::binary) << text;
    }

    TemporaryDirectory directory_;
    std::optional<Dataset> data_;
};

/// Two overrides in one list.
inline Overrides joined(Overrides a, const Overrides& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
}

/// "model.norm.placement=post", "model.norm.kind=rmsnorm" for every placement and every kind that go together: without
/// norms in the blocks, no kind but the default and `none` has a use.
inline std::vector<Overrides> every_norm() {
    std::vector<Overrides> all;
    for (const auto& placement : values_of(Placement{}))
        for (const auto& kind : values_of(NormKind{})) {
            const bool no_place = placement.name == "none", no_kind = kind.value == NormKind::none;
            if (no_kind != no_place && kind.value != NormConfig{}.kind && (no_kind || no_place)) continue;
            all.push_back(
                {"model.norm.placement=" + std::string(placement.name), "model.norm.kind=" + std::string(kind.name)});
        }
    return all;
}

/// Sets of options that between them use every kind of position, of ffn, of optimizer, and what else changes the
/// computation of a step.
inline std::vector<Overrides> option_sets() {
    return {
        {"model.dropout=0.1", "train.micro_batch=4"},
        {"model.position=rope", "model.kv_heads=2", "model.ffn.kind=swiglu", "loss.z_loss=1e-3",
         "optimizer.decay=independent"},
        {"model.position=alibi", "model.kv_heads=1", "optimizer.kind=sgd", "optimizer.lr=0.05", "model.bias=true",
         "model.tie_embeddings=false"},
        {"model.position=sinusoidal", "model.ffn.kind=geglu", "model.dropout=0.2", "model.final_norm=on",
         "train.micro_batch=2", "model.bias=true", "optimizer.clip=0.1"},
        {"model.position=none", "model.ffn.kind=relu2", "model.init.kind=fan_in", "optimizer.kind=sgd",
         "optimizer.momentum=0", "loss.z_loss=1e-2"},
    };
}

} // namespace lab
