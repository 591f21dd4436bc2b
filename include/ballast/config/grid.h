#pragma once

#include "ballast/config/config.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

// A sweep file: many configs from one base, the grid of some keys, variants and seeds.
//
//     {
//       "name": "placement-lr",                      // letters, digits and what else a directory's name may have
//       "base": "../quickstart.json",                // or an object: the keys of a config, `extends` among them
//       "grid": {
//         "model.norm.placement": ["pre", "post"],   // a list of values
//         "optimizer.lr": {"from": 1e-4, "to": 1e-1, "points": 4, "scale": "log"}
//       },
//       "variants": {                                // each a set of keys, as a section or as a dotted path
//         "plain": {},
//         "qk-norm": {"model.qk_norm": "head", "loss": {"z_loss": 1e-4}}
//       },
//       "seeds": [1, 2, 3]                           // left out: that of the base
//     }
//
// Comments are allowed. Relative paths start at the sweep file. The cells are all combinations, the first axis changing
// slowest and the seed fastest.

namespace ballast {

/// What a cell has on one axis of the grid.
struct Setting {
    std::string axis;  ///< a key's path, or "variant"
    std::string value; ///< the key's value as JSON without the quotes of a string; a variant's name
    bool operator==(const Setting&) const = default;
};

struct GridCell {
    std::string name;              ///< "placement=pre,lr=0.001,seed=2": of the run and of its directory
    std::vector<Setting> settings; ///< in the order of the axes
    std::uint64_t seed = 0;
    Config config; ///< resolved
};

struct Grid {
    std::string name;
    std::vector<std::string> axes; ///< without the seed
    std::vector<GridCell> cells;
};

inline constexpr std::size_t kMaxCells = 1000;

/// Reads a sweep file. `overrides` change the base of every cell. Throws ConfigError with every mistake that was found,
/// at the line of the sweep file that it comes from: an unknown key, a cell whose keys do not go together (which is
/// named), lists that are empty or have a value twice, a key that is set in two places, more than kMaxCells cells.
Grid load_grid(const std::filesystem::path& file, std::span<const std::string> overrides = {});

/// Whether a file is meant for load_grid: it has `base`, and `grid`, `variants` or `seeds`. False where it cannot be
/// read.
bool is_sweep_file(const std::filesystem::path& file);

} // namespace ballast
