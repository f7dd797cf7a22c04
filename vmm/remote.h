/*
 * What other trvmm processes (exec, kill, stats) say to the process of a named machine, over the Unix socket NAME/control of
 * vmm/registry.h. This header is all they share.
 *
 * A connection carries frames in both directions, little-endian:
 *
 *    0        4         8        12       16                16 + length
 *    | magic  | version | type   | length | body ...        |       length at most REMOTE_BODY_MAX
 *
 *    client                                machine
 *    EXEC {...} + descriptors     ---->
 *    SIGNAL {}, WINDOW {}         ---->    any number, for the command of EXEC
 *                                 <----    ENDED {exit code, text}
 *    KILL {signal}                ---->    for the machine's own command; SIGKILL ends the machine at once
 *                                 <----    DONE {}
 *    STATS {}                     ---->
 *                                 <----    FIGURES {...}
 *                                 <----    REFUSED {text}, and the end, in place of any answer
 *
 * The bytes of a command's streams do not travel here: EXEC brings the descriptors that they go to and come from (SCM_RIGHTS, with the
 * first byte of the frame). A client never sends its terminal: who reads a terminal from outside its session takes the keys that the shell
 * should get while the client is stopped. It sends pipes, which it fills and empties itself, so that a stopped client stops the command's
 * streams, and no more.
 *
 * The end of the connection is the end of its command: a client that is killed leaves nothing behind. The machine answers its own user
 * and root only. It never waits for a client: one that breaks the framing, or does not take its answers, loses its connection.
 */
#ifndef TRVMM_VMM_REMOTE_H
#define TRVMM_VMM_REMOTE_H

#include <assert.h>

#include "base/le.h"
#include "guest/agent/protocol.h"

#define REMOTE_MAGIC 0x4d565254u /* "TRVM" */
#define REMOTE_VERSION 2u
#define REMOTE_BODY_MAX AGENT_BODY_MAX
#define REMOTE_ANSWER_MAX 2048u /* the body of what the machine says */
#define REMOTE_DESCRIPTORS_MAX 3u

enum remote_type {
	REMOTE_EXEC = 1,
	REMOTE_SIGNAL = 2,
	REMOTE_WINDOW = 3,
	REMOTE_KILL = 4,
	REMOTE_STATS = 5,
	REMOTE_ENDED = 65,
	REMOTE_DONE = 66,
	REMOTE_FIGURES = 67,
	REMOTE_REFUSED = 68, /* the body is a text */
};

struct remote_header {
	le32 magic;
	le32 version;
	le32 type;
	le32 length; /* of the body that follows */
};
static_assert(sizeof(struct remote_header) == 16, "above");

#define REMOTE_EXEC_STDIN                                                                                                          \
	(1u << 0) /* the first descriptor is the command's stdin; else that is /dev/null, or a terminal without keys */
#define REMOTE_EXEC_TERMINAL (1u << 1) /* stdin and stdout are joined with a pty; there is no stderr */

/*
 * EXEC: this struct, then strings, each ended by a 0 byte: working directory, user (empty: those of the machine's own command), argc
 * arguments, envc variables "K=V", which are set over those of the machine's own command. With it come the descriptors for stdin (see
 * above), stdout and, without a terminal, stderr, in this order.
 */
struct remote_exec {
	le32 flags;
	le16 rows, columns;
	le32 argc; /* at least 1 */
	le32 envc;
};

struct remote_signal {
	le32 signal;
};

struct remote_window {
	le16 rows, columns;
};

/* ENDED: this struct, then what is to be said about it; empty: nothing. */
struct remote_ended {
	le32 exit_code;
};

struct remote_figures {
	le64 cpu_ns; /* of the vCPUs' threads */
	le64 process_cpu_ns; /* of the whole process, these included */
	le64 memory_bytes; /* the guest's */
	le64 resident_bytes; /* of the process: what the guest has touched of its memory, and trvmm's own */
	le64 blk_reads, blk_read_bytes, blk_writes, blk_written_bytes;
	le64 fs_requests, fs_read_bytes, fs_written_bytes, fs_errors; /* of all shares */
	le64 fs_nodes, fs_descriptors; /* held now */
	le64 vsock_connections, vsock_to_guest_bytes, vsock_from_guest_bytes;
	le64 sessions; /* commands started by EXEC that run */
};

#endif
