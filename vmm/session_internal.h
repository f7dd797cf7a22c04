/*
 * What the session's files share: session.c (life of a session), session_control.c (frames), session_stream.c (streams),
 * session_request.c (the body of RUN).
 */
#ifndef TRVMM_VMM_SESSION_INTERNAL_H
#define TRVMM_VMM_SESSION_INTERNAL_H

#include "base/loop.h"
#include "guest/agent/protocol.h"
#include "vmm/session.h"
#include "vmm/stdio.h"

/* ---- session_control.c: the control connection, one for all sessions of a guest ---------------------------------------------- */

/* The longest body that is looked at; what is beyond is skipped. */
#define CONTROL_BODY_BYTES 1024

struct control {
	struct loop *loop;
	struct loop_source source; /* our end of a socket pair; fd -1: not connected */
	bool accepted;             /* the agent connects once */
	uint8_t header[sizeof(struct agent_header)];
	size_t header_used;
	uint32_t body_length;      /* as announced */
	uint32_t body_used;        /* so far, with what was skipped */
	uint8_t body[CONTROL_BODY_BYTES];
	uint8_t *out;              /* owned; what waits to be sent */
	size_t out_start, out_stop, out_size;
	/* A whole message; `length` is what there is of the body. It must not free the control. */
	void (*message)(struct control *control, uint32_t type, const uint8_t *body, size_t length);
	/* The connection is over: the agent closed it or broke the framing. Called once, last. */
	void (*closed)(struct control *control, const char *why);
};

void control_init(struct control *control, struct loop *loop);
void control_destroy(struct control *control);

/* Makes the connection for the device. Returns 0 or -errno. */
int control_accept(struct control *control, struct vsock_ends *ends);

/*
 * Queues a message, for the agent that is connected or will be. Returns 0 or -ENOMEM; -ENOBUFS when the agent has not read
 * its messages for long.
 */
int control_send(struct control *control, enum agent_type type, const void *body, size_t length);

/* ---- session_stream.c: one connection of a session --------------------------------------------------------------------------- */

/*
 * Lives until its session is destroyed and the device has let go of it (or the main session is destroyed). The descriptors go to
 * the device when the guest connects.
 */
struct stream {
	struct guest *guest;        /* borrowed; has all streams in a list */
	struct stream *next;
	struct session *session;    /* NULL: destroyed */
	struct stdio_end in, out;   /* in.fd: to the guest; out.fd: from the guest; owned until `connected` */
	bool output;                /* the session's end waits for it */
	bool connected;             /* the device has the descriptors */
	bool closed;                /* ... and has closed them */
	int write_error;            /* ... and could not write all: -errno */
	int probe_fd;               /* a duplicate of what the device writes to, while it does; -1: none */
	struct loop_source done;    /* out.done_fd: the thread that writes still has something */
};

int stream_create(struct session *session, enum agent_stream which, const struct session_spec *spec, struct error *err);
/* Starts its threads, if it needs any and they do not run. Returns 0 or -errno. */
int stream_start(struct stream *stream);
int stream_accept(struct stream *stream, struct vsock_ends *ends);
/* All that came has been delivered, or nothing will come. */
bool stream_is_delivered(const struct stream *stream);
/* Somebody on the host is slow to take what the guest sent. */
bool stream_is_waiting_for_host(const struct stream *stream);
/* The session does not want it any more. */
void stream_release(struct stream *stream);
/* Frees it whatever the device has: that one will not call any more. */
void stream_destroy(struct stream *stream);

/* ---- session_request.c ------------------------------------------------------------------------------------------------------- */

struct session_request {
	uint8_t *body; /* owned */
	size_t length;
};

/* Writes the body of RUN for session `number`; the caller frees it, also on failure. -E2BIG, -EINVAL, -ENOMEM with one line. */
int session_request_build(struct session_request *request, uint32_t number, const struct session_spec *spec, struct error *err);

/* ---- session.c --------------------------------------------------------------------------------------------------------------- */

enum session_state {
	SESSION_ASKED,    /* RUN is sent, or waits for the agent */
	SESSION_STARTED,
	SESSION_EXITED,   /* output is being delivered */
	SESSION_OVER,     /* `ended` was called */
};

/* The guest's sessions; belongs to the main session. */
struct guest {
	struct loop *loop;
	struct control control;
	struct session *sessions[AGENT_SESSIONS_MAX];
	bool in_guest[AGENT_SESSIONS_MAX]; /* asked for, and not heard to have ended: the number is not free */
	struct stream *streams;
	void (*ready)(void *data);
	bool hello;
	bool gone;
};

struct session {
	struct guest *guest;
	uint32_t number;
	enum session_state state;
	bool terminal;
	uint64_t pending_signals; /* bit n - 1: signal n, until it has started */
	struct stream *streams[3];
	struct loop_source timer; /* while output is delivered */
	unsigned quiet_ticks;
	struct session_result result;
	void (*started)(void *data);
	void (*times)(void *data, const struct agent_times *times); /* NULL: not wanted, or told */
	session_ended ended;
	void *data;
};

/* The device has closed a stream, or its thread has ended. */
void session_stream_changed(struct session *session);

#endif
