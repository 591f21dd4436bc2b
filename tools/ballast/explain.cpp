#include "command.h"

void add_explain(CLI::App&, Action&) {}
