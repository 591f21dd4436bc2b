#pragma once

#include <string>

namespace ballast {

/// "1e-5", "0.02": number_text without the zero in front of short exponents, and with few digits.
std::string rounded_number(double value);

} // namespace ballast
