// Catch2 v2 only: the main function of the test programs. CMake defines CATCH_CONFIG_MAIN for this file.
#include <catch2/catch.hpp>
