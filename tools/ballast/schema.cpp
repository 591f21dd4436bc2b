#include "command.h"

void add_schema(CLI::App&, Action&) {}
