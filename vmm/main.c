/* trvmm: the command line's first word decides; see vmm/options.h for a run, vmm/cli/cli.h for the rest and trvmm(1) for all. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "vmm/cli/cli.h"
#include "vmm/options.h"
#include "vmm/run.h"
#include "vmm/timeline.h"

#define TRVMM_VERSION "0.1"

static const struct {
	const char *name;
	subcommand *start;
} subcommands[] = {
	{ "cache", cli_cache },
	{ "cp", cli_cp },
	{ "disk", cli_disk },
	{ "doctor", cli_doctor },
	{ "exec", cli_exec },
	{ "kill", cli_kill },
	{ "logs", cli_logs },
	{ "proxy", cli_proxy },
	{ "ps", cli_ps },
	{ "rm", cli_rm },
	{ "stats", cli_stats },
	{ "wait", cli_wait },
};

/* Puts /dev/null where the caller closed a standard stream, or the first files that we open would take its place. */
static void fill_standard_streams(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	struct error err = { "" };
	struct options options;

	timeline_mark("main");
	fill_standard_streams();
	for (size_t i = 0; argc > 1 && i < sizeof(subcommands) / sizeof(subcommands[0]); i++) {
		if (!strcmp(argv[1], subcommands[i].name))
			return subcommands[i].start(argc - 1, argv + 1);
	}
	int result = options_parse(argc, argv, &options, &err);
	if (result == 0 && options.help)
		options_print_help();
	else if (result == 0 && options.version)
		puts("trvmm " TRVMM_VERSION);
	else if (result == 0)
		result = run(&options, &err);
	if (result < 0)
		message("%s", err.text);
	options_destroy(&options);
	return result < 0 ? EXIT_TRVMM : 0;
}
