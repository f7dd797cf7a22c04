/* `trvmm rm NAME...`: removes what is kept of machines that have ended. */
#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/registry.h"

static int rm_one(const char *name, void *data, struct error *err)
{
	struct registry_entry entry;
	(void)data;
	int result = registry_find(name, &entry, err);
	if (result < 0)
		return result;
	result = registry_remove(&entry, err);
	registry_entry_close(&entry);
	return result;
}

int cli_rm(int argc, char **argv)
{
	if (argc < 2)
		return cli_usage("rm NAME...");
	return cli_each_machine("rm", argv + 1, rm_one, NULL);
}
