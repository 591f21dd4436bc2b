// state.json of a checkpoint whose other files are whole. The input's checksum of itself is put right first: an
// attacker can do so, and a fuzzer that could not would get no further.

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/train/checkpoint.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

struct Model {
    Model() {
        table.add("embedding", {2, 3}, ParamInit::constant(0.25), DecayGroup::decay);
        table.add("gain", {3}, ParamInit::constant(1), DecayGroup::no_decay);
        table.allocate(1);
        moment.assign(static_cast<std::size_t>(table.size()), 0.5F);
        moments = {{"m", moment.data()}};
    }
    ParamTable table;
    std::vector<float> moment;
    std::vector<Moment> moments;
};

/// The text with the checksum that its last key has to have: see write_state() in checkpoint.cpp.
std::string sealed(std::string text) {
    constexpr std::size_t kDigits = 16;
    constexpr std::string_view kTail = "\"\n}\n";
    if (!text.ends_with(kTail) || text.size() < kTail.size() + kDigits) return text;
    const std::size_t at = text.size() - kTail.size() - kDigits;
    text.replace(at, kDigits, kDigits, '0');
    std::uint64_t sum = checksum(std::as_bytes(std::span(text)));
    for (std::size_t i = kDigits; i-- > 0; sum >>= 4U)
        text[at + i] = "0123456789abcdef"[sum & 15U];
    return text;
}

/// The checkpoint whose state.json is replaced.
const std::filesystem::path& checkpoint(Model& model) {
    static const std::filesystem::path path =
        save_checkpoint(scratch().path(), "{}", TrainerState{}, model.table, model.moments);
    return path;
}

void require_sensible(const TrainerState& state) {
    constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
    require(state.step == 0, "a checkpoint's state is that of its name");
    require(state.tokens >= 0 && state.best_loss_step >= 0 && state.best_val_step >= 0 && state.resumed >= 0,
            "counts are not negative");
    require(state.vocab_size >= 0 && state.vocab_size <= kMost, "a vocabulary is one that a model can have");
    const std::int64_t known = state.tokenizer.vocab_size();
    require(known >= 0 && known <= kMost, "a tokenizer's vocabulary is one that a model can have");
    const std::vector<std::int32_t> ids{0, 1, static_cast<std::int32_t>(known - 1)};
    state.tokenizer.decode(ids);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Model model;
    const std::filesystem::path& path = checkpoint(model);
    write_text(path / "state.json", sealed({reinterpret_cast<const char*>(data), size}));
    const std::vector<float> before = model.moment;
    try {
        require_sensible(read_checkpoint_info(path).state);
        verify_checkpoint(path);
        TrainerState state;
        load_checkpoint(path, state, model.table, model.moments);
        require_sensible(state);
    } catch (const CheckpointError& error) {
        require(!error.problems().empty(), "a refused checkpoint has a problem");
        for (const std::string& problem : error.problems())
            require_message(problem);
        require(!newest_checkpoint(scratch().path()).path, "a refused checkpoint is passed over");
    }
    require(model.moment == before, "nothing but the checkpoint's own tensors is loaded");
    return 0;
}
