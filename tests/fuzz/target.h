#pragma once

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "ballast/base/text.h"
#include "temporary_directory.h"

// A fuzz target is LLVMFuzzerTestOneInput() in NAME_fuzz.cpp: it gives bytes that nobody has looked at to what reads
// such files, and checks what must hold whatever they are. An exception of another type than the header promises, a
// broken promise or a report of a sanitizer ends the process: that is a finding.

/// Ends the process unless the promise is kept.
inline void require(bool kept, std::string_view promise) {
    if (kept) return;
    std::fprintf(stderr, "broken promise: %.*s\n", static_cast<int>(promise.size()), promise.data());
    std::abort();
}

/// A message for people: one line, whatever names and values it quotes.
inline void require_message(std::string_view text) {
    if (!text.empty() && ballast::printable(text, text.size()) == text) return;
    require(false, "an error is one printable line: " + std::string(text));
}

/// The directory in which a target keeps the files it reads.
inline const TemporaryDirectory& scratch() {
    static const TemporaryDirectory directory;
    return directory;
}

inline void write_text(const std::filesystem::path& path, std::string_view text) {
    std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

/// Takes what stands before the first `separator` off the beginning of `text`.
inline std::string_view take_until(std::string_view& text, char separator) {
    const std::size_t end = text.find(separator);
    const std::string_view part = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    return part;
}
