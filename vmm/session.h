/*
 * A session: one command in the guest, seen from the host. It talks to the agent (guest/agent/protocol.h) over vsock, joins the
 * command's streams with descriptors of the host, and tells how it ended.
 *
 * The agent's words are hostile input: whatever it sends, or leaves unsent, costs its own sessions and nothing else. All functions
 * run on the vsock device's loop, or before it runs.
 */
#ifndef TRVMM_VMM_SESSION_H
#define TRVMM_VMM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "vmm/terminal.h"

/* A resource limit of the command, as setrlimit() takes it. */
struct session_limit {
	int resource; /* RLIMIT_*; the guest's numbers are this machine's */
	uint64_t soft, hard; /* UINT64_MAX: unlimited */
};

/* A tmpfs that is mounted before the command runs. */
struct session_tmpfs {
	const char *folder; /* made when it is missing */
	const char *data;   /* for mount(2): "size=1048576" */
};

struct agent_times;

/* A virtio-fs device that is mounted before the command runs. */
struct session_share {
	const char *tag;
	const char *place; /* absolute; made when it is missing */
	const char *file;  /* NULL: a directory; else the only entry of the share's root, a file that is to be at `place` */
	bool read_only;
	bool dax; /* mounted so that all files are mapped */
};

struct session_spec {
	const char *const *argv; /* NULL-terminated, at least one; borrowed while session_create() runs, like all here */
	const char *const *env;  /* "K=V", NULL-terminated; NULL: empty */
	const char *hostname;    /* NULL: "trvmm" */
	const char *workdir;     /* NULL: "/"; made when missing */
	const char *init;        /* of the main session: what becomes the guest's process 1; NULL: the agent is */
	uint32_t pids_max;       /* of the main session: processes and threads of all commands; 0: no limit */
	const char *user;        /* NULL: root; NAME, UID, NAME:GROUP, UID:GID */
	const struct session_limit *limits; /* at most AGENT_LIMITS_MAX */
	size_t limit_count;
	const struct session_tmpfs *tmpfs; /* of the main session only; at most AGENT_TMPFS_MAX */
	size_t tmpfs_count;
	const struct session_share *shares; /* likewise; at most AGENT_SHARES_MAX, what is deeper behind what is less deep */
	size_t share_count;
	bool terminal;           /* a pty in the guest, joined with stdin_fd and stdout_fd */
	bool sync;               /* the guest writes its file systems back before the session ends: for disks that are kept */
	bool end_others;         /* other processes end before the main session does: for shares that can be written to */
	bool proxy;              /* the agent listens at AGENT_PORT_PROXY before the command starts; for the main session */
	uint16_t rows, columns;
	void (*times)(void *data, const struct agent_times *times); /* NULL: not wanted. Called once, on the loop, before `ended` */
	void (*started)(void *data); /* the command runs; NULL: not wanted. Called once, on the loop, before `ended` */
	bool given;              /* the descriptors are another process's: pipes or files, used as they are (stdio_take()) */
	bool start_later;        /* streams that need threads wait for session_start_streams() */
	int stdin_fd, stdout_fd, stderr_fd; /* borrowed; -1: none. May be blocking, may be any kind of file (vmm/stdio.h) */
};

/* How a session ended; exactly one call. */
struct session_result {
	bool started;      /* false: the command never ran, and `err` says why */
	bool guest_gone;   /* the guest, or its agent, ended before the command did; then exit_code is 125 and `err` says how */
	int exit_code;     /* what trvmm exits with: the command's own, 128 + n for signal n, 125 to 127 when it did not start */
	struct error err;  /* set when trvmm itself has something to say */
};

struct session;

typedef void (*session_ended)(void *data, const struct session_result *result);

/*
 * Prepares the main session: the command starts as soon as the agent connects. Once for a vsock device, of which it takes the host
 * ports of protocol.h. `ready(data)` is called when the agent said HELLO (may be NULL), `ended(data, result)` once, on the loop:
 * all output has been delivered to stdout_fd and stderr_fd by then (or these are broken). Neither may destroy the session or the
 * vsock device. Returns 0, or -errno with one line: -E2BIG for arguments that are too long, -EINVAL, -ENOMEM, -EMFILE.
 */
int session_create(struct loop *loop, struct virtio_vsock *vsock, const struct session_spec *spec, void (*ready)(void *data),
		   session_ended ended, void *data, struct session **session, struct error *err);

/* Starts the threads of the main session's streams, where `start_later` was asked for. Returns 0 or -errno. */
int session_start_streams(struct session *session);

/*
 * Starts another command in the guest of `main_session`. -ENOSPC when AGENT_SESSIONS_MAX run, -ESHUTDOWN when the guest is gone;
 * else as session_create(). Its `ended` may destroy it. It must be destroyed before the main session is.
 */
int session_exec(struct session *main_session, const struct session_spec *spec, session_ended ended, void *data,
		 struct session **session, struct error *err);

/*
 * Frees a session; `ended` is not called any more; a command that still runs is killed. NULL is allowed. The main session: after
 * the vsock device was destroyed, or when its loop will not run again.
 */
void session_destroy(struct session *session);

/*
 * Sends a signal to the command's own process (remembered until it has started), as docker kill does to a container's; SIGINT and
 * SIGQUIT to its process group, as the keyboard does.
 */
void session_signal(struct session *session, int signal);

/* Tells the terminal's new size. */
void session_resize(struct session *session, uint16_t rows, uint16_t columns);

/*
 * The guest has stopped for the reason `why`. Sessions of its commands that have not exited end with exit code 125 and this line;
 * those that have go on delivering their output. `ended` is called from here.
 */
void session_guest_gone(struct session *main_session, const char *why);

#endif
