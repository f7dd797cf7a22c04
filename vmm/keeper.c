/* The process outside the sandbox; see keeper.h. */
#include "vmm/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/packet.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "vmm/output_log.h"
#include "vmm/sandbox.h"

#define DESCRIPTORS 2

enum order { KEEPER_READY, KEEPER_OWNS, KEEPER_CONNECT, KEEPER_END };

/* Both ways; a datagram each. */
struct keeper_message {
	uint32_t order;
	int32_t value; /* CONNECT: the port; END: the exit code; answers: 0 or -errno */
	uint32_t flag; /* CONNECT: a socket of packets; END: the machine's end is remembered */
	char text[REGISTRY_TEXT_MAX + 1]; /* END: the last words; READY: why it failed */
};

/* Of both processes. */
struct keeper {
	int socket; /* owned */
	struct keeper_spec spec;
	struct registry_claim claim;
	struct output_log *log;
	bool owns_vsock;
};

static int receive(int socket, struct keeper_message *message, int *fds, unsigned *fd_count)
{
	return packet_receive(socket, message, sizeof(*message), fds, fd_count);
}

static int deliver(int socket, const struct keeper_message *message, const int *fds, unsigned fd_count)
{
	return packet_send(socket, message, sizeof(*message), fds, fd_count);
}

/* ---- the keeper -------------------------------------------------------------------------------------------------------------- */

static void serve_connect(struct keeper *keeper, const struct keeper_message *order)
{
	const char *path = keeper->spec.vsock_path;
	const int fd = path ? virtio_vsock_connect_unix(path, order->flag, (uint32_t)order->value) : -ECONNREFUSED;
	const struct keeper_message answer = { .order = KEEPER_CONNECT, .value = fd < 0 ? fd : 0 };
	(void)deliver(keeper->socket, &answer, &fd, fd >= 0);
	if (fd >= 0)
		close(fd);
}

/* `last` NULL: the run was killed, and what was left is cleared away by whoever looks for it next. */
static void settle(struct keeper *keeper, struct keeper_message *last)
{
	output_log_finish(keeper->log);
	if (keeper->owns_vsock)
		virtio_vsock_unlink_unix(keeper->spec.vsock_path);
	if (!last || !keeper->spec.claim)
		return;
	struct registry_end end = { .exit_code = (int)(last->value & 0xff), .ended_s = time(NULL) };
	last->text[sizeof(last->text) - 1] = '\0';
	error_quote(end.text, sizeof(end.text), last->text, strlen(last->text));
	registry_release(&keeper->claim, &end, last->flag);
	/* The lock goes with the run, which waits for us, and not a moment after it. */
	close(keeper->claim.state_fd);
}

static void serve(struct keeper *keeper) __attribute__((noreturn));

static void serve(struct keeper *keeper)
{
	struct keeper_message message = { 0 };
	while (receive(keeper->socket, &message, NULL, NULL) == 1) {
		if (message.order == KEEPER_OWNS)
			keeper->owns_vsock = keeper->spec.vsock_path != NULL;
		else if (message.order == KEEPER_CONNECT)
			serve_connect(keeper, &message);
		if (message.order != KEEPER_END)
			continue;
		settle(keeper, &message);
		(void)deliver(keeper->socket, &message, NULL, 0);
		_exit(0);
	}
	settle(keeper, NULL);
	_exit(0);
}

