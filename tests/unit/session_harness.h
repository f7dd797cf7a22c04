/* Sessions without a machine: a loop, a vsock device of Unix sockets, the agent as a process or a thread that plays it. */
#ifndef TRVMM_TESTS_UNIT_SESSION_HARNESS_H
#define TRVMM_TESTS_UNIT_SESSION_HARNESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "guest/agent/protocol.h"
#include "tests/unit/fake_vsock.h"
#include "vmm/session.h"

struct harness {
	struct loop *loop;
	struct virtio_vsock *vsock;
	struct session *session;
	char folder[64], path[96];
	pid_t agent;
	bool ready;
	unsigned ended; /* how often `ended` was called */
	struct session_result result;
};

/* A pipe whose reader is a thread that keeps all that comes. */
struct capture {
	int write_fd;
	int read_fd;
	pthread_t thread;
	char *bytes;
	size_t length;
};

void harness_open(struct harness *h);
void harness_close(struct harness *h);

/* Starts the agent as a process. */
void harness_spawn_agent(struct harness *h);

/* argv and three descriptors of -1 */
struct session_spec harness_spec(const char *const *argv);

/* Creates the main session, asserting that this works. */
void harness_create(struct harness *h, const struct session_spec *spec);

/* Runs the loop until the main session has ended. */
void harness_wait(struct harness *h);

/* All of the above: what a run of trvmm does. */
void harness_run(struct harness *h, const struct session_spec *spec);

/* Connects to the device as the guest does, blocking. The first returns -1 when it was refused, the second does not return then. */
int guest_try_connect(const struct harness *h, uint32_t port);
int guest_connect(const struct harness *h, uint32_t port);
void guest_send(int fd, enum agent_type type, const void *body, size_t length);
/* Reads one message; returns the length of its body, at most `size`. */
size_t guest_receive(int fd, uint32_t *type, void *body, size_t size);

void capture_open(struct capture *c);
/* Waits for the end (all writers have closed); the bytes are terminated. */
void capture_finish(struct capture *c);
void capture_free(struct capture *c);

/* A pipe with `length` bytes on the way to the end, from a thread. Returns the end to read. */
int feed_open(const void *bytes, size_t length);
int feed_open_later(const void *bytes, size_t length, unsigned delay_ms);

/* A session's run as one line: "exit CODE out:TEXT err:TEXT said TEXT"; freed by the caller. */
char *run_and_show(const struct session_spec *spec);

#endif
