// Data to train on. The first line says how it is read, a letter each: `b` token files (else text), `v` with a val.bin,
// which is the second half of what follows, `m` with a meta.json, which is the second line, `y` bytes are the tokens,
// `n` no validation split, `k` read with another vocabulary.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/data/dataset.h"
#include "ballast/data/sampler.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

constexpr std::int64_t kContext = 3;

void require_ids(const std::vector<std::int32_t>& ids, std::int64_t vocab_size) {
    for (const std::int32_t id : ids)
        require(id >= 0 && id < vocab_size, "ids are of the vocabulary");
}

void use(const DataOptions& options) {
    const Dataset data(options);
    require(data.vocab_size() > 0 && data.train().size() > kContext, "there is something to train on");
    require(data.unigram_entropy() >= 0, "an entropy is not negative");
    for (const TokenView tokens : {data.train(), data.validation()}) {
        if (tokens.size() == 0) continue;
        constexpr std::int64_t kRows = 2;
        std::vector<std::int32_t> inputs(static_cast<std::size_t>(kRows * kContext));
        std::vector<std::int32_t> targets(inputs.size());
        const Sampler sampler(tokens, 1);
        sampler.batch(1, kRows, kContext, inputs.data(), targets.data());
        require_ids(inputs, data.vocab_size());
        sampler.evaluation_batch(1, 2, kRows, kContext, inputs.data(), targets.data());
        require_ids(targets, data.vocab_size());
        data.tokenizer().decode(inputs);
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::string_view rest(reinterpret_cast<const char*>(data), size);
    const std::string_view flags = take_until(rest, '\n');
    const auto set = [&](char flag) { return flags.find(flag) != std::string_view::npos; };

    DataOptions options;
    options.context = kContext;
    options.val_fraction = set('n') ? 0 : 0.25;
    if (set('y')) options.tokenizer = Tokenizer::Kind::byte;
    if (set('k')) options.vocabulary = set('b') ? Tokenizer::ids(40) : Tokenizer::characters_of("abcdef \n", "");
    if (set('b')) {
        const std::filesystem::path directory = scratch() / "bin";
        std::filesystem::create_directory(directory);
        for (const char* name : {"meta.json", "val.bin"})
            std::filesystem::remove(directory / name);
        if (set('m')) write_text(directory / "meta.json", take_until(rest, '\n'));
        if (set('v')) {
            const std::size_t half = rest.size() / 4 * 2;
            write_text(directory / "val.bin", rest.substr(half));
            rest = rest.substr(0, half);
        }
        write_text(directory / "train.bin", rest);
        options.path = directory;
    } else {
        options.path = scratch() / "text.txt";
        write_text(options.path, rest);
    }
    try {
        use(options);
    } catch (const DataError& error) {
        require_message(error.what());
    }
    return 0;
}
