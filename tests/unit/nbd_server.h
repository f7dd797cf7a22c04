/* nbdkit, a server that is not ours, for tests of network disks. */
#ifndef TRVMM_TESTS_NBD_SERVER_H
#define TRVMM_TESTS_NBD_SERVER_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

static pid_t nbd_server;

/* Starts it with these words, and waits until `sign`, the file that it makes when it listens, is there. It has nothing to say. */
static void nbd_server_start(const char *const *argv, const char *sign)
{
	unlink(sign);
	nbd_server = fork();
	if (nbd_server == 0) {
		dup2(open("/dev/null", O_RDWR), STDERR_FILENO);
		execvp("nbdkit", (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	for (int i = 0; i < 500 && access(sign, F_OK) < 0; i++)
		usleep(10000);
	cr_assert(access(sign, F_OK) == 0, "nbdkit does not listen");
}

static void nbd_server_stop(void)
{
	if (nbd_server > 0) {
		kill(nbd_server, SIGKILL);
		waitpid(nbd_server, NULL, 0);
	}
	nbd_server = 0;
}

#endif
