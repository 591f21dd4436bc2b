#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ballast {

/// A bump allocator. Memory comes in blocks; reset() (or releasing the outermost Mark) merges them into one block of
/// the high-water size, so that a loop that allocates the same amounts each turn gets the same addresses each turn
/// and, from the second turn on, never calls the system.
///
/// Not thread-safe. Objects are raw memory: no constructors run, and the contents after an allocation are
/// unspecified. Every allocation is aligned to 64 bytes.
class Arena {
public:
    enum class Backing : std::uint8_t {
        memory,
        none, ///< addresses that are distinct and must not be used: to learn the high-water mark of a plan
    };

    explicit Arena(Backing backing = Backing::memory) : backing_(backing) {}
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    template <class T>
    T* allocate(std::int64_t count) {
        return static_cast<T*>(allocate_bytes(static_cast<std::size_t>(count) * sizeof(T)));
    }

    /// Throws std::bad_alloc when the system has no more memory.
    void* allocate_bytes(std::size_t bytes);

    /// Bytes of the system's memory behind an arena that holds `bytes`: large ones take whole huge pages.
    static std::size_t block_bytes(std::size_t bytes);

    /// Forgets every allocation.
    void reset();

    Backing backing() const { return backing_; }
    std::size_t used() const { return used_; }
    std::size_t high_water() const { return high_water_; }

    /// Gives back, when it goes out of scope, everything allocated since it was made. Marks nest.
    class Mark {
    public:
        explicit Mark(Arena& arena)
            : arena_(arena), block_(arena.current_), offset_(arena.offset_), used_(arena.used_) {}
        ~Mark();
        Mark(const Mark&) = delete;
        Mark& operator=(const Mark&) = delete;

    private:
        Arena& arena_;
        std::size_t block_;
        std::size_t offset_;
        std::size_t used_;
    };

private:
    struct Block {
        std::byte* data;
        std::size_t size;
    };

    void add_block(std::size_t bytes);
    void release_blocks();

    Backing backing_;
    std::vector<Block> blocks_;
    std::size_t current_ = 0; ///< index of the block that is being filled
    std::size_t offset_ = 0;  ///< bytes used in it
    std::size_t used_ = 0;    ///< bytes handed out since the last reset
    std::size_t high_water_ = 0;
};

} // namespace ballast
