/* `trvmm disk ...`: what its subcommands share. Each is a file of its own, disk_NAME.c, with a row in disk.c. */
#ifndef TRVMM_VMM_CLI_DISK_H
#define TRVMM_VMM_CLI_DISK_H

#include "vmm/cli/cli.h"
#include "vmm/options.h"

subcommand disk_diff;
subcommand disk_export;
subcommand disk_inspect;

/* The option that every subcommand has among its own. */
#define DISK_HELP_ROW                                                                                                              \
	{                                                                                                                          \
		'h', "help", NULL, "print this help"                                                                               \
	}

/* Prints how a subcommand is used: `usage` is its first line, then all its options. */
void disk_print_help(const char *usage, const struct option_row *own, size_t own_count);

#endif
