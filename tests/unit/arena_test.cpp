#include "ballast/base/arena.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "ballast/base/memory.h"
#include "ballast/base/rng.h"
#include "catch.h"

using namespace ballast;

namespace {

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

TEST_CASE("an arena that plans has the high-water mark of one that holds memory") {
    Arena memory;
    Arena plan(Arena::Backing::none);
    turn(memory, true);
    turn(plan, false);
    CHECK(plan.used() == memory.used());
    CHECK(plan.high_water() == memory.high_water());
    plan.reset();
    CHECK(plan.used() == 0);
}

TEST_CASE("from the second turn on an arena gives the same aligned addresses") {
    Arena arena;
    turn(arena, true);
    arena.reset();
    const std::vector<void*> second = turn(arena, true);
    arena.reset();
    CHECK(turn(arena, true) == second);
    for (void* const address : second)
        CHECK(reinterpret_cast<std::uintptr_t>(address) % 64 == 0);
}

TEST_CASE("what an arena gives back is the system's again") {
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
