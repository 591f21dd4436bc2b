#include "ballast/base/arena.h"

#include <cstring>
#include <new>
#include <vector>

#include "ballast/base/memory.h"
#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

namespace {

bool aligned(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory) % 64 == 0; }

/// Fills memory with a mark of its own and says later whether it is still there.
struct Filled {
    unsigned char* memory;
    std::size_t bytes;
    unsigned char mark;

    Filled(Arena& arena, std::size_t size, unsigned char with)
        : memory(static_cast<unsigned char*>(arena.allocate_bytes(size))), bytes(size), mark(with) {
        std::memset(memory, mark, bytes);
    }
    bool intact() const {
        for (std::size_t i = 0; i < bytes; ++i)
            if (memory[i] != mark) return false;
        return true;
    }
};

/// A turn of a loop: allocations of seeded sizes, some of them given back by marks. Returns where they were.
std::vector<void*> turn(Arena& arena, bool use) {
    const RandomStream random(1, "arena");
    std::vector<void*> addresses;
    const auto take = [&](std::uint64_t index) {
        const std::size_t bytes = 1 + random.below(index, index % 7 == 0 ? 5'000'000 : 3000);
        addresses.push_back(arena.allocate_bytes(bytes));
        if (use) std::memset(addresses.back(), static_cast<int>(index), bytes);
    };
    for (std::uint64_t i = 0; i < 40; ++i) {
        take(i);
        const Arena::Mark mark(arena);
        take(1000 + i);
    }
    return addresses;
}

} // namespace

TEST_CASE("allocations are aligned and do not overlap", "[base]") {
    Arena arena;
    const RandomStream sizes(1, "sizes");
    std::vector<Filled> all;
    for (std::uint64_t i = 0; i < 300; ++i) {
        const std::uint64_t limit = i % 50 == 49 ? 5 << 20 : 3000; // now and then more than a block
        all.emplace_back(arena, sizes.below(i, limit), static_cast<unsigned char>(i));
        CHECK(aligned(all.back().memory));
    }
    for (const Filled& filled : all)
        CHECK(filled.intact());
    CHECK(aligned(arena.allocate<char>(0)));
    CHECK(arena.allocate<char>(0) != arena.allocate<char>(0));
}

TEST_CASE("a loop that allocates the same amounts gets the same addresses", "[base]") {
    Arena arena;
    const auto turn = [&] {
        std::vector<void*> addresses;
        for (const std::size_t bytes : {100UL, 3UL << 20, 1UL, 700000UL, 5UL << 20, 64UL})
            addresses.push_back(arena.allocate_bytes(bytes));
        return addresses;
    };
    turn();
    arena.reset();
    CHECK(arena.used() == 0);
    const auto second = turn();
    for (int i = 0; i < 3; ++i) {
        arena.reset();
        CHECK(turn() == second);
    }
}

TEST_CASE("use and high water are counted in bytes handed out", "[base]") {
    Arena arena;
    CHECK(arena.used() == 0);
    CHECK(arena.high_water() == 0);
    arena.allocate<float>(16);
    CHECK(arena.used() == 64);
    arena.allocate_bytes(1);
    CHECK(arena.used() == 128);
    arena.reset();
    CHECK(arena.used() == 0);
    CHECK(arena.high_water() == 128);
    arena.allocate_bytes(64);
    CHECK(arena.high_water() == 128);
}

TEST_CASE("a mark gives back what came after it, and marks nest", "[base]") {
    Arena arena;
    const Filled kept(arena, 1000, 1);
    void* first = nullptr;
    {
        const Arena::Mark outer(arena);
        const Filled below(arena, 500, 2);
        first = below.memory;
        {
            const Arena::Mark inner(arena);
            arena.allocate_bytes(10 << 20); // in another block
        }
        const Filled again(arena, 500, 3);
        CHECK(below.intact());
        CHECK(kept.intact());
    }
    CHECK(arena.used() == 1024);
    CHECK(arena.allocate_bytes(500) == first);
    CHECK(kept.intact());
}

TEST_CASE("an outermost mark leaves one block behind that fits what was used", "[base]") {
    Arena arena;
    const auto turn = [&] {
        const Arena::Mark mark(arena);
        arena.allocate_bytes(100);
        return arena.allocate_bytes(3 << 20);
    };
    turn(); // two blocks, which become one
    CHECK(arena.used() == 0);
    void* const second = turn();
    CHECK(turn() == second);
}

TEST_CASE("memory that the system does not have is std::bad_alloc, and the arena goes on", "[base]") {
    Arena arena;
    const Filled kept(arena, 100, 7);
    CHECK_THROWS_AS(arena.allocate_bytes(std::size_t{1} << 60), std::bad_alloc);
    CHECK(kept.intact());
    const Filled next(arena, 100, 8);
    CHECK(kept.intact());
}

TEST_CASE("an arena that plans has the high-water mark of one that holds memory", "[base]") {
    Arena memory;
    Arena plan(Arena::Backing::none);
    turn(memory, true);
    turn(plan, false);
    CHECK(plan.used() == memory.used());
    CHECK(plan.high_water() == memory.high_water());
    plan.reset();
    CHECK(plan.used() == 0);
}

TEST_CASE("what an arena gives back is the system's again", "[base]") {
    constexpr std::size_t kPieces = 40;
    constexpr std::size_t kPiece = std::size_t{1} << 20;
    const std::int64_t before = resident_memory();
    {
        Arena arena;
        for (std::size_t i = 0; i < kPieces; ++i)
            std::memset(arena.allocate_bytes(kPiece), 1, kPiece);
        CHECK(resident_memory() - before > static_cast<std::int64_t>(kPieces * kPiece / 4 * 3));
        arena.reset(); // several blocks become one, which nothing has touched yet
        CHECK(resident_memory() - before < static_cast<std::int64_t>(kPieces * kPiece / 4));
    }
    CHECK(resident_memory() - before < static_cast<std::int64_t>(kPieces * kPiece / 4));
}
