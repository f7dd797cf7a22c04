/* The client's side of vmm/remote.h: one blocking connection, for the subcommands. */
#ifndef TRVMM_VMM_REMOTE_CLIENT_H
#define TRVMM_VMM_REMOTE_CLIENT_H

#include <stddef.h>

#include "base/error.h"
#include "vmm/registry.h"
#include "vmm/remote.h"

/* Finds the machine `name`, which runs, and connects. Returns a descriptor, or -errno with one line. */
int remote_open(const char *name, struct registry_entry *entry, struct error *err);

/* Sends a frame with up to REMOTE_DESCRIPTORS_MAX descriptors. Returns 0 or -errno: -EPIPE when the machine hung up. */
int remote_send(int fd, enum remote_type type, const void *body, size_t length, const int *fds, unsigned fd_count);

struct remote_answer {
	enum remote_type type;
	size_t length;
	uint8_t body[REMOTE_ANSWER_MAX + 1]; /* a 0 byte follows */
};

/*
 * Waits for the next answer. Returns 0, or -errno with one line: -ECONNRESET when the machine is gone, -EPROTO for what is no answer,
 * -ECONNREFUSED when it refused (the line is its own).
 */
int remote_receive(int fd, struct remote_answer *answer, struct error *err);

/* How long sending and receiving may take from now on. */
void remote_set_timeout(int fd, unsigned timeout_s);

/* Sends a request and waits, at most so long, for the answer of type `wanted`. Returns as remote_receive(); -ETIMEDOUT. */
int remote_ask(int fd, enum remote_type type, const void *body, size_t length, enum remote_type wanted, unsigned timeout_s,
	       struct remote_answer *answer, struct error *err);

/* "TERM", "SIGTERM" or "15" as a number; -EINVAL with one line. */
int remote_parse_signal(const char *text, struct error *err);

#endif
