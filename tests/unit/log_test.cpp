#include "ballast/base/log.h"

#include <string>
#include <vector>

#include "catch.h"

using namespace ballast;

TEST_CASE("a log gives each message, as it is, to the destination that its copies share") {
    std::vector<std::string> seen;
    const Log log = Log::to([&](LogLevel level, std::string_view message) {
        seen.push_back(std::to_string(static_cast<int>(level)) + std::string(message));
    });
    const Log copy = log; // NOLINT(performance-unnecessary-copy-initialization): the copy is what is tested
    log.info("loaded {} of %d");
    copy.warn("careful");
    log.error("");
    CHECK(seen == std::vector<std::string>{"0loaded {} of %d", "1careful", "2"});
}

TEST_CASE("a default log is silent") { CHECK_NOTHROW(Log().error("nobody hears this")); }
