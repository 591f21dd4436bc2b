#pragma once

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <pty.h>
#include <stdexcept>
#include <string>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "temporary_directory.h"

/// What a program left when it ended.
struct Outcome {
    int status = -1; ///< exit status; 128 + the signal that killed it
    std::string out;
    std::string err;
};

inline std::string content(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write(const std::filesystem::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

inline std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find('\n', begin), text.size());
        lines.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return lines;
}

/// A working directory of a user who runs the program in it.
class Workplace {
public:
    using Arguments = std::vector<std::string>;

    const std::filesystem::path& path() const { return directory_.path(); }
    std::filesystem::path operator/(const std::string& name) const { return directory_ / name; }

    /// Runs `ballast ARGUMENTS`; `in_child` is called in the new process before the program starts.
    Outcome run(const Arguments& arguments, const std::function<void()>& in_child = {}) {
        return finish(start(arguments, in_child));
    }

    /// Starts it; finish() waits for its end.
    pid_t start(const Arguments& arguments, const std::function<void()>& in_child = {}) {
        const pid_t child = ::fork();
        if (child < 0) throw std::runtime_error("cannot fork");
        if (child == 0) {
            open_as(directory_ / ".stdout", STDOUT_FILENO);
            open_as(directory_ / ".stderr", STDERR_FILENO);
            execute(arguments, in_child);
        }
        return child;
    }

    Outcome finish(pid_t child) {
        Outcome outcome;
        outcome.status = wait_for(child);
        outcome.out = content(directory_ / ".stdout");
        outcome.err = content(directory_ / ".stderr");
        return outcome;
    }

    /// Runs it on a terminal of `columns`; everything that it shows is in `out`.
    Outcome run_on_terminal(const Arguments& arguments, unsigned short columns,
                            const std::function<void()>& in_child = {}) {
        winsize size{};
        size.ws_row = 24;
        size.ws_col = columns;
        int terminal = -1;
        const pid_t child = ::forkpty(&terminal, nullptr, nullptr, &size);
        if (child < 0) throw std::runtime_error("cannot open a terminal");
        if (child == 0) {
            ::setenv("TERM", "xterm", 1);
            ::setenv("LC_ALL", "C.UTF-8", 1);
            ::unsetenv("NO_COLOR");
            execute(arguments, in_child);
        }
        Outcome outcome;
        char buffer[4096];
        for (;;) {
            const ssize_t count = ::read(terminal, buffer, sizeof(buffer));
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) break; // EIO: the program has ended
            outcome.out.append(buffer, static_cast<std::size_t>(count));
        }
        ::close(terminal);
        outcome.status = wait_for(child);
        return outcome;
    }

    /// A text to learn, and a config that trains on it in a moment.
    void write_small_run(const std::string& train = R"("steps": 20, "checkpoint_every": 10)") {
        std::string text;
        for (int i = 0; i < 60; ++i)
            text += "the cat sat on mat " + std::to_string(i * i) + ".\n";
        write(directory_ / "text.txt", text);
        write(directory_ / "small.json", R"({
  "name": "small",
  "data": {"path": "text.txt"},
  "model": {"layers": 2, "heads": 2, "width": 16, "context": 8},
  "schedule": {"warmup": 5},
  "train": {"batch": 4, "eval_every": 10, "eval_batches": 2, )" +
                                             train + "}\n}\n");
    }

private:
    static void open_as(const std::filesystem::path& path, int descriptor) {
        const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
        ::dup2(file, descriptor);
        ::close(file);
    }

    [[noreturn]] void execute(const Arguments& arguments, const std::function<void()>& in_child) const {
        if (::chdir(directory_.path().c_str()) != 0) ::_exit(126);
        if (in_child) in_child();
        std::vector<char*> words{const_cast<char*>(BALLAST_PROGRAM)};
        for (const std::string& argument : arguments)
            words.push_back(const_cast<char*>(argument.c_str()));
        words.push_back(nullptr);
        ::execv(BALLAST_PROGRAM, words.data());
        ::_exit(127);
    }

    static int wait_for(pid_t child) {
        int status = 0;
        while (::waitpid(child, &status, 0) < 0)
            if (errno != EINTR) return -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

    TemporaryDirectory directory_;
};

/// `ballast train small.json`, on one thread: a test machine is busy, and threads that wait for each other are slow
/// then.
inline Workplace::Arguments train_small(Workplace::Arguments more = {}) {
    more.insert(more.begin(), {"train", "small.json", "--threads", "1"});
    return more;
}

/// Waits until `ready` or for half a minute; returns whether it became ready.
inline bool wait_until(const std::function<bool()>& ready) {
    for (int i = 0; i < 30000; ++i) {
        if (ready()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
}
