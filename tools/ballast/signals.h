#pragma once

#include <atomic>

/// From now on SIGINT (Ctrl-C), SIGTERM and, unless nohup made it ignored, SIGHUP set the flag that is returned and say
/// so on standard error; a second one ends the process at once. Writing to a reader that has left is an error instead
/// of the end of the process.
const std::atomic<bool>& watch_signals();
