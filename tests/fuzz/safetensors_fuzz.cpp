// A safetensors file.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ballast/base/error.h"
#include "ballast/train/safetensors.h"
#include "fuzz/target.h"

using namespace ballast;

namespace {

/// Writes the tensors of a file, which are all F32, and reads them again.
void require_same_when_written(const SafetensorsView& view) {
    std::vector<std::vector<float>> values;
    std::vector<TensorSource> sources;
    for (const TensorEntry& tensor : view.tensors()) {
        if (tensor.dtype != "F32") return;
        values.emplace_back(tensor.bytes.size() / sizeof(float));
        if (!tensor.bytes.empty()) std::memcpy(values.back().data(), tensor.bytes.data(), tensor.bytes.size());
        sources.push_back({tensor.name, tensor.shape, values.back().data()});
    }
    const std::filesystem::path path = scratch() / "written.safetensors";
    write_safetensors(path, sources, view.metadata());
    const SafetensorsFile written(path);
    require(written.tensors().size() == view.tensors().size(), "all tensors are written");
    for (const TensorEntry& tensor : view.tensors()) {
        const TensorEntry* const copy = written.find(tensor.name);
        require(copy != nullptr && copy->shape == tensor.shape &&
                    std::equal(copy->bytes.begin(), copy->bytes.end(), tensor.bytes.begin(), tensor.bytes.end()),
                "a written tensor reads back");
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
    try {
        const SafetensorsView view(bytes, "input");
        std::uint64_t checked = 0; // reads every byte that a tensor is said to have
        std::size_t total = 0;
        for (const TensorEntry& tensor : view.tensors()) {
            require(view.find(tensor.name) == &tensor, "a tensor is found by its name");
            require(!tensor.type_text().empty(), "a tensor has a type");
            checked += checksum(tensor.bytes);
            total += tensor.bytes.size();
        }
        require(checked + total + 1 != 0 && total <= size, "tensors lie in the file");
        require_same_when_written(view);
    } catch (const IoError& error) {
        require_message(error.what());
    }
    return 0;
}
