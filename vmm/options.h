/* The command line of `trvmm [OPTIONS] [--] COMMAND [ARG...]`, and what `trvmm disk ...` has in common with it. */
#ifndef TRVMM_VMM_OPTIONS_H
#define TRVMM_VMM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/throttle.h"
#include "layers/layers.h"
#include "vmm/port_rule.h"

enum feature_choice { FEATURE_DEFAULT, FEATURE_ON, FEATURE_OFF };

struct session_limit;
struct share;
struct session_tmpfs;

enum boot_choice { BOOT_CHOICE_AUTO, BOOT_CHOICE_LINUX64, BOOT_CHOICE_PVH };

/* Strings are borrowed from argv, lists are owned. */
struct options {
	const char *kernel;      /* NULL: the default kernel */
	const char *modules;     /* directory of its drivers; NULL: they are built in */
	char **layers;           /* files, bottom first; NULL-terminated */
	size_t layer_count;      /* 0: the default layer */
	struct layers_added *added; /* owned, and each `host`; --add */
	size_t added_count;
	char **env;              /* "K=V", NULL-terminated; starts with the defaults */
	size_t env_count;
	char **file_env;         /* of --env-file; all of it is in env when the parsing is over */
	size_t file_env_count;
	struct session_limit *limits; /* owned; one of each kind, --ulimit */
	size_t limit_count;
	struct session_tmpfs *tmpfs; /* owned, and what is in them */
	size_t tmpfs_count;
	uint64_t memory_bytes;
	uint64_t disk_bytes;     /* 0: the default */
	uint64_t disk_quota_bytes; /* of each disk of layers; 0: none */
	unsigned cpu_thousandths; /* of a processor, for all of the guest's together; 0: no quota */
	struct throttle_limit io_limit; /* of each device */
	uint64_t max_layer_bytes; /* 0: the default */
	enum feature_choice journal; /* of the root disk; by default a kept one has it */
	bool metadata_csum;
	const char *rw_disk;     /* the file of a kept disk; NULL: changes end with the VM */
	char **disks;            /* "SPEC[:ro]" as given; see extra_disks.h */
	size_t disk_count;
	struct share *shares;    /* owned, and what is in them; -v, in the order in which they can be mounted */
	size_t share_count;
	char *root;              /* owned, absolute: the directory of --root; NULL: the root is a disk */
	struct port_rule *ports; /* owned; -p */
	size_t port_count;       /* at most PORTS_MAX */
	const char *vsock;       /* the Unix socket of --vsock; NULL: none */
	unsigned cpus;
	const char *init;        /* --init; NULL: none */
	unsigned pids_max;       /* 0: no limit */
	const char *workdir, *user, *hostname, *append, *timeline, *entrypoint;
	const char *name;        /* NULL: none, or with `detach` one that is made up */
	unsigned timeout_s;      /* 0: none */
	unsigned boot_timeout_s;
	enum boot_choice boot;
	bool terminal, console, no_kvm_check;
	bool detach, remove, read_only;
	bool no_sandbox, sandbox_log;
	bool path_given; /* PATH in env is not the default */
	bool help, version;
	const char *const *command; /* NULL-terminated, the tail of argv */
};

/*
 * Parses argv[1..]. Returns 0, or -EINVAL with one line that names the option and the mend. options_destroy() frees what it allocated, also
 * after a failure.
 */
int options_parse(int argc, char **argv, struct options *options, struct error *err);
void options_destroy(struct options *options);

/* Appends the layers of "A[,B...]" to options->layers; a comma in a name is written "\,". Returns 0, -EINVAL or -ENOMEM with one line. */
int options_add_layers(struct options *options, const char *argument, struct error *err);

/*
 * --env and --env-file, for others who have them: each appends to, or replaces in, options->env or options->file_env. At the end the files
 * are merged: what --env set counts more than what is in them, wherever it stood. Each returns 0, -EINVAL or -ENOMEM with one line.
 */
int options_add_env(struct options *options, const char *argument, struct error *err);
int options_add_env_file(struct options *options, const char *path, struct error *err);
int options_merge_env_files(struct options *options, struct error *err);

/* One option: what getopt needs and what --help says. An id below 256 is its letter. */
struct option_row {
	int id;
	const char *name, *argument, *help; /* argument NULL: takes none; "[=X]": may be left out, for long options without a letter */
};

/* Its line of --help. */
void option_row_print(const struct option_row *row);

bool option_argument_is_optional(const struct option_row *row);

/* Gets one option; `argument` lives as long as argv. Returns 0 or -EINVAL with one line. */
typedef int option_taker(void *data, int id, const char *argument, struct error *err);

/*
 * Parses the command line of a subcommand of `trvmm disk`: the options that describe the root disk, as for a run, and the `own_count`
 * options of its own (ids from OPTION_OWN on, or letters), which go to `take`. Words that are no options are in options->command, wherever
 * they stood. Returns and owns as options_parse() does.
 */
#define OPTION_OWN 1024
int options_parse_disk(int argc, char **argv, const struct option_row *own, size_t own_count, option_taker *take, void *data,
		       struct options *options, struct error *err);

/* A line for each option that options_parse_disk() knows. */
void options_print_disk_help(const struct option_row *own, size_t own_count);

/* The text of --help. */
void options_print_help(void);

/*
 * Parses a size: a number with an optional suffix K, M, G or T (powers of 1024; also KiB, MB, ...). Returns 0 or -EINVAL.
 */
int options_parse_size(const char *text, uint64_t *bytes);

#endif
