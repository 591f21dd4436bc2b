#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace ballast {

/// Bytes that store an id below `vocab_size`: 1, 2 or 4.
constexpr int token_width(std::int64_t vocab_size) { return vocab_size <= 256 ? 1 : vocab_size <= 65536 ? 2 : 4; }

/// Token ids that somebody else keeps, little-endian unsigned integers of 1, 2 or 4 bytes. Indices are not checked.
class TokenView {
public:
    TokenView() = default;
    TokenView(const std::byte* data, int width, std::int64_t size) : data_(data), width_(width), size_(size) {}

    std::int64_t size() const { return size_; }

    std::int32_t operator[](std::int64_t index) const {
        std::uint32_t id = 0;
        std::memcpy(&id, data_ + index * width_, static_cast<std::size_t>(width_));
        return static_cast<std::int32_t>(id);
    }

    /// The `count` ids from `begin` on.
    TokenView part(std::int64_t begin, std::int64_t count) const { return {data_ + begin * width_, width_, count}; }

    std::span<const std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_ * width_)}; }

private:
    const std::byte* data_ = nullptr;
    int width_ = 1;
    std::int64_t size_ = 0;
};

/// Token ids kept in as few bytes each as their vocabulary allows.
class TokenArray {
public:
    explicit TokenArray(std::int64_t vocab_size) : width_(token_width(vocab_size)) {}

    void reserve(std::size_t count) { bytes_.reserve(count * static_cast<std::size_t>(width_)); }
    void push_back(std::int32_t id) {
        const auto* const first = reinterpret_cast<const std::byte*>(&id);
        bytes_.insert(bytes_.end(), first, first + width_);
    }
    TokenView view() const { return {bytes_.data(), width_, static_cast<std::int64_t>(bytes_.size()) / width_}; }

private:
    int width_;
    std::vector<std::byte> bytes_;
};

} // namespace ballast
