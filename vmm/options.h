/* The command line of `trvmm [OPTIONS] [--] COMMAND [ARG...]`. */
#ifndef TRVMM_VMM_OPTIONS_H
#define TRVMM_VMM_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum boot_choice { BOOT_CHOICE_AUTO, BOOT_CHOICE_LINUX64, BOOT_CHOICE_PVH };

/* Strings are borrowed from argv, lists are owned. */
struct options {
	const char *kernel;      /* NULL: the default kernel */
	char **layers;           /* files, bottom first; NULL-terminated */
	size_t layer_count;      /* 0: the default layer */
	char **env;              /* "K=V", NULL-terminated; starts with the defaults */
	size_t env_count;
	uint64_t memory_bytes;
	uint64_t disk_bytes;     /* 0: the default */
	unsigned cpus;
	const char *workdir, *user, *hostname, *append, *timeline, *entrypoint;
	unsigned timeout_s;      /* 0: none */
	unsigned boot_timeout_s;
	enum boot_choice boot;
	bool terminal, console, no_kvm_check;
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

/* The text of --help. */
void options_print_help(void);

/*
 * Parses a size: a number with an optional suffix K, M, G or T (powers of 1024; also KiB, MB, ...). Returns 0 or -EINVAL.
 */
int options_parse_size(const char *text, uint64_t *bytes);

#endif
