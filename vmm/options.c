/* The command line as a whole; see options.h. */
#include "vmm/options_internal.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>

#include "vmm/share.h"
#include "vmm/tmpfs.h"

#define DEFAULT_MEMORY_BYTES (256ull << 20)
#define DEFAULT_BOOT_TIMEOUT_S 60
#define DEFAULT_PATH "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int set_defaults(struct options *options, struct error *err)
{
	*options = (struct options){ .memory_bytes = DEFAULT_MEMORY_BYTES, .cpus = 1, .boot_timeout_s = DEFAULT_BOOT_TIMEOUT_S };
	return options_add_env(options, DEFAULT_PATH, err);
}

/* A root that is a directory of the host leaves no disk to describe. */
static int check_root(const struct options *options, struct error *err)
{
	const char *other = options->layer_count                                            ? "--layers"
			    : options->added_count                                          ? "--add"
			    : options->rw_disk                                              ? "--rw-disk"
			    : options->disk_bytes                                           ? "--disk-size"
			    : options->max_layer_bytes && !options->disk_count              ? "--max-layer-size"
			    : options->journal != FEATURE_DEFAULT || options->metadata_csum ? "--disk-features"
											    : NULL;
	if (options->root && other)
		return error_set(err, -EINVAL, "--root with %s: the root is a directory, not a disk; give one of them", other);
	return 0;
}

int options_parse(int argc, char **argv, struct options *options, struct error *err)
{
	struct grammar grammar = { .count = 0 };

	int result = set_defaults(options, err);
	for (size_t i = 0; i < options_table_rows; i++)
		grammar_add(&grammar, &options_table[i]);
	if (result == 0)
		result = options_walk(argc, argv, &grammar, "+", options_take, options, err);
	if (result == 0)
		result = options_merge_env_files(options, err);
	options->command = (const char *const *)argv + optind;
	if (result < 0 || options->help || options->version)
		return result;
	if (options->detach && options->terminal)
		return error_set(err, -EINVAL,
				 "--detach with --tty: nobody would be at that terminal; give one of them, and use trvmm exec -it");
	if (options->read_only && options->rw_disk)
		return error_set(err, -EINVAL, "--read-only with --rw-disk: there would be nothing to keep; give one of them");
	result = check_root(options, err);
	if (result == 0)
		result = shares_arrange(options->shares, options->share_count, err);
	if (result < 0)
		return result;
	if (options->modules && !options->kernel)
		return error_set(err, -EINVAL,
				 "--modules without --kernel: trvmm's own kernel has its drivers; give the kernel of the modules");
	/* Layers may be an image, whose configuration says what to run. */
	if (!options->command[0] && (options->layer_count || options->entrypoint))
		return 0;
	if (!options->command[0])
		return error_set(err, -EINVAL, "no command; give one: trvmm [OPTIONS] -- COMMAND [ARG...], or see trvmm --help");
	if (!options->command[0][0])
		return error_set(err, -EINVAL, "the command is empty; give one: trvmm [OPTIONS] -- COMMAND [ARG...]");
	return 0;
}

/* Options that a subcommand shares with a run go to `options`, its own to `take`. */
struct disk_parse {
	struct options *options;
	option_taker *take;
	void *data;
};

static int take_disk_option(void *data, int id, const char *argument, struct error *err)
{
	const struct disk_parse *parse = data;
	return options_describes_root_disk(id) ? options_take(parse->options, id, argument, err)
					       : parse->take(parse->data, id, argument, err);
}

int options_parse_disk(int argc, char **argv, const struct option_row *own, size_t own_count, option_taker *take, void *data,
		       struct options *options, struct error *err)
{
	struct grammar grammar = { .count = 0 };
	struct disk_parse parse = { .options = options, .take = take, .data = data };

	int result = set_defaults(options, err);
	for (size_t i = 0; i < options_table_rows; i++)
		if (options_describes_root_disk(options_table[i].id))
			grammar_add(&grammar, &options_table[i]);
	for (size_t i = 0; i < own_count; i++)
		grammar_add(&grammar, &own[i]);
	if (result == 0)
		result = options_walk(argc, argv, &grammar, "", take_disk_option, &parse, err);
	options->command = (const char *const *)argv + optind;
	return result;
}

void options_destroy(struct options *options)
{
	for (size_t i = 0; i < options->layer_count; i++)
		free(options->layers[i]);
	for (size_t i = 0; i < options->env_count; i++)
		free(options->env[i]);
	for (size_t i = 0; i < options->file_env_count; i++)
		free(options->file_env[i]);
	for (size_t i = 0; i < options->disk_count; i++)
		free(options->disks[i]);
	for (size_t i = 0; i < options->added_count; i++)
		free(options->added[i].host);
	for (size_t i = 0; i < options->tmpfs_count; i++)
		tmpfs_destroy(&options->tmpfs[i]);
	for (size_t i = 0; i < options->share_count; i++)
		share_destroy(&options->shares[i]);
	free(options->shares);
	free(options->root);
	options->shares = NULL;
	options->root = NULL;
	options->share_count = 0;
	free(options->tmpfs);
	free(options->limits);
	options->tmpfs = NULL;
	options->limits = NULL;
	options->tmpfs_count = options->limit_count = 0;
	free(options->layers);
	free(options->added);
	free(options->env);
	free(options->file_env);
	free(options->disks);
	free(options->ports);
	options->layers = options->env = options->file_env = options->disks = NULL;
	options->added = NULL;
	options->ports = NULL;
	options->layer_count = options->added_count = options->env_count = options->file_env_count = options->disk_count = 0;
	options->port_count = 0;
}
