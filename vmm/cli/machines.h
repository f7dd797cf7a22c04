/* What subcommands on named machines share: their options. */
#ifndef TRVMM_VMM_CLI_MACHINES_H
#define TRVMM_VMM_CLI_MACHINES_H

#include <stdbool.h>

#include "base/error.h"

/* One option of a subcommand. Long names need not have a letter: then give a value above 255. */
struct cli_option {
	int id;
	const char *name;
	bool has_value;
};

/*
 * The next option of argv (getopt's optind goes on behind it; the first call needs optind 0). Options end at the first other word when
 * `stop_at_word`. Returns its id with `value`, -1 when there are no more, or 0 after a message.
 */
int cli_next_option(int argc, char **argv, const struct cli_option *options, unsigned count, bool stop_at_word, const char **value);

/* Prints "NAME: TEXT" and returns 125. */
int cli_fail(const char *command, const struct error *err);

/* Prints how the subcommand is used and returns 125. */
int cli_usage(const char *usage);

/* Calls `one` for each name; prints what failed. Returns 0, or 125 when one of them did. */
int cli_each_machine(const char *command, char **names, int (*one)(const char *name, void *data, struct error *err), void *data);

#endif
