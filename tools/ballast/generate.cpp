#include "command.h"

void add_generate(CLI::App&, Action&) {}
