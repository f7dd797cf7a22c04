/* `trvmm doctor [--kernel FILE]`: can this host run guests, and if not, what to do. `trvmm doctor --sandbox`: what confines trvmm here. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "vmm/cli/cli.h"
#include "vmm/host.h"
#include "vmm/run.h"
#include "vmm/sandbox.h"

struct trial {
	int result;
	struct error err;
	struct sandbox_report report;
};

/* A sandbox cannot be looked at from outside, nor be left: another process is closed as a run is, and tells. */
static int try_sandbox(struct trial *trial)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	const pid_t pid = fork();
	if (pid == 0) {
		const struct sandbox_spec spec = { .directory_count = 0 };
		close(ends[0]);
		trial->result = sandbox_close(&spec, &trial->report, &trial->err);
		_exit(write(ends[1], trial, sizeof(*trial)) == (ssize_t)sizeof(*trial) ? 0 : 1);
	}
	close(ends[1]);
	ssize_t n = 0;
	if (pid > 0)
		do
			n = read(ends[0], trial, sizeof(*trial));
		while (n < 0 && errno == EINTR);
	close(ends[0]);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && n == (ssize_t)sizeof(*trial) ? 0 : -EIO;
}

static int doctor_sandbox(void)
{
	struct trial trial = { .result = 0 };
	if (try_sandbox(&trial) < 0) {
		message("doctor: the trial of the sandbox came to no end");
		return EXIT_TRVMM;
	}
	for (unsigned i = 0; i < SANDBOX_LAYERS; i++)
		printf("%-4s%s%s%s\n", trial.report.layers[i].on ? "on" : "off", sandbox_layer_name((enum sandbox_layer)i),
		       *trial.report.layers[i].why ? ": " : "", trial.report.layers[i].why);
	if (trial.result < 0)
		message("doctor: %s", trial.err.text);
	return trial.result < 0 ? 1 : 0;
}

int cli_doctor(int argc, char **argv)
{
	char *fallback = NULL;
	const char *kernel = NULL;

	if (argc == 2 && !strcmp(argv[1], "--sandbox"))
		return doctor_sandbox();
	if (argc == 3 && !strcmp(argv[1], "--kernel")) {
		kernel = argv[2];
	} else if (argc == 2 && !strncmp(argv[1], "--kernel=", 9)) {
		kernel = argv[1] + 9;
	} else if (argc > 1) {
		message("doctor takes --kernel FILE, or --sandbox, and nothing else");
		return EXIT_TRVMM;
	}
	if (!kernel)
		kernel = fallback = data_file("vmlinux");
	const int result = host_doctor(kernel);
	free(fallback);
	return result;
}
