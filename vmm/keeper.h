/*
 * The process that stays outside the sandbox for a run that has names outside: a machine in the registry with its log, or the Unix socket
 * of --vsock. It keeps these while the run lives, and takes them away or writes down how it ended when it has.
 *
 *     trvmm, confined                               keeper: the caller's user, the caller's files
 *       |  KEEPER_OWNS      the socket is bound       |
 *       |  KEEPER_CONNECT   PORT  ---------------->   |  connects to PATH_PORT, sends the descriptor
 *       |  KEEPER_END       CODE, TEXT ----------->   |  log stored, registry and socket settled, answers, ends
 *       |  (the end of the connection) ----------->   |  the same without the last word: somebody killed us
 *
 * These are all the orders that it takes, and from an enemy, too: what one gets by them is connections to PATH_<number>, which --vsock
 * gives to every guest, and the last word about its own machine. It holds no other descriptors and has a list of system calls of its own.
 */
#ifndef TRVMM_VMM_KEEPER_H
#define TRVMM_VMM_KEEPER_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/registry.h"

struct keeper_spec {
	const struct registry_claim *claim; /* NULL: no name; copied, its descriptors are shared */
	bool log; /* make one in the claim's folder */

	const char *vsock_path; /* NULL: no --vsock; must live as long as the process */
};

struct keeper;

/*
 * Forks it. Before there are threads. With a log, *stdout_fd and *stderr_fd become ends of its pipes for writing, owned by the caller.
 * Returns 0 or -errno with one line.
 */
int keeper_start(const struct keeper_spec *spec, struct keeper **keeper, int *stdout_fd, int *stderr_fd, struct error *err);

/* The socket of --vsock has been bound: it is to be removed from now on. */
void keeper_owns_vsock(struct keeper *keeper);

/* virtio_vsock_connect_unix() there. Returns a descriptor that does not block, or -errno. */
int keeper_connect(struct keeper *keeper, bool seqpacket, uint32_t port);

/* Settles all, and returns when that is done. `keep`: a machine's end is remembered. `text` may be empty. */
void keeper_end(struct keeper *keeper, int code, const char *text, bool keep);

#endif
