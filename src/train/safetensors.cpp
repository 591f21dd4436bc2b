#include "ballast/train/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "ballast/base/error.h"
#include "json_fields.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using Json = nlohmann::ordered_json;

constexpr std::uint64_t kSizeBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000; ///< what the reference implementation accepts
constexpr std::string_view kMetadataName = "__metadata__";

struct DtypeBits {
    std::string_view name;
    std::uint64_t bits;
};

constexpr auto kDtypes = std::to_array<DtypeBits>({
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
});

std::uint64_t read_size(std::span<const std::byte> bytes) {
    std::uint64_t size = 0;
    std::memcpy(&size, bytes.data(), kSizeBytes);
    return size;
}

/// Keeps a parse from nesting deeper than the format does, and from dropping all but the last of equal keys.
class StrictObject {
public:
    bool operator()(int depth, Json::parse_event_t event, const Json& value) {
        const auto level = static_cast<std::size_t>(depth);
        switch (event) {
        case Json::parse_event_t::object_start:
        case Json::parse_event_t::array_start:
            if (level >= keys_.size()) throw IoError("the header is nested deeper than the format allows");
            keys_[level].clear();
            break;
        case Json::parse_event_t::key:
            if (!keys_[level - 1].insert(value.get<std::string>()).second)
                throw IoError("the header has " + quoted_name<Json>(value.get<std::string>()) + " twice");
            break;
        default: break;
        }
        return true;
    }

private:
    std::array<std::set<std::string>, 3> keys_; ///< of the open object at each depth
};

Json parse_header(std::string_view text) {
    if (text.empty() || text.front() != '{') throw IoError("the header does not begin with '{'");
    if (text.find('\0') != std::string_view::npos) throw IoError("the header is not JSON");
    try {
        return Json::parse(text, StrictObject());
    } catch (const Json::exception&) {
        throw IoError("the header is not JSON");
    }
}

TensorMetadata read_metadata(const Json& json) {
    if (!json.is_object()) throw IoError("__metadata__ is not an object");
    TensorMetadata metadata;
    for (const auto& [key, value] : json.items()) {
        if (!value.is_string()) throw IoError("__metadata__: " + quoted_name<Json>(key) + " is not a string");
        metadata[key] = value.get<std::string>();
    }
    return metadata;
}

struct Range {
    std::uint64_t begin;
    std::uint64_t end;
};

/// Number of bytes of a tensor; throws where it does not fit 64 bits or is no whole number.
std::uint64_t byte_count(const TensorEntry& tensor) {
    const auto dtype = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const DtypeBits& entry) { return entry.name == tensor.dtype; });
    if (dtype == kDtypes.end()) throw IoError("unknown dtype " + quoted_name<Json>(tensor.dtype));
    std::uint64_t bits = dtype->bits;
    for (const std::int64_t extent : tensor.shape) {
        if (__builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &bits))
            throw IoError("its shape overflows");
    }
    if (bits % 8 != 0) throw IoError("its elements do not fill whole bytes");
    return bits / 8;
}

/// Reads a tensor's description, all but its bytes.
Range read_entry(const Json& json, TensorEntry& tensor) {
    if (!json.is_object()) throw IoError("not an object");
    const Json& offsets = member_of(json, "data_offsets");
    const Json& shape = member_of(json, "shape");
    read_value(member_of(json, "dtype"), "dtype", tensor.dtype);
    if (json.size() != 3) throw IoError("keys beside dtype, shape and data_offsets");

    const auto is_extent = [](const Json& value) {
        return value.is_number_unsigned() &&
               value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
    };
    if (!shape.is_array() || !std::all_of(shape.begin(), shape.end(), is_extent))
        throw IoError("shape is not an array of sizes");
    tensor.shape = shape.get<std::vector<std::int64_t>>();
    if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
        !offsets[1].is_number_unsigned())
        throw IoError("data_offsets is not a pair of offsets");
    const Range range{offsets[0].get<std::uint64_t>(), offsets[1].get<std::uint64_t>()};
    const std::uint64_t bytes = byte_count(tensor);
    if (range.end < range.begin || range.end - range.begin != bytes)
        throw IoError("data_offsets do not span the " + std::to_string(bytes) + " bytes of its shape");
    return range;
}

