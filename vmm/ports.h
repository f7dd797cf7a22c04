/*
 * TCP ports of this host that lead to ports of a guest: -p of a run, and `trvmm proxy`.
 *
 *    TCP client -> listener -> relay -> a stream socket on which something hears "CONNECT PORT\n" and answers "OK ...\n"
 *
 * That something is the agent in the guest, behind the vsock device, or whoever serves a Unix socket in Firecracker's convention. A client
 * that is refused there sees its connection reset. Half close, resets and back-pressure are passed on both ways (base/relay.h). At most
 * PORTS_CLIENTS_MAX connections at once, of all ports together; others wait in the kernel's queue. What the other side says is hostile
 * input: its answer is bounded, and it can harm its own connections only.
 *
 * All functions run on the loop, or before it runs. The process must ignore SIGPIPE.
 */
#ifndef TRVMM_VMM_PORTS_H
#define TRVMM_VMM_PORTS_H

#include "base/error.h"
#include "base/loop.h"
#include "vmm/port_rule.h"

#define PORTS_MAX 64u
#define PORTS_CLIENTS_MAX 1024u

struct ports;

/* What both sides of a way say of resets, which a Unix socket does not carry. It lives until both have left it. */
struct ports_way {
	bool client_reset; /* the client broke its connection; set before its side of the way is closed */
	bool guest_reset; /* set by the opener's side before that is closed */
	unsigned users;
};

/*
 * Opens a way to whoever takes the CONNECT line: a non-blocking stream socket, owned by the caller, or -errno: the client is reset. An
 * opener that looks at `way` after its return adds itself to the users.
 */
typedef int (*ports_opener)(void *data, struct ports_way *way);
void ports_way_leave(struct ports_way *way);

/* Makes an empty set. Returns 0, or -errno with one line. */
int ports_create(struct loop *loop, ports_opener open, void *data, struct ports **ports, struct error *err);

/*
 * Listens at the rule's address. Clients can connect from now on, and wait until ports_start(). Returns 0, or -errno with one line:
 * -EADDRINUSE, -EACCES, -EADDRNOTAVAIL and what else bind(2) says; -ENOSPC for more than PORTS_MAX.
 */
int ports_add(struct ports *ports, const struct port_rule *rule, struct error *err);

/* Serves clients from now on: whoever takes the CONNECT lines is there. */
void ports_start(struct ports *ports);

/* Resets all clients and closes all listeners. NULL is allowed. */
void ports_destroy(struct ports *ports);

#endif
