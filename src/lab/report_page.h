#pragma once

#include <string_view>

namespace ballast {

/// The page up to the place of its data, and behind it: src/lab/report/page.html with its styles and scripts, put
/// together by cmake/report_page.cmake.
std::string_view report_page_head();
std::string_view report_page_tail();

} // namespace ballast
