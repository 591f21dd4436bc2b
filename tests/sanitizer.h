#pragma once

#if defined(__has_feature)
#define BALLAST_HAS_FEATURE(name) __has_feature(name)
#else
#define BALLAST_HAS_FEATURE(name) 0
#endif

/// Whether AddressSanitizer or ThreadSanitizer replaces the allocator.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || BALLAST_HAS_FEATURE(address_sanitizer) ||         \
    BALLAST_HAS_FEATURE(thread_sanitizer)
#define BALLAST_SANITIZER_ALLOCATES 1
#else
#define BALLAST_SANITIZER_ALLOCATES 0
#endif

/// Such an allocator holds shadows of all memory and keeps what was freed: the pages of the process are then no measure
/// of what Ballast holds.
constexpr bool kPagesTellMemory = BALLAST_SANITIZER_ALLOCATES == 0;

/// With --coverage, pages of counters are touched as code runs for the first time, however late that is.
#ifdef BALLAST_COUNTS_LINES
constexpr bool kCountsLines = true;
#else
constexpr bool kCountsLines = false;
#endif

/// Hooks of ThreadSanitizer's allocator are called for malloc, calloc, realloc and operator new, aligned or not, but
/// not for aligned_alloc, memalign and posix_memalign (seen with GCC 12); those of AddressSanitizer's are called for
/// all.
#if defined(__SANITIZE_THREAD__) || BALLAST_HAS_FEATURE(thread_sanitizer)
constexpr bool kHooksSeeAlignedAlloc = false;
#else
constexpr bool kHooksSeeAlignedAlloc = true;
#endif
