// What becomes a tokenizer. The first byte says what the rest is: `m` a meta.json, `t` a text, `v` a vocabulary, an
// entry a line, `i` ids as text.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/data/meta.h"
#include "ballast/data/tokenizer.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

void require_round_trip(const Tokenizer& tokenizer, std::string_view text) {
    const std::vector<std::int32_t> ids = tokenizer.encode(text, "input");
    for (const std::int32_t id : ids)
        require(id >= 0 && id < tokenizer.vocab_size(), "ids are of the vocabulary");
    require(tokenizer.decode(ids) == text, "text comes back");
    const TokenView compact = tokenizer.encode_compact(text, "input").view();
    require(compact.size() == static_cast<std::int64_t>(ids.size()), "both encodings are the same");
}

void use_meta(std::string_view text) {
    const std::filesystem::path path = scratch() / "meta.json";
    write_text(path, text);
    const BinMeta meta = read_bin_meta(path);
    require(meta.vocab_size >= 0 && static_cast<std::int64_t>(meta.itos.size()) <= meta.vocab_size,
            "texts are those of the vocabulary");
    if (meta.itos.empty()) return;
    const Tokenizer tokenizer = Tokenizer::characters(meta.itos);
    std::string all;
    for (const std::string& entry : meta.itos)
        all += entry;
    require_round_trip(tokenizer, all);
}

void use_text(std::string_view text) {
    require_round_trip(Tokenizer::bytes(), text);
    const Tokenizer tokenizer = Tokenizer::characters_of(text, "input");
    require_round_trip(tokenizer, text);
    const std::vector<std::string> vocabulary = tokenizer.vocabulary();
    require(Tokenizer::characters(vocabulary).vocabulary() == vocabulary, "a vocabulary comes back");
}

void use_vocabulary(std::string_view text) {
    std::vector<std::string> entries;
    while (!text.empty())
        entries.emplace_back(take_until(text, '\n'));
    const Tokenizer tokenizer = Tokenizer::characters(entries);
    require(tokenizer.vocabulary() == entries, "a vocabulary comes back");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    try {
        switch (data[0]) {
        case 'm': use_meta(text); break;
        case 't': use_text(text); break;
        case 'v': use_vocabulary(text); break;
        case 'i': Tokenizer::ids(50257).encode(text, "input"); break;
        default: break;
        }
    } catch (const DataError& error) {
        require_message(error.what());
    }
    return 0;
}
