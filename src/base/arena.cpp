#include "ballast/base/arena.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <sys/mman.h>

namespace ballast {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallestBlock = std::size_t{1} << 20;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }
} // namespace

Arena::~Arena() { release_blocks(); }

void Arena::release_blocks() {
    for (const Block& block : blocks_)
        std::free(block.data);
    blocks_.clear();
}

void Arena::add_block(std::size_t bytes) {
    const bool huge = bytes >= kHugePage;
    const std::size_t size = round_up(bytes, huge ? kHugePage : kAlignment);
    auto* data = static_cast<std::byte*>(std::aligned_alloc(huge ? kHugePage : kAlignment, size));
    if (data == nullptr) throw std::bad_alloc();
    // Advice only: where the kernel has no huge pages to give, small ones do.
    if (huge) madvise(data, size, MADV_HUGEPAGE);
    blocks_.push_back({data, size});
}

void* Arena::allocate_bytes(std::size_t bytes) {
    bytes = round_up(std::max<std::size_t>(bytes, 1), kAlignment);
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
