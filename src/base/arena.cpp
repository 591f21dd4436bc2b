#include "ballast/base/arena.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <sys/mman.h>

namespace ballast {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

constexpr bool is_huge(std::size_t size) { return size >= kHugePage; }

/// Huge blocks come straight from the system, so that what is given back is gone: malloc keeps freed blocks of up to
/// 32 MiB for itself, beside the larger one that takes their place.
std::byte* take_huge(std::size_t size) {
    void* const taken = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (taken == MAP_FAILED) throw std::bad_alloc();
    auto* const begin = static_cast<std::byte*>(taken);
    const std::size_t before =
        round_up(reinterpret_cast<std::uintptr_t>(begin), kHugePage) - reinterpret_cast<std::uintptr_t>(begin);
    if (before > 0) munmap(begin, before);
    munmap(begin + before + size, kHugePage - before);
    // Advice only: where the kernel has no huge pages to give, small ones do.
    madvise(begin + before, size, MADV_HUGEPAGE);
    return begin + before;
}
} // namespace

Arena::~Arena() { release_blocks(); }

void Arena::release_blocks() {
    for (const Block& block : blocks_) {
        if (is_huge(block.size))
            munmap(block.data, block.size);
        else
            std::free(block.data);
    }
    blocks_.clear();
}

std::size_t Arena::block_bytes(std::size_t bytes) { return round_up(bytes, is_huge(bytes) ? kHugePage : kAlignment); }

void Arena::add_block(std::size_t bytes) {
    const std::size_t size = block_bytes(bytes);
    auto* const data = is_huge(size) ? take_huge(size) : static_cast<std::byte*>(std::aligned_alloc(kAlignment, size));
    if (data == nullptr) throw std::bad_alloc();
    blocks_.push_back({data, size});
}

void* Arena::allocate_bytes(std::size_t bytes) {
    bytes = round_up(std::max<std::size_t>(bytes, 1), kAlignment);
    if (backing_ == Backing::none) {
        void* const address = reinterpret_cast<void*>(kAlignment + used_); // NOLINT(performance-no-int-to-ptr)
        used_ += bytes;
        high_water_ = std::max(high_water_, used_);
        return address;
    }
    if (blocks_.empty() || offset_ + bytes > blocks_[current_].size) {
        if (blocks_.empty() || current_ + 1 == blocks_.size()) {
            // Growing by half of what is in use keeps the number of blocks, and the memory never used, small.
            add_block(std::max({bytes, kSmallestBlock, used_ / 2}));
            current_ = blocks_.size() - 1;
        } else {
            ++current_;
        }
        offset_ = 0;
        if (bytes > blocks_[current_].size) return allocate_bytes(bytes);
    }
    void* result = blocks_[current_].data + offset_;
    offset_ += bytes;
    used_ += bytes;
    high_water_ = std::max(high_water_, used_);
    return result;
}

void Arena::reset() {
    current_ = 0;
    offset_ = 0;
    used_ = 0;
    if (blocks_.size() > 1) {
        release_blocks();
        add_block(high_water_);
    }
}

Arena::Mark::~Mark() {
    arena_.current_ = block_;
    arena_.offset_ = offset_;
    arena_.used_ = used_;
    if (used_ == 0) arena_.reset();
}

} // namespace ballast
