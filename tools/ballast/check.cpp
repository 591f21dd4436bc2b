#include "command.h"

void add_check(CLI::App&, Action&) {}
