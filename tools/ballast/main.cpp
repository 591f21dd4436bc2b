#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <unistd.h>

#include "command.h"
#include "errors.h"

namespace {

/// Takes the places of standard streams that whoever started us has closed, as `>&-` does: the next file that is opened
/// would get such a place, and with it what is meant for the terminal. The wrong mode keeps a write an error.
void hold_closed_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(stream, F_GETFD) < 0)
            (void)::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY); // the lowest place that is free
}

/// Whether everything that was printed has arrived. A reader that has left, as in `ballast schema | head`, is not told.
bool output_arrived() {
    errno = 0;
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
    if (errno == EPIPE) return true;
    print_error(std::string("standard output: ") + (errno != 0 ? std::strerror(errno) : "could not be written"));
    return false;
}

int run(int argc, char** argv) {
    CLI::App app("Trains small Transformer language models from one JSON file, on the CPU.");
    app.name("ballast");
    app.set_version_flag("--version", "ballast " BALLAST_VERSION);
    app.require_subcommand(0, 1);
    app.get_formatter()->column_width(32);
    app.footer("Example: ballast train configs/quickstart.json\n"
               "Each command explains itself: ballast COMMAND --help");
    Action action;
    add_train(app, action);
    add_resume(app, action);
    add_eval(app, action);
    add_generate(app, action);
    add_verify(app, action);
    add_graft(app, action);
    add_explain(app, action);
    add_diagnose(app, action);
    add_replay(app, action);
    add_sweep(app, action);
    add_compare(app, action);
    add_report(app, action);
    add_reproduce(app, action);
    add_check(app, action);
    add_schema(app, action);
    add_bench(app, action);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return report_parse_error(app, error);
    }
    if (!action) {
        print_error(app.help());
        return kUsage;
    }
    return action();
}

} // namespace

int main(int argc, char** argv) {
    hold_closed_streams();
    // A file that may not grow is an error like a full disk, not the end of the process.
    std::signal(SIGXFSZ, SIG_IGN);
    int status = kFailure;
    try {
        status = run(argc, argv);
    } catch (...) {
        status = report_current_exception();
    }
    const bool arrived = output_arrived();
    return status == kDone && !arrived ? static_cast<int>(kFailure) : status;
}
