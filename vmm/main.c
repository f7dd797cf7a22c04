/* trvmm: the command line's first word decides; see vmm/options.h for a run and trvmm(1) for all. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "vmm/host.h"
#include "vmm/options.h"
#include "vmm/run.h"
#include "vmm/timeline.h"

#define TRVMM_VERSION "0.1"
#define EXIT_TRVMM 125

static int main_doctor(int argc, char **argv)
{
	char *fallback = NULL;
	const char *kernel = NULL;

	if (argc == 3 && !strcmp(argv[1], "--kernel")) {
		kernel = argv[2];
	} else if (argc == 2 && !strncmp(argv[1], "--kernel=", 9)) {
		kernel = argv[1] + 9;
	} else if (argc > 1) {
		message("doctor takes --kernel FILE and nothing else");
		return EXIT_TRVMM;
	}
	if (!kernel)
		kernel = fallback = data_file("vmlinux");
	const int result = host_doctor(kernel);
	free(fallback);
	return result;
}

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
	if (argc > 1 && !strcmp(argv[1], "doctor"))
		return main_doctor(argc - 1, argv + 1);
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
