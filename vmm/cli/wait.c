/* `trvmm wait NAME...`: waits until the machines have ended and prints the exit status of each. */
#include <getopt.h>
#include <stdio.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/registry.h"

static int wait_one(const char *name, void *data, struct error *err)
{
	struct registry_entry entry;
	(void)data;
	int result = registry_find(name, &entry, err);
	if (result < 0)
		return result;
	result = registry_wait(&entry, err);
	if (result == 0) {
		printf("%d\n", entry.end.exit_code);
		fflush(stdout);
	}
	registry_entry_close(&entry);
	return result;
}

static const struct cli_command command = {
	.usage = "wait NAME...",
	.summary = "Wait until machines have ended, and print their exit statuses.",
};

int cli_wait(int argc, char **argv)
{
	const char *value;
	optind = 0;
	if (cli_next_option(argc, argv, &command, &value) != -1)
		return EXIT_TRVMM;
	return optind == argc ? cli_usage(&command) : cli_each_machine("wait", argv + optind, wait_one, NULL);
}