/* All but the few that are needed; standard streams that nobody can mistake for others. */
static void close_others(const struct keeper *keeper)
{
	const int kept[] = { keeper->socket, keeper->claim.root_fd, keeper->claim.folder_fd, keeper->claim.state_fd };
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	for (unsigned from = STDERR_FILENO + 1; from;) {
		unsigned next = UINT_MAX;
		for (unsigned i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
			if (kept[i] >= (int)from && (unsigned)kept[i] < next)
				next = (unsigned)kept[i];
		if (next > from)
			close_range(from, next == UINT_MAX ? UINT_MAX : next - 1, 0);
		from = next == UINT_MAX ? 0 : next + 1;
	}
}

static void run_keeper(struct keeper *keeper) __attribute__((noreturn));

static void run_keeper(struct keeper *keeper)
{
	struct keeper_message ready = { .order = KEEPER_READY };
	struct error err = { "" };
	int fds[DESCRIPTORS] = { -1, -1 };
	sigset_t all;

	/* What is sent to our process group is not meant for it. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
	close_others(keeper);
	if (keeper->spec.log)
		ready.value = output_log_start(keeper->claim.folder_fd, &keeper->log, &fds[0], &fds[1], &err);
	if (ready.value == 0) {
		ready.value = sandbox_enter_keeper();
		error_set(&err, 0, "confining the keeper: %s", strerror(-ready.value));
	}
	snprintf(ready.text, sizeof(ready.text), "%.*s", (int)sizeof(ready.text) - 1, err.text);
	(void)deliver(keeper->socket, &ready, fds, ready.value == 0 && keeper->spec.log ? DESCRIPTORS : 0);
	for (unsigned i = 0; i < DESCRIPTORS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (ready.value < 0)
		_exit(1);
	serve(keeper);
}

/* ---- the run's side ---------------------------------------------------------------------------------------------------------- */

static int hear_ready(const struct keeper *keeper, int *stdout_fd, int *stderr_fd, struct error *err)
{
	struct keeper_message ready = { .value = 0 };
	int fds[DESCRIPTORS];
	unsigned count = DESCRIPTORS;
	const int result = receive(keeper->socket, &ready, fds, &count);
	if (result != 1)
		return error_set(err, -EIO, "the keeper's process ended at once");
	if (ready.value < 0)
		return error_set(err, ready.value, "%.*s", (int)sizeof(ready.text), ready.text);
	if (keeper->spec.log && count == DESCRIPTORS) {
		*stdout_fd = fds[0];
		*stderr_fd = fds[1];
	}
	return 0;
}

int keeper_start(const struct keeper_spec *spec, struct keeper **made, int *stdout_fd, int *stderr_fd, struct error *err)
{
	int ends[2];
	struct keeper *keeper = calloc(1, sizeof(*keeper));
	if (!keeper)
		return error_set(err, -ENOMEM, "out of memory");
	keeper->spec = *spec;
	keeper->claim =
	    spec->claim ? *spec->claim : (struct registry_claim){ .folder_fd = -1, .state_fd = -1, .listen_fd = -1, .root_fd = -1 };
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) {
		free(keeper);
		return error_set(err, -errno, "socketpair: %s", strerror(errno));
	}
	const pid_t pid = fork();
	keeper->socket = ends[pid == 0 ? 1 : 0];
	if (pid == 0)
		run_keeper(keeper);
	close(ends[1]);
	int result = pid < 0 ? error_set(err, -errno, "fork: %s", strerror(errno)) : 0;
	if (result == 0)
		result = hear_ready(keeper, stdout_fd, stderr_fd, err);
	if (result < 0) {
		close(keeper->socket);
		free(keeper);
		return result;
	}
	*made = keeper;
	return 0;
}

void keeper_owns_vsock(struct keeper *keeper)
{
	const struct keeper_message message = { .order = KEEPER_OWNS };
	(void)deliver(keeper->socket, &message, NULL, 0);
}

int keeper_connect(struct keeper *keeper, bool seqpacket, uint32_t port)
{
	struct keeper_message message = { .order = KEEPER_CONNECT, .value = (int32_t)port, .flag = seqpacket };
	int fds[DESCRIPTORS];
	unsigned count = DESCRIPTORS;
	int result = deliver(keeper->socket, &message, NULL, 0);
	if (result == 0)
		result = receive(keeper->socket, &message, fds, &count);
	if (result <= 0)
		return result < 0 ? result : -ECONNREFUSED;
	if (message.value == 0 && count == 1)
		return fds[0];
	return message.value < 0 ? message.value : -ECONNREFUSED;
}

void keeper_end(struct keeper *keeper, int code, const char *text, bool keep)
{
	struct keeper_message message = { .order = KEEPER_END, .value = code, .flag = keep };
	snprintf(message.text, sizeof(message.text), "%s", text);
	if (deliver(keeper->socket, &message, NULL, 0) == 0)
		(void)receive(keeper->socket, &message, NULL, NULL);
	close(keeper->socket);
	free(keeper);
}
