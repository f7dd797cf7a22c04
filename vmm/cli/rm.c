/* `trvmm rm [-f] NAME...`: removes what is kept of machines that have ended; -f ends those that run. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/registry.h"

static int remove_one(const char *name, struct error *err)
{
	struct registry_entry entry;
	int result = registry_find(name, &entry, err);
	if (result < 0)
		return result;
	result = registry_remove(&entry, err);
	registry_entry_close(&entry);
	return result;
}

static int rm_one(const char *name, void *data, struct error *err)
{
	const bool force = *(const bool *)data;
	int signal = SIGKILL;
	int result = remove_one(name, err);
	if (result != -EBUSY || !force)
		return result;
	result = cli_kill_one(name, &signal, err);
	if (result == 0)
		result = remove_one(name, err);
	return result == -ENOENT ? 0 : result; /* one that is not kept goes with its end */
}

static const struct option_row options[] = {
	{ 'f', "force", NULL, "end the machine when it runs" },
};
static const struct cli_command command = {
	.usage = "rm [OPTIONS] NAME...",
	.summary = "Remove what is kept of machines that have ended.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_rm(int argc, char **argv)
{
	const char *value;
	bool force = false;
	int id;
	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		force = true;
	}
	if (optind == argc)
		return cli_usage(&command);
	return cli_each_machine("rm", argv + optind, rm_one, &force);
}
