/* `trvmm wait NAME...`: waits until the machines have ended and prints the exit status of each. */
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

int cli_wait(int argc, char **argv)
{
	if (argc < 2)
		return cli_usage("wait NAME...");
	return cli_each_machine("wait", argv + 1, wait_one, NULL);
}
