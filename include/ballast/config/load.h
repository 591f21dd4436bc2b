#pragma once

#include "ballast/base/error.h"
#include "ballast/config/config.h"

#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// From JSON files and `--set` overrides to a Config that is resolved and checked.
//
// A config file is one JSON object; comments are allowed. Its keys are those of config.h, plus, at the top, `extends`
// (another config file, relative to this one, whose keys this file overrides one by one) and `$schema` (for editors;
// ignored). A relative `data.path` or `init_from.run` starts at the file it stands in, also through `extends`; in an
// override it starts at the working directory. Afterwards it is absolute.

namespace ballast {

/// Reads a config file and what it extends, applies `overrides` ("model.norm.placement=post": the value is JSON, or
/// else a bare string), and resolves. Throws ConfigError with every mistake found in all files and overrides: first in
/// `file`, line by line, then in the files it extends, then in the overrides, whose problems have the file "--set".
/// A file that is not JSON is one mistake; a file that cannot be read is one, too.
Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// The same from text. `filename` is what messages call it; paths in it are relative to that file's directory.
Config config_from_json(std::string_view text, const std::filesystem::path& filename,
                        std::span<const std::string> overrides = {});

/// The mistakes that load_config would throw, for each file after another; empty when all files are good.
std::vector<ConfigProblem> check_configs(std::span<const std::filesystem::path> files,
                                         std::span<const std::string> overrides = {});

/// A mistake that only shows when a good config is used, such as data too short for `model.context`, as a problem at
/// the file and line that give the key `path` its value. Throws as load_config does.
ConfigProblem problem_at(const std::filesystem::path& file, std::span<const std::string> overrides,
                         std::string_view path, std::string message);

/// Replaces each 0 or `automatic` that stands for "derive it" and needs no data by its value: model.kv_heads,
/// model.ffn.width, model.norm.bias, model.final_norm, train.micro_batch. A resolved config stays as it is.
/// `data.format` and `data.vocab_size` depend on the data and are left.
void resolve(Config& config);

/// The mistakes in a Config that was put together in code: values out of range, and keys that do not go together.
/// Problems carry a path and no file.
std::vector<ConfigProblem> validate(const Config& config);

} // namespace ballast
