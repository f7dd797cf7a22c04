/* What subcommands on named machines share: their options. */
#ifndef TRVMM_VMM_CLI_MACHINES_H
#define TRVMM_VMM_CLI_MACHINES_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/options.h"

/* A subcommand, for its options and for its --help. */
struct cli_command {
	const char *usage; /* "ps [OPTIONS]": its name first */
	const char *summary;
	const struct option_row *options; /* without an optional argument */
	unsigned option_count;
	bool stop_at_word; /* options end at the first other word */
};

/*
 * The next option of argv (getopt's optind goes on behind it; the first call needs optind 0). Returns its id with `value`, -1 when there
 * are no more, or 0 after a message. --help prints what there is, and ends the process.
 */
int cli_next_option(int argc, char **argv, const struct cli_command *command, const char **value);

/* Prints "NAME: TEXT" and returns 125. */
int cli_fail(const char *command, const struct error *err);

/* Prints how the subcommand is used and returns 125. */
int cli_usage(const struct cli_command *command);

/* kill.c, for cli_each_machine(): sends the signal (an int) that `data` points to. SIGKILL: the machine has ended when this returns. */
int cli_kill_one(const char *name, void *data, struct error *err);

/* Calls `one` for each name; prints what failed. Returns 0, or 125 when one of them did. */
int cli_each_machine(const char *command, char **names, int (*one)(const char *name, void *data, struct error *err), void *data);

#endif
