#pragma once

#include "ballast/config/config.h"

#include <string>
#include <vector>

// From a Config, or from the list of its keys, to text.

namespace ballast {

/// The config as a JSON object with every key, two spaces a level and a newline at the end. Numbers have the fewest
/// digits that read back to the same bits. Throws ConfigError when a number is not finite: JSON cannot hold it.
std::string to_json(const Config& config);

/// 64 bits over to_json as 16 hexadecimal digits: equal configs have equal hashes in every run of this version.
std::string config_hash(const Config& config);

/// One key in which two configs differ; the values as JSON.
struct KeyDifference {
    std::string path;
    std::string a;
    std::string b;
    bool operator==(const KeyDifference&) const = default;
};

/// The keys in which two configs differ, in the order of declaration.
std::vector<KeyDifference> diff(const Config& a, const Config& b);

/// The JSON schema (draft 2020-12) of a config file. configs/schema.json is this text.
std::string config_schema();

/// The reference of all keys as a Markdown page. docs/config.md is this text.
std::string config_reference();

} // namespace ballast
