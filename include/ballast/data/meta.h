#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace ballast {

/// What nanoGPT keeps in meta.pkl beside train.bin, as JSON: `{"vocab_size": 65, "itos": ["\n", " ", …]}`. `itos` may
/// also be an object from id to character, as Python's json.dump writes nanoGPT's dictionary; other keys are ignored.
struct BinMeta {
    std::int64_t vocab_size = 0;   ///< 0: not said
    std::vector<std::string> itos; ///< the text of each id; may be empty
};

/// Reads meta.json; a missing file is an empty BinMeta. Throws IoError, or DataError naming the file and the mistake.
BinMeta read_bin_meta(const std::filesystem::path& path);

} // namespace ballast
