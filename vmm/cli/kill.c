/* `trvmm kill [-s SIGNAL] NAME...`: a signal for the machine's command; KILL ends the machine at once. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/remote_client.h"

#define ANSWER_S 2

/*
 * Without the machine's help: it may be stopped, or lie. Who listened at its socket is its process, as long as its state is locked.
 * Returns 0 when it ends, or -errno.
 */
static int kill_process(const struct registry_entry *entry, int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
		return -errno;
	/* A pidfd stays with the process that has the number now: when the lock is held afterwards, that is the machine's. */
	const int pidfd = (int)syscall(SYS_pidfd_open, peer.pid, 0);
	int result = pidfd < 0 ? -errno : 0;
	if (pidfd >= 0 && registry_is_running(entry) && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0)
		result = -errno;
	if (pidfd >= 0)
		close(pidfd);
	return registry_is_running(entry) ? result : 0;
}

static bool ends_by_itself(const struct registry_entry *entry)
{
	for (unsigned ms = 0; registry_is_running(entry); ms++) {
		if (ms == ANSWER_S * 1000)
			return false;
		usleep(1000);
	}
	return true;
}

int cli_kill_one(const char *name, void *data, struct error *err)
{
	const int number = *(const int *)data;
	const struct remote_signal body = { le32_make((uint32_t)number) };
	struct registry_entry entry;
	struct remote_answer answer;

	const int fd = remote_open(name, &entry, err);
	if (fd < 0)
		return fd;
	int result = remote_ask(fd, REMOTE_KILL, &body, sizeof(body), REMOTE_DONE, ANSWER_S, &answer, err);
	if (number == SIGKILL) {
		/* Whatever it says: it may be a guest's who has taken it over. */
		const bool stays = result == -ETIMEDOUT || !ends_by_itself(&entry);
		result = stays ? kill_process(&entry, fd) : 0;
		if (result < 0)
			error_set(err, result, "it does not end, and killing its process fails: %s", strerror(-result));
		else /* When this returns it is gone, and its name can be removed or taken. */
			result = registry_wait(&entry, err);
	}
	if (result < 0)
		error_prefix(err, result, "'%s'", name);
	close(fd);
	registry_entry_close(&entry);
	return result;
}

static const struct option_row options[] = {
	{ 's', "signal", "SIGNAL", "a name or a number (default: KILL)" },
};
static const struct cli_command command = {
	.usage = "kill [OPTIONS] NAME...",
	.summary = "Send a signal to the machines' own commands; KILL ends the machines at once.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_kill(int argc, char **argv)
{
	struct error err = { "" };
	const char *value;
	int number = SIGKILL, id;
	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		number = remote_parse_signal(value, &err);
		if (number < 0)
			return cli_fail("kill", &err);
	}
	if (optind == argc)
		return cli_usage(&command);
	return cli_each_machine("kill", argv + optind, cli_kill_one, &number);
}
