#include "command.h"

void add_eval(CLI::App&, Action&) {}
