/* `trvmm disk SUBCOMMAND ...`: looks at the root disk that the same options would give a run. */
#include "vmm/cli/disk.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"

static const struct {
	const char *name;
	subcommand *start;
	const char *summary;
} subcommands[] = {
	{ "diff", disk_diff, "write what the guest changed on a kept disk as a layer" },
	{ "export", disk_export, "write the disk as a raw image" },
	{ "inspect", disk_inspect, "what is on the disk, and where a path lies" },
};
#define SUBCOMMANDS (sizeof(subcommands) / sizeof(subcommands[0]))

void disk_print_help(const char *usage, const struct option_row *own, size_t own_count)
{
	printf("Usage: %s\n\nOptions:\n", usage);
	options_print_disk_help(own, own_count);
}

int cli_disk(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < SUBCOMMANDS; i++)
		if (!strcmp(argv[1], subcommands[i].name))
			return subcommands[i].start(argc - 1, argv + 1);
	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		puts("Usage: trvmm disk SUBCOMMAND [OPTIONS]\n");
		for (size_t i = 0; i < SUBCOMMANDS; i++)
			printf("  %-10s %s\n", subcommands[i].name, subcommands[i].summary);
		return 0;
	}
	char quoted[256];
	if (argc > 1)
		message("disk has no subcommand '%s'; see trvmm disk --help",
			error_quote(quoted, sizeof(quoted), argv[1], strlen(argv[1])));
	else
		message("disk needs a subcommand; see trvmm disk --help");
	return EXIT_TRVMM;
}
