#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

namespace ballast {

/// Extents of a contiguous row-major tensor of rank 0 (a scalar) to 4.
struct Shape {
    int rank = 0;
    std::array<std::int64_t, 4> dims{};

    Shape() = default;
    /// Throws ShapeError above rank 4 or for an extent below 1.
    Shape(std::initializer_list<std::int64_t> extents);

    std::int64_t operator[](int i) const { return dims[static_cast<std::size_t>(i)]; }
    std::int64_t elements() const;
    /// The last extent, 1 for a scalar: what row-wise ops call their width.
    std::int64_t width() const { return rank == 0 ? 1 : (*this)[rank - 1]; }
    /// Product of all extents but the last.
    std::int64_t rows() const { return elements() / width(); }

    /// "[12, 64, 128]"
    std::string text() const;

    bool operator==(const Shape&) const = default;
};

} // namespace ballast
