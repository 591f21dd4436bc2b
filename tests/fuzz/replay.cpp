// The main function of a fuzz target in a build without libFuzzer: replay FOLDER... gives the target every file of the
// folders (seeds, and the inputs of past findings), each cut short at many places, and a few hundred seeded mutations.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "ballast/base/file.h"
#include "ballast/base/rng.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

namespace fs = std::filesystem;

void give(const std::string& bytes) {
    // Memory of its own without the string's closing NUL, so that a sanitizer sees a read beyond the end.
    const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
    LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

void give_cut(const std::string& bytes) {
    constexpr std::size_t kCuts = 64;
    const std::size_t stride = std::max<std::size_t>(1, bytes.size() / kCuts);
    for (std::size_t size = 0; size < bytes.size(); size += stride)
        give(bytes.substr(0, size));
}

void give_mutations(const std::string& name, const std::string& bytes) {
    if (bytes.empty()) return;
    constexpr std::uint64_t kMutations = 200;
    const ballast::RandomStream random(1, name);
    std::uint64_t index = 0;
    const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random.below(index++, bound)); };
    for (std::uint64_t i = 0; i < kMutations; ++i) {
        std::string mutated = bytes;
        for (std::size_t changes = 1 + below(3); changes > 0 && !mutated.empty(); --changes) {
            const std::size_t at = below(mutated.size());
            const std::size_t count = std::min(1 + below(16), mutated.size() - at);
            switch (below(4)) {
            case 0: mutated[at] = static_cast<char>(below(256)); break;
            case 1: mutated.erase(at, count); break;
            case 2: mutated.insert(at, mutated.substr(at, count)); break;
            default: mutated[at] = "\"{}[],:0-9eE.\\\n\xff"[below(16)]; break;
            }
        }
        give(mutated);
    }
}

} // namespace

int main(int argc, char** argv) {
    std::vector<fs::path> files;
    for (int i = 1; i < argc; ++i)
        for (const auto& entry : fs::directory_iterator(argv[i]))
            files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files) {
        std::printf("%s\n", file.c_str());
        std::fflush(stdout);
        const std::string bytes = ballast::read_file(file);
        give(bytes);
        give_cut(bytes);
        give_mutations(file.filename().string(), bytes);
    }
    return files.empty() ? 1 : 0;
}
