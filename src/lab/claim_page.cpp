#include <array>
#include <cmath>
#include <cstdio>

#include "ballast/lab/claim_record.h"

namespace ballast {

namespace {

std::string short_number(double value) {
    if (std::isnan(value)) return "none";
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), "%.4g", value);
    return text.data();
}

std::string minutes(double seconds) {
    std::array<char, 32> text{};
    if (seconds < 120)
        std::snprintf(text.data(), text.size(), "%.1f s", seconds);
    else
        std::snprintf(text.data(), text.size(), "%.0f min", seconds / 60);
    return text.data();
}

std::string time_of(const ClaimRecord& record) {
    if (record.runs == 0) return minutes(record.seconds);
    return minutes(record.training_seconds) + " in " + std::to_string(record.runs) + " runs";
}

/// A text within a cell of a table.
std::string cell(const std::string& text) {
    std::string escaped;
    for (const char c : text)
        escaped += c == '|' ? std::string("\\|") : std::string(1, c);
    return escaped;
}

std::string figures_table(const ClaimResult& result) {
    std::string text = "| measured | value | expected | |\n|---|---:|---|---|\n";
    for (const ClaimFigure& figure : result.figures)
        text += "| " + cell(figure.name) + " | " + short_number(figure.value) + " | " +
                (figure.expected.empty() ? "" : figure.expected) + " | " +
                (figure.expected.empty() ? "" : std::string(to_string(figure.verdict))) + " |\n";
    return text + "\n";
}

std::string outcome(const ClaimRecord& record) {
    std::string text = "**" + std::string(to_string(record.verdict())) + "**, " + time_of(record) + ", " + record.date +
                       ", Ballast " + record.version + ", " + record.cpu + ".\n\n";
    if (!record.settings.empty()) {
        text += "A trial with other settings, which decides nothing:";
        for (const std::string& setting : record.settings)
            text += " `" + setting + "`";
        text += ".\n\n";
    }
    for (const std::string& remark : record.result.remarks)
        text += remark + "\n\n";
    return text + figures_table(record.result);
}

std::string section(const Claim& claim, const std::filesystem::path& directory, const std::string& charts) {
    std::string text = "## " + std::string(claim.name) + ": " + std::string(claim.title) + "\n\n" +
                       std::string(claim.source) + ".\n\n**Criterion.** " + std::string(claim.criterion) +
                       "\n\n**Note.** " + std::string(claim.note) + "\n\n";
    const std::optional<ClaimRecord> record = read_claim_record(directory, claim.name);
    if (!record || record->criterion != claim.criterion)
        text += "Not run" + std::string(record ? " by this criterion" : "") + " yet: `ballast reproduce " +
                std::string(claim.name) + "`.\n\n";
    if (record) {
        if (record->criterion != claim.criterion) text += "By the criterion before, \"" + record->criterion + "\":\n\n";
        text += outcome(*record);
        if (!claim_svg(record->result.chart).empty())
            text += "![" + record->result.chart.title + "](" + charts + record->name + ".svg)\n\n";
    }
    if (const auto first = read_claim_record(directory, claim.name, true)) {
        text += "**The first criterion** was: " + first->criterion + "\n\n";
        if (!claim.revision.empty()) text += "**Why it was changed.** " + std::string(claim.revision) + "\n\n";
        text += "Its result: " + outcome(*first);
    }
    return text;
}

} // namespace

std::string claims_page(const std::filesystem::path& directory, const std::string& charts) {
    std::string summary = "| claim | | result | time |\n|---|---|---|---|\n";
    std::string sections;
    for (const Claim* claim : claims()) {
        const std::string name(claim->name);
        const std::optional<ClaimRecord> record = read_claim_record(directory, name);
        const bool current = record && record->criterion == claim->criterion;
        summary += "| " + name + " | " + std::string(claim->title) + " | " +
                   (current ? std::string(to_string(record->verdict())) : "not run yet") + " | " +
                   (current ? time_of(*record) : "") + " |\n";
        sections += section(*claim, directory, charts);
    }
    sections.pop_back();
    return "# Published claims\n\n"
           "What the literature says about norms, depth and stability, run again: `ballast reproduce NAME`. This page "
           "is "
           "made by\n`ballast reproduce --page` from the records that it writes. A criterion is fixed before the run "
           "and "
           "stands in the claim's source,\nin `src/lab/claims/`; what is trained, in `configs/claims/`. PASS, or FAIL, "
           "is "
           "by the criterion alone; INCONCLUSIVE is a figure\nthat decides nothing, such as a difference within twice "
           "its "
           "standard error. A negative control that fails as it must is a PASS.\nThe time of a claim "
           "that trains is the sum over its runs, most of which have one thread each.\n\n" +
           summary + "\n" + sections;
}

} // namespace ballast
