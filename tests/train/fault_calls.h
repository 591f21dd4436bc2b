#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include "ballast/base/file.h"

/// The system's file calls, but for waiting for the disk: the end of a process loses nothing that was written, and the
/// thousands of files of a test take seconds instead of minutes.
class QuickCalls : public ballast::FileCalls {
public:
    int fsync(int /*descriptor*/) const override { return 0; }
};

inline const QuickCalls kQuickCalls{};

/// Calls with a fault at one of them, counted from 0; -1: nowhere.
class FaultCalls final : public QuickCalls {
public:
    enum class Fault {
        error, ///< the call fails, as on a full disk
        death, ///< the process ends there, as by kill -9
    };

    FaultCalls(int where, Fault fault) : where_(where), fault_(fault) {}

    int open(const char* path, int flags, mode_t mode) const override {
        return fails() ? -1 : FileCalls::open(path, flags, mode);
    }
    ssize_t write(int descriptor, const void* data, std::size_t bytes) const override {
        if (count_ != where_) return fails() ? -1 : FileCalls::write(descriptor, data, bytes);
        // Part of it arrives.
        (void)!FileCalls::write(descriptor, data, bytes / 2);
        return fails() ? -1 : 0;
    }
    int fsync(int descriptor) const override { return fails() ? -1 : QuickCalls::fsync(descriptor); }
    int ftruncate(int descriptor, off_t bytes) const override {
        return fails() ? -1 : FileCalls::ftruncate(descriptor, bytes);
    }
    int rename(const char* from, const char* to) const override { return fails() ? -1 : FileCalls::rename(from, to); }
    int unlink(const char* path) const override { return fails() ? -1 : FileCalls::unlink(path); }

    int count() const { return count_; }

private:
    bool fails() const {
        if (count_++ != where_) return false;
        if (fault_ == Fault::death) ::_exit(9);
        errno = ENOSPC;
        return true;
    }

    int where_;
    Fault fault_;
    mutable int count_ = 0;
};

/// Runs `action` in a process of its own; its exit status.
inline int in_child_process(const std::function<void()>& action) {
    const pid_t child = ::fork();
    if (child < 0) throw std::runtime_error("cannot fork");
    if (child == 0) {
        try {
            action();
        } catch (...) {
            ::_exit(1);
        }
        ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
