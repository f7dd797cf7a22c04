/*
 * A session: one command in the guest, seen from the host. It talks to the agent (guest/agent/protocol.h) over vsock, joins the command's
 * streams with descriptors of the host, and tells how it ended.
 *
 * The agent's words are hostile input. All functions run on the vsock device's loop, or before it runs.
 */
#ifndef TRVMM_VMM_SESSION_H
#define TRVMM_VMM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/virtio-vsock/virtio_vsock.h"

struct session_spec {
	const char *const *argv; /* NULL-terminated, at least one; borrowed while session_start() runs, like all here */
	const char *const *env;  /* "K=V", NULL-terminated */
	const char *hostname;    /* NULL: "trvmm" */
	const char *workdir;     /* NULL: "/" */
	const char *user;        /* NULL: root; NAME, UID, NAME:GROUP, UID:GID */
	bool terminal;           /* a pty in the guest, joined with stdin_fd and stdout_fd */
	uint16_t rows, columns;
	int stdin_fd, stdout_fd, stderr_fd; /* borrowed; -1: none. May be blocking, may be any kind of file */
};

/* How a session ended; exactly one call. */
struct session_result {
	bool started;      /* false: the command never ran, and `err` says why */
	int exit_code;     /* what trvmm exits with: the command's own, 128 + n for signal n, 125 to 127 when it did not start */
	struct error err;  /* set when trvmm itself has something to say */
};

struct session;

/*
 * Prepares the session to start as soon as the agent connects. `ready(data)` is called when the agent said HELLO (may be NULL), `ended(data, result)`
 * once: all output has been delivered to stdout_fd and stderr_fd by then (or these are broken). Returns 0, or -errno with one line: -E2BIG for
 * arguments that are too long.
 */
int session_create(struct loop *loop, struct virtio_vsock *vsock, const struct session_spec *spec, void (*ready)(void *data),
		   void (*ended)(void *data, const struct session_result *result), void *data, struct session **session,
		   struct error *err);
void session_destroy(struct session *session);

/* Sends a signal to the command (remembered until it has started). */
void session_signal(struct session *session, int signal);

/* Tells the terminal's new size. */
void session_resize(struct session *session, uint16_t rows, uint16_t columns);

/*
 * The host terminal: puts `fd` into raw mode and restores it at exit and on fatal signals of this process.
 * Returns 0 or -errno (-ENOTTY). terminal_restore() may be called at any time, also from a signal handler.
 */
int terminal_set_raw(int fd);
void terminal_restore(void);

#endif
