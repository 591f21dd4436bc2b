#pragma once

#include "ballast/config/config.h"

/// Makes the first steps of a run without a directory and prints what the whole run would take; returns an ExitStatus.
int dry_run(const ballast::Config& config);
