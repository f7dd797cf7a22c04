/* Limits of resources as people write them (--ulimit), with docker's names. */
#ifndef TRVMM_VMM_ULIMIT_H
#define TRVMM_VMM_ULIMIT_H

#include "base/error.h"
#include "vmm/session.h"

/*
 * Parses NAME=SOFT[:HARD]. A number stands in the unit of setrlimit(2); -1 and "unlimited" are no limit. Without HARD it is SOFT. Returns
 * 0, or -EINVAL with one line.
 */
int ulimit_parse(const char *argument, struct session_limit *limit, struct error *err);

#endif