std::span<const float> values_of(const TensorSource& tensor) {
    std::size_t elements = 1;
    for (const std::int64_t extent : tensor.shape)
        elements *= static_cast<std::size_t>(extent);
    return {tensor.values, elements};
}

} // namespace

std::string TensorEntry::type_text() const {
    std::string text = dtype + " [";
    for (const std::int64_t extent : shape) {
        if (text.back() != '[') text += ", ";
        text += std::to_string(extent);
    }
    return text + "]";
}

SafetensorsView::SafetensorsView(std::span<const std::byte> bytes, std::string_view source) {
    try {
        if (bytes.size() < kSizeBytes) throw IoError("shorter than the size of a header");
        const std::uint64_t header_size = read_size(bytes);
        if (header_size > kMaxHeader || header_size > bytes.size() - kSizeBytes)
            throw IoError("the header would be " + std::to_string(header_size) + " bytes long, more than there are");
        const auto header = bytes.subspan(kSizeBytes, header_size);
        const auto data = bytes.subspan(kSizeBytes + header_size);
        const Json json = parse_header({reinterpret_cast<const char*>(header.data()), header.size()});

        std::vector<std::pair<Range, TensorEntry>> found;
        for (const auto& [name, value] : json.items()) {
            if (name == kMetadataName) {
                metadata_ = read_metadata(value);
                continue;
            }
            try {
                TensorEntry tensor{name, "", {}, {}};
                const Range range = read_entry(value, tensor);
                found.emplace_back(range, std::move(tensor));
            } catch (const IoError& error) {
                throw IoError("tensor " + quoted_name<Json>(name) + ": " + error.what());
            }
        }
        std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
            return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
        });
        std::uint64_t end = 0;
        for (auto& [range, tensor] : found) {
            if (range.begin != end || range.end > data.size())
                throw IoError("tensor " + quoted_name<Json>(tensor.name) +
                              ": data_offsets leave a hole, overlap, or reach beyond the file");
            end = range.end;
            tensor.bytes = data.subspan(range.begin, range.end - range.begin);
            index_.emplace(tensor.name, tensors_.size());
            tensors_.push_back(std::move(tensor));
        }
        if (end != data.size()) throw IoError(std::to_string(data.size() - end) + " bytes behind the last tensor");
    } catch (const IoError& error) {
        throw IoError(std::string(source) + ": not a whole safetensors file: " + error.what());
    }
}

const TensorEntry* SafetensorsView::find(std::string_view name) const {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
}

std::uint64_t write_safetensors(const fs::path& path, std::span<const TensorSource> tensors,
                                const TensorMetadata& metadata, const FileCalls& calls) {
    // The reference writer sorts by dtype, then name.
    std::map<std::string_view, const TensorSource*> sorted;
    for (const TensorSource& tensor : tensors) {
        if (tensor.name == kMetadataName || !sorted.emplace(tensor.name, &tensor).second)
            throw Error(path.string() + ": cannot hold (another) tensor " + quoted_name<Json>(tensor.name));
    }

    TensorMetadata all_metadata = metadata;
    all_metadata["format"] = "pt";
    Json json;
    json[std::string(kMetadataName)] = all_metadata;
    std::uint64_t offset = 0;
    for (const auto& [name, tensor] : sorted) {
        const std::uint64_t end = offset + values_of(*tensor).size_bytes();
        json[std::string(name)] = {{"dtype", "F32"}, {"shape", tensor->shape}, {"data_offsets", {offset, end}}};
        offset = end;
    }
    std::string header;
    try {
        header = json.dump();
    } catch (const Json::exception&) {
        throw Error(path.string() + ": a tensor's name or the metadata is not UTF-8");
    }
    header.resize((header.size() + kSizeBytes - 1) / kSizeBytes * kSizeBytes, ' ');
    if (header.size() > kMaxHeader) throw Error(path.string() + ": more tensors than a safetensors header can hold");

    AtomicFile file(path, calls);
    Checksum sum;
    const auto write = [&](std::span<const std::byte> bytes) {
        file.write(bytes);
        sum.add(bytes);
    };
    const std::uint64_t header_size = header.size();
    write(std::as_bytes(std::span(&header_size, 1)));
    write(std::as_bytes(std::span(header)));
    for (const auto& [name, tensor] : sorted)
        write(std::as_bytes(values_of(*tensor)));
    file.commit();
    return sum.value();
}

} // namespace ballast
