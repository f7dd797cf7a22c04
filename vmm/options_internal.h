/*
 * What the files of the command line share: options.c (the whole line and its rules), options_table.c (which options there are, and
 * --help), options_take.c (what each does), options_lists.c (those that may be repeated), options_walk.c (getopt).
 */
#ifndef TRVMM_VMM_OPTIONS_INTERNAL_H
#define TRVMM_VMM_OPTIONS_INTERNAL_H

#include "vmm/options.h"

enum option_id {
	OPT_KERNEL = 256,
	OPT_MODULES,
	OPT_LAYERS,
	OPT_ADD,
	OPT_MAX_LAYER_SIZE,
	OPT_MEMORY,
	OPT_CPUS,
	OPT_DISK_SIZE,
	OPT_HOSTNAME,
	OPT_APPEND,
	OPT_BOOT,
	OPT_TIMEOUT,
	OPT_BOOT_TIMEOUT,
	OPT_CONSOLE,
	OPT_NO_KVM_CHECK,
	OPT_TIMELINE,
	OPT_ENTRYPOINT,
	OPT_RW_DISK,
	OPT_DISK_FEATURES,
	OPT_DISK,
	OPT_ENV_FILE,
	OPT_ULIMIT,
	OPT_READ_ONLY,
	OPT_TMPFS,
	OPT_ROOT,
	OPT_NAME,
	OPT_RM,
	OPT_VSOCK,
	OPT_CPU_QUOTA,
	OPT_DISK_QUOTA,
	OPT_IO_LIMIT,
	OPT_NO_SANDBOX,
	OPT_SANDBOX_LOG,
	OPT_INIT,
	OPT_PIDS_LIMIT,
	OPT_VERSION,
	OPT_HELP = 'h',
	OPT_DETACH = 'd',
	OPT_ENV = 'e',
	OPT_WORKDIR = 'w',
	OPT_USER = 'u',
	OPT_INTERACTIVE = 'i',
	OPT_TERMINAL = 't',
	OPT_PUBLISH = 'p',
	OPT_VOLUME = 'v',
};

/* One row for each option of a run, in the order of --help. */
#define OPTIONS_TABLE_ROWS_MAX 64
extern const struct option_row options_table[];
extern const size_t options_table_rows;

/* The options that say what is on the root disk: `trvmm disk ...` has them too. */
bool options_describes_root_disk(int id);

/* Applies one option of the table to the struct options `data`. */
option_taker options_take;

/* ---- options_lists.c: each returns 0, -EINVAL or -ENOMEM with one line ---- */

int options_add_disk(struct options *options, const char *argument, struct error *err);
int options_add_share(struct options *options, const char *argument, struct error *err);
int options_add_port(struct options *options, const char *argument, struct error *err);
int options_add_host_file(struct options *options, const char *argument, struct error *err);
int options_add_limit(struct options *options, const char *argument, struct error *err);
int options_add_tmpfs(struct options *options, const char *argument, struct error *err);

/* ---- options_walk.c ---- */

/* The options that a command line may have: rows of the table, and those of a subcommand. */
struct grammar {
	const struct option_row *rows[2 * OPTIONS_TABLE_ROWS_MAX];
	size_t count;
};
void grammar_add(struct grammar *grammar, const struct option_row *row);

/* Tells `take` of each option in turn. `order`: "+" ends at the first word that is no option, "" collects such words at the end. */
int options_walk(int argc, char **argv, const struct grammar *grammar, const char *order, option_taker *take, void *data,
		 struct error *err);

#endif
