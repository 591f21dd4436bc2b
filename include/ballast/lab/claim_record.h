#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "ballast/lab/claim.h"

// What is kept of a claim that was reproduced: DIR/NAME.json, and the chart in DIR/NAME.svg. docs/claims.md is made of
// the records in docs/claims.

namespace ballast {

struct ClaimRecord {
    std::string name;
    std::string criterion; ///< at the time: a result belongs to the criterion that was fixed before it
    ClaimResult result;
    std::vector<std::string> settings; ///< that changed the claim's sweeps; a result with any decides nothing
    std::int64_t runs = 0;
    double seconds = 0;          ///< of this process, without training
    double training_seconds = 0; ///< of all runs, one after another
    std::string version;         ///< of Ballast
    std::string cpu;
    std::string date; ///< utc_time()

    ClaimVerdict verdict() const;
};

/// Of `claim` and this moment's environment; times and runs are left.
ClaimRecord make_record(const Claim& claim, ClaimResult result);

/// One object. read_claim_record() reads it back to the same.
std::string to_json(const ClaimRecord& record);

/// The record of a claim in a directory, or with `first` that of the criterion it had before; nothing where there is
/// none. Throws IoError for a damaged one.
std::optional<ClaimRecord> read_claim_record(const std::filesystem::path& directory, std::string_view name,
                                             bool first = false);

/// Writes it, and its chart. The first record that another criterion was fixed for is kept, as NAME.first.json. Throws
/// IoError.
void write_claim_record(const std::filesystem::path& directory, const ClaimRecord& record);

/// A chart as an SVG picture that stands for itself; readable on light and dark pages. Empty without points.
std::string claim_svg(const ClaimChart& chart);

/// The records in a directory as a Markdown page, in the order of the claims; `charts` is where the page finds them.
std::string claims_page(const std::filesystem::path& directory, const std::string& charts);

} // namespace ballast
