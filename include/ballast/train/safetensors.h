#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ballast/base/file.h"

// The safetensors format (https://github.com/huggingface/safetensors): the size of a header in 8 bytes, little-endian;
// the header, a JSON object from tensor name to dtype, shape and range of bytes, padded with spaces; the tensors'
// bytes, row-major, little-endian, without holes. Its key "__metadata__" is an object of strings.

namespace ballast {

/// A tensor to be written.
struct TensorSource {
    std::string name;
    std::vector<std::int64_t> shape; ///< extents; empty: a scalar
    const float* values;
};

/// Strings kept beside the tensors.
using TensorMetadata = std::map<std::string, std::string>;

/// Writes tensors as F32, in the order of their names, straight from where they are. The file is whole or absent
/// (AtomicFile). `metadata` goes into the header with "format": "pt" added, which other readers ask for. Returns the
/// Checksum of the file. Throws IoError; Error for two tensors of one name or a name the format reserves.
std::uint64_t write_safetensors(const std::filesystem::path& path, std::span<const TensorSource> tensors,
                                const TensorMetadata& metadata = {}, const FileCalls& calls = kSystemCalls);

/// A tensor in a file.
struct TensorEntry {
    std::string name;
    std::string dtype; ///< "F32", "BF16", …
    std::vector<std::int64_t> shape;
    std::span<const std::byte> bytes; ///< in the file's memory, not aligned

    /// "F32 [2, 3]"
    std::string type_text() const;
};

/// A view of a safetensors file's bytes. Nothing in them is trusted: sizes, offsets (no holes, no overlap, up to the
/// end), element counts, names and types are checked before any of them is used.
class SafetensorsView {
public:
    /// Throws IoError, beginning with `source`, for bytes that break the format.
    SafetensorsView(std::span<const std::byte> bytes, std::string_view source);

    /// In the order of their bytes.
    std::span<const TensorEntry> tensors() const { return tensors_; }
    /// Null when there is no such tensor.
    const TensorEntry* find(std::string_view name) const;
    const TensorMetadata& metadata() const { return metadata_; }

private:
    std::vector<TensorEntry> tensors_;
    std::map<std::string, std::size_t, std::less<>> index_;
    TensorMetadata metadata_;
};

/// A safetensors file, mapped into memory.
class SafetensorsFile {
public:
    /// Throws IoError for what cannot be read and for what breaks the format.
    explicit SafetensorsFile(const std::filesystem::path& path) : file_(path), view_(file_.bytes(), path.string()) {}

    std::span<const TensorEntry> tensors() const { return view_.tensors(); }
    const TensorEntry* find(std::string_view name) const { return view_.find(name); }
    const TensorMetadata& metadata() const { return view_.metadata(); }
    /// The whole file.
    std::span<const std::byte> bytes() const { return file_.bytes(); }

private:
    MappedFile file_;
    SafetensorsView view_;
};

} // namespace ballast
