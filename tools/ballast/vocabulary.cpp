#include "vocabulary.h"

#include "ballast/base/error.h"
#include "ballast/data/dataset.h"
#include "ballast/train/learner.h"

using namespace ballast;

namespace {

std::int64_t likely_vocabulary(const DataConfig& data) {
    constexpr std::int64_t kShakespeareCharacters = 65;
    if (data.vocab_size > 0) return data.vocab_size;
    return data.tokenizer.kind == TokenizerKind::byte ? 256 : kShakespeareCharacters;
}

} // namespace

Vocabulary vocabulary_of(const Config& config) {
    DataOptions options = data_options(config);
    // Whether the data is long enough is not asked here.
    options.context = 1;
    try {
        return {Dataset(options).vocab_size(), ""};
    } catch (const Error& error) {
        return {likely_vocabulary(config.data), error.what()};
    }
}
