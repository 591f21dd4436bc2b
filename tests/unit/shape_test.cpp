#include "ballast/autograd/shape.h"

#include "ballast/base/error.h"
#include "catch.h"

using namespace ballast;

TEST_CASE("a shape knows its elements, rows and width", "[autograd]") {
    const Shape scalar;
    CHECK(scalar.rank == 0);
    CHECK(scalar.elements() == 1);
    CHECK(scalar.width() == 1);
    CHECK(scalar.rows() == 1);
    CHECK(scalar.text() == "[]");

    const Shape vector{7};
    CHECK(vector.elements() == 7);
    CHECK(vector.width() == 7);
    CHECK(vector.rows() == 1);
    CHECK(vector.text() == "[7]");

    const Shape full{2, 3, 4, 5};
    CHECK(full.elements() == 120);
    CHECK(full.width() == 5);
    CHECK(full.rows() == 24);
    CHECK(full[2] == 4);
    CHECK(full.text() == "[2, 3, 4, 5]");
}

TEST_CASE("shapes of other rank or extents are unequal", "[autograd]") {
    CHECK(Shape{2, 3} == Shape{2, 3});
    CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
    CHECK_FALSE(Shape{2} == Shape{2, 1});
    CHECK_FALSE(Shape{} == Shape{1});
}

TEST_CASE("a shape that no tensor has is refused", "[autograd]") {
    CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), ShapeError);
    CHECK_THROWS_AS((Shape{2, 0}), ShapeError);
    CHECK_THROWS_AS((Shape{-1}), ShapeError);
}
