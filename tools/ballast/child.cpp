#include "child.h"

#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>

#include "ballast/base/error.h"

using namespace ballast;

namespace {

constexpr const char* kThisProgram = "/proc/self/exe";

[[noreturn]] void become(char* const* words, int log, pid_t parent) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127); // it died before it was watched
    const int nothing = ::open("/dev/null", O_RDONLY);
    ::dup2(nothing, STDIN_FILENO);
    ::dup2(log, STDOUT_FILENO);
    ::dup2(log, STDERR_FILENO);
    ::execv(kThisProgram, words);
    ::_exit(127);
}

} // namespace

Child::Child(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
    std::vector<std::string> words{"ballast"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words)
        pointers.push_back(word.data());
    pointers.push_back(nullptr);

    const int file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) throw IoError(log.string() + ": cannot write: " + std::generic_category().message(errno));
    const pid_t parent = ::getpid();
    process_ = ::fork();
    if (process_ == 0) become(pointers.data(), file, parent);
    const int reason = errno;
    ::close(file);
    if (process_ < 0) throw IoError("cannot start a process: " + std::generic_category().message(reason));
}

std::optional<int> Child::poll() {
    if (status_) return status_;
    int status = 0;
    const pid_t ended = ::waitpid(process_, &status, WNOHANG);
    if (ended == process_) status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return status_;
}

void Child::stop() {
    if (status_ || stopped_) return;
    stopped_ = true;
    ::kill(process_, SIGTERM);
}
