/* `trvmm doctor [--kernel FILE]`: can this host run guests, and if not, what to do. */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "vmm/cli/cli.h"
#include "vmm/host.h"
#include "vmm/run.h"

int cli_doctor(int argc, char **argv)
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
