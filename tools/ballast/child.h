#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

/// This program, run once more beside this process. It has a process group of its own, so that a signal from the
/// terminal reaches the parent alone; it is asked to stop when the parent dies, in whatever way.
class Child {
public:
    /// Starts `ballast ARGUMENTS`; what it prints is added to the file `log`. Throws IoError.
    Child(const std::vector<std::string>& arguments, const std::filesystem::path& log);

    /// Its exit status, or 128 + the signal that ended it; nothing while it runs.
    std::optional<int> poll();

    /// Asks it to save and end, once.
    void stop();

private:
    pid_t process_ = -1;
    std::optional<int> status_;
    bool stopped_ = false;
};
