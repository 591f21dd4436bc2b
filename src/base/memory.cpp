#include "ballast/base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <sys/resource.h>

#include "ballast/base/error.h"
#include "ballast/base/file.h"

namespace ballast {

namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kKibi = 1024;

/// The content of one of the system's files; empty when there is none.
std::string text_of(const fs::path& path) {
    try {
        return read_file(path);
    } catch (const IoError&) {
        return {};
    }
}

/// The whole number at the beginning of `text`, blanks skipped; `otherwise` when there is none, as for "max".
std::int64_t number_in(std::string_view text, std::int64_t otherwise) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    std::int64_t number = 0;
    const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
    return problem == std::errc() && number >= 0 ? number : otherwise;
}

/// The number behind `key` in a file of lines "key: 123 kB", in bytes.
std::int64_t kilobytes_of(std::string_view text, std::string_view key, std::int64_t otherwise) {
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        const std::string_view line = text.substr(begin, end - begin);
        if (line.starts_with(key)) {
            const std::int64_t number = number_in(line.substr(key.size()), -1);
            return number < 0 || number > kUnlimited / kKibi ? otherwise : number * kKibi;
        }
        begin = end + 1;
    }
    return otherwise;
}

/// The least limit of a control group and those around it. In a container the group's own path may not be visible;
/// then the limits at the mount point are those of the container.
std::int64_t limit_of_groups(const fs::path& mount, std::string_view group, const char* file) {
    std::int64_t limit = kUnlimited;
    fs::path path = mount / fs::path(group).relative_path();
    for (;;) {
        limit = std::min(limit, number_in(text_of(path / file), kUnlimited));
        if (path == mount || !path.has_relative_path()) return limit;
        path = path.parent_path();
    }
}

std::int64_t group_limit(const fs::path& root) {
    const std::string groups = text_of(root / "proc/self/cgroup");
    std::int64_t limit = kUnlimited;
    for (std::size_t begin = 0; begin < groups.size();) {
        const std::size_t end = std::min(groups.find('\n', begin), groups.size());
        const std::string_view line(groups.data() + begin, end - begin); // "hierarchy:controllers:/path"
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
        begin = end + 1;
        if (second == std::string_view::npos) continue;
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        const std::string_view path = line.substr(second + 1);
        if (controllers.empty())
            limit = std::min(limit, limit_of_groups(root / "sys/fs/cgroup", path, "memory.max"));
        else if (controllers == "memory")
            limit = std::min(limit, limit_of_groups(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes"));
    }
    return limit;
}

/// `resource` has a type of its own in some C libraries.
template <class Resource>
std::int64_t resource_limit(Resource resource) {
    rlimit limit{};
    if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
    return static_cast<std::int64_t>(std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(kUnlimited)));
}

} // namespace

std::int64_t memory_limit(const fs::path& root) {
    const std::int64_t machine = kilobytes_of(text_of(root / "proc/meminfo"), "MemTotal:", kUnlimited);
    return std::min({machine, group_limit(root), resource_limit(RLIMIT_AS), resource_limit(RLIMIT_DATA)});
}

std::int64_t resident_memory() { return kilobytes_of(text_of("/proc/self/status"), "VmRSS:", 0); }
std::int64_t peak_resident_memory() { return kilobytes_of(text_of("/proc/self/status"), "VmHWM:", 0); }
void reset_peak_resident_memory() { std::ofstream("/proc/self/clear_refs") << 5; } // proc(5)

} // namespace ballast
