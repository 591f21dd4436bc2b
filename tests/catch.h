#pragma once

// Catch2 is v2 on Debian 12 and v3 on later systems; only the header's name and the place of Approx differ for us.
#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif
