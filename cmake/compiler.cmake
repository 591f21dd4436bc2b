# Language standard, warnings, floating point and sanitizers: what every target of ours is compiled with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

add_library(ballast_compiler INTERFACE)
target_compile_options(ballast_compiler INTERFACE -Wall -Wextra -Wpedantic $<$<BOOL:${BALLAST_WERROR}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC 12 sees an overlap in "literal" + std::string that cannot be: GCC bug 105651, mended in 13.
    target_compile_options(ballast_compiler INTERFACE -Wno-restrict)
endif()

# -ffp-contract=off: a * b + c is two roundings wherever it is written, so a Debug, a Release, a GCC and a Clang build
#   compute the same bits. The kernels ask for a fused multiply-add by name (Highway's MulAdd), so this costs nothing.
# -fno-math-errno: nobody reads errno after sqrt, and without it sqrt is one instruction; no value changes.
# Nothing that lets the compiler assume finite values: a NaN is a result here.
target_compile_options(ballast_compiler INTERFACE -ffp-contract=off -fno-math-errno)

# No -march: Highway chooses the instruction set at run time, so one binary is fast on any processor of its kind.

if(BALLAST_SANITIZE)
    set(sanitize -fsanitize=${BALLAST_SANITIZE} -fno-omit-frame-pointer)
    if(BALLAST_SANITIZE MATCHES "undefined")
        list(APPEND sanitize -fno-sanitize-recover=all)
    elseif(BALLAST_SANITIZE STREQUAL "fuzzer")
        # Everything is watched and counts its branches; the fuzz targets bring libFuzzer's main function.
        set(sanitize -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -fno-omit-frame-pointer)
    endif()
    add_compile_options(${sanitize})
    add_link_options(${sanitize})
endif()
