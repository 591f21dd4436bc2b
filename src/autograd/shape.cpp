#include "ballast/autograd/shape.h"

#include "ballast/base/error.h"

namespace ballast {

Shape::Shape(std::initializer_list<std::int64_t> extents) {
    if (extents.size() > dims.size())
        throw ShapeError("a tensor has at most 4 extents; got " + std::to_string(extents.size()));
    for (const std::int64_t extent : extents) {
        if (extent < 1) throw ShapeError("a tensor's extents are at least 1; got " + std::to_string(extent));
        dims[static_cast<std::size_t>(rank++)] = extent;
    }
}

std::int64_t Shape::elements() const {
    std::int64_t product = 1;
    for (int i = 0; i < rank; ++i)
        product *= (*this)[i];
    return product;
}

std::string Shape::text() const {
    std::string out = "[";
    for (int i = 0; i < rank; ++i) {
        if (i > 0) out += ", ";
        out += std::to_string((*this)[i]);
    }
    return out + "]";
}

} // namespace ballast
