#include "signals.h"

#include <cerrno>
#include <csignal>
#include <string_view>
#include <unistd.h>

namespace {

// A signal handler gets no argument of ours, so what it sets has to be global.
std::atomic<bool> g_interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};

void on_signal(int) {
    const int error = errno;
    g_interrupted = true;
    for (const int signal : kStopSignals)
        std::signal(signal, SIG_DFL);
    constexpr std::string_view kMessage = "\nstopping after this step, then saving; once more stops at once\n";
    (void)!::write(STDERR_FILENO, kMessage.data(), kMessage.size());
    errno = error;
}

} // namespace

const std::atomic<bool>& watch_signals() {
    for (const int signal : kStopSignals) {
        struct sigaction action {};
        if (signal == SIGHUP && ::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        ::sigemptyset(&action.sa_mask);
        ::sigaction(signal, &action, nullptr);
    }
    std::signal(SIGPIPE, SIG_IGN);
    return g_interrupted;
}
