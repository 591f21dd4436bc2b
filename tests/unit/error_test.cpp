#include "ballast/base/error.h"

#include "catch.h"

using namespace ballast;

TEST_CASE("a config problem says what is known about its place", "[base]") {
    CHECK(ConfigProblem{"a.json", 3, "model.width", "is wrong"}.text() == "a.json:3: model.width: is wrong");
    CHECK(ConfigProblem{"a.json", 3, "", "is wrong"}.text() == "a.json:3: is wrong");
    CHECK(ConfigProblem{"a.json", 0, "", "is wrong"}.text() == "a.json: is wrong");
    CHECK(ConfigProblem{"", 0, "model.width", "is wrong"}.text() == "model.width: is wrong");
    CHECK(ConfigProblem{"", 0, "", "is wrong"}.text() == "is wrong");
}

TEST_CASE("errors of several problems have one line each and keep them apart", "[base]") {
    const ConfigError config({{"a.json", 1, "x", "one"}, {"a.json", 2, "y", "two"}});
    CHECK(std::string(config.what()) == "a.json:1: x: one\na.json:2: y: two");
    CHECK(config.problems().size() == 2);
    CHECK(config.problems()[1].path == "y");
    const CheckpointError checkpoint({"one", "two"});
    CHECK(std::string(checkpoint.what()) == "one\ntwo");
    CHECK(checkpoint.problems() == std::vector<std::string>{"one", "two"});
    CHECK(std::string(CheckpointError({}).what()).empty());
}

TEST_CASE("everything that the library throws is an Error, and the kinds are told apart", "[base]") {
    CHECK_THROWS_AS(throw IoError("x"), Error);
    CHECK_THROWS_AS(throw UsageError("x"), Error);
    CHECK_THROWS_AS(throw DataError("x"), Error);
    CHECK_THROWS_AS(throw ShapeError("x"), Error);
    CHECK_THROWS_AS(throw ConfigError({}), Error);
    CHECK_THROWS_AS(throw CheckpointError({}), Error);
    CHECK_THROWS_AS(throw Error("x"), std::runtime_error);
}
