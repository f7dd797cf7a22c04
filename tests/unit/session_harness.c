/* See session_harness.h. */
#include "tests/unit/session_harness.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

void harness_open(struct harness *h)
{
	*h = (struct harness){ 0 };
	signal(SIGPIPE, SIG_IGN);
	strcpy(h->folder, "/tmp/trvmm-test-XXXXXX");
	const char *made = mkdtemp(h->folder);
	assert(made);
	snprintf(h->path, sizeof(h->path), "%s/vsock", h->folder);
	h->loop = loop_create();
	assert(h->loop);
	h->vsock = fake_vsock_create(h->loop, h->path);
}

void harness_spawn_agent(struct harness *h)
{
	char program[4096];
	ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 8);
	assert(length > 0);
	program[length] = '\0';
	strcpy(strrchr(program, '/') + 1, "agent");
	h->agent = fork();
	assert(h->agent >= 0);
	if (h->agent)
		return;
	/* As process 1 has them, whatever nohup, make or a shell's & left to us. */
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	char log[128];
	snprintf(log, sizeof(log), "%s/log", h->folder);
	dup2(open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), STDERR_FILENO);
	close_range(3, ~0u, 0); /* what the test's own parent left open */
	execl(program, program, h->path, (char *)NULL);
	_exit(99);
}

void harness_close(struct harness *h)
{
	virtio_vsock_destroy(h->vsock);
	session_destroy(h->session);
	loop_destroy(h->loop);
	/* Its connection is gone, so it ends. Sanitizers have other words and exit codes than 3. */
	if (h->agent > 0) {
		int status;
		const pid_t pid = waitpid(h->agent, &status, 0);
		assert(pid == h->agent);
		if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
			fprintf(stderr, "the agent died of status 0x%x, see %s/log\n", (unsigned)status, h->folder);
		assert(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	}
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", h->folder);
	const int result = system(command);
	assert(result == 0);
}

struct session_spec harness_spec(const char *const *argv)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin", "HOME=/", NULL };
	return (struct session_spec){ .argv = argv, .env = env, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
}

static void on_ready(void *data)
{
	struct harness *h = data;
	h->ready = true;
}

static void on_ended(void *data, const struct session_result *result)
{
	struct harness *h = data;
	h->ended++;
	h->result = *result;
	loop_stop(h->loop);
}

void harness_create(struct harness *h, const struct session_spec *spec)
{
	struct error err = { "" };
	const int result = session_create(h->loop, h->vsock, spec, on_ready, on_ended, h, &h->session, &err);
	if (result < 0)
		fprintf(stderr, "session_create: %s\n", err.text);
	assert(result == 0);
}

void harness_wait(struct harness *h)
{
	if (!h->ended)
		loop_run(h->loop);
}

void harness_run(struct harness *h, const struct session_spec *spec)
{
	harness_open(h);
	harness_create(h, spec);
	harness_spawn_agent(h);
	harness_wait(h);
}

/* ---- playing the guest ------------------------------------------------------------------------------------------------------- */

int guest_try_connect(const struct harness *h, uint32_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const le32 preamble = le32_make(port);
	char answer;
	memcpy(address.sun_path, h->path, sizeof(h->path));
	const int result = connect(fd, (const struct sockaddr *)&address, sizeof(address));
	assert(result == 0);
	const ssize_t n = write(fd, &preamble, sizeof(preamble));
	assert(n == (ssize_t)sizeof(preamble));
	if (read(fd, &answer, 1) == 1)
		return fd;
	close(fd);
	return -1;
}

int guest_connect(const struct harness *h, uint32_t port)
{
	const int fd = guest_try_connect(h, port);
	assert(fd >= 0);
	return fd;
}

void guest_send(int fd, enum agent_type type, const void *body, size_t length)
{
	const struct agent_header header = { le32_make(type), le32_make((uint32_t)length) };
	/* The host may have ended already. */
	if (send(fd, &header, sizeof(header), MSG_NOSIGNAL) < 0 || (length && send(fd, body, length, MSG_NOSIGNAL) < 0))
		return;
}

size_t guest_receive(int fd, uint32_t *type, void *body, size_t size)
{
	struct agent_header header;
	*type = 0;
	if (recv(fd, &header, sizeof(header), MSG_WAITALL) != (ssize_t)sizeof(header))
		return 0;
	*type = le32_get(header.type);
	const size_t length = le32_get(header.length);
	assert(length <= size);
	const ssize_t n = length ? recv(fd, body, length, MSG_WAITALL) : 0;
	assert(n == (ssize_t)length);
	return length;
}

/* ---- pipes ------------------------------------------------------------------------------------------------------------------- */

static void *capture_run(void *data)
{
	struct capture *c = data;
	size_t size = 0;
	for (;;) {
		if (size - c->length < 65536) {
			size = size * 2 + 65537;
			c->bytes = realloc(c->bytes, size);
			assert(c->bytes);
		}
		const ssize_t n = read(c->read_fd, c->bytes + c->length, size - c->length - 1);
		if (n <= 0)
			break;
		c->length += (size_t)n;
	}
	c->bytes[c->length] = '\0';
	return NULL;
}

void capture_open(struct capture *c)
{
	int ends[2];
	*c = (struct capture){ 0 };
	int result = pipe2(ends, O_CLOEXEC);
	assert(result == 0);
	c->read_fd = ends[0];
	c->write_fd = ends[1];
	result = pthread_create(&c->thread, NULL, capture_run, c);
	assert(result == 0);
}

void capture_finish(struct capture *c)
{
	if (c->write_fd >= 0)
		close(c->write_fd);
	c->write_fd = -1;
	pthread_join(c->thread, NULL);
	close(c->read_fd);
}

void capture_free(struct capture *c)
{
	free(c->bytes);
}

struct feed {
	int fd;
	unsigned delay_ms;
	size_t length;
	char *bytes;
};

static void *feed_run(void *data)
{
	struct feed *feed = data;
	size_t at = 0;
	usleep(feed->delay_ms * 1000);
	while (at < feed->length) {
		const ssize_t n = write(feed->fd, feed->bytes + at, feed->length - at);
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	close(feed->fd);
	free(feed->bytes);
	free(feed);
	return NULL;
}

int feed_open(const void *bytes, size_t length)
{
	return feed_open_later(bytes, length, 0);
}

int feed_open_later(const void *bytes, size_t length, unsigned delay_ms)
{
	int ends[2];
	pthread_t thread;
	struct feed *feed = malloc(sizeof(*feed));
	int result = pipe2(ends, O_CLOEXEC);
	assert(result == 0 && feed);
	*feed = (struct feed){ ends[1], delay_ms, length, malloc(length + 1) };
	assert(feed->bytes);
	memcpy(feed->bytes, bytes, length);
	result = pthread_create(&thread, NULL, feed_run, feed);
	assert(result == 0);
	pthread_detach(thread);
	return ends[0];
}

char *run_and_show(const struct session_spec *spec)
{
	struct harness h;
	struct capture out, err;
	struct session_spec with_pipes = *spec;
	char *line = NULL;
	capture_open(&out);
	capture_open(&err);
	with_pipes.stdout_fd = out.write_fd;
	with_pipes.stderr_fd = err.write_fd;
	harness_run(&h, &with_pipes);
	harness_close(&h);
	capture_finish(&out);
	capture_finish(&err);
	const char *complaint = h.result.err.text;
	const int n = asprintf(&line, "exit %d out:%s err:%s%s%s", h.result.exit_code, out.bytes, err.bytes,
			        *complaint ? " said " : "", complaint);
	assert(n > 0);
	capture_free(&out);
	capture_free(&err);
	return line;
}
