#pragma once

#include <string>

namespace ballast {

/// The reference of all records of a run, key by key, as a Markdown page. docs/records.md is this text.
std::string record_reference();

} // namespace ballast
