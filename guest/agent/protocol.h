/*
 * What trvmm and the agent (process 1 in the guest, or a child of the image's own) say to each other. This header is all they share.
 *
 * The agent connects by vsock to port AGENT_PORT_CONTROL of the host (CID 2) as soon as it runs and sends HELLO. Over this control
 * connection go framed messages, little-endian:
 *
 *    0        4        8                8 + length
 *    | type   | length | body ...       |          length at most AGENT_BODY_MAX
 *
 * A session is one command. The bytes of its streams never travel in messages: for each stream the agent opens a connection of its
 * own to host port agent_stream_port(session, stream), which carries raw bytes with vsock's own flow control; the end of a stream
 * is the end of its connection. With a terminal there is one connection, stream STDIN's, for both directions.
 *
 *    agent                                      trvmm
 *    connects control, and all three
 *    streams of session 0            ---->      refuses those that session 0 does not use
 *    HELLO {version}                 ---->
 *                                    <----      RUN {session, flags, ..., strings}        (does not wait for HELLO)
 *    connects the streams of a
 *    session other than 0            ---->
 *    STARTED {session, pid}          ---->      or FAILED {session, errno, exit code, text}
 *                                    <----      SIGNAL {session, signal}, WINDOW {session, rows, columns}
 *    closes the streams
 *    EXITED {session, wait status}   ---->      the session's number is free again, as after FAILED
 *
 * So one round trip brings up a command: connections are on their way while the agent mounts, and RUN comes with the first answer.
 *
 * EXITED is sent after all output of the command was sent, and after its streams were closed: what the command's pipes (or pty)
 * hold when it exits. Background processes that hold them open are not waited for. A signal goes to the command's own process, as
 * with `docker kill`, but SIGINT and SIGQUIT go to its process group, as from a keyboard. The end of input to a terminal is the
 * key Ctrl-D. When the host closes a stream, the command gets end of file, SIGPIPE or, with a terminal, SIGHUP. When it closes the
 * control connection, the agent resets the machine.
 *
 * When session 0 asks for it (AGENT_RUN_PROXY), the agent listens at vsock port AGENT_PORT_PROXY of the guest before it sends STARTED. A
 * connection there begins with a line, as at the Unix socket of Firecracker's convention; then it is a TCP connection to 127.0.0.1 in the
 * guest, with each end's half close passed on:
 *
 *    trvmm                                      agent
 *    CONNECT 8080\n                  ---->      connects to 127.0.0.1:8080
 *                                    <----      OK 8080\n, or the connection is closed: it was refused
 *
 * Nothing is sent behind CONNECT before OK has come.
 *
 * Either side treats the other as hostile: lengths are bounded before anything is allocated, unknown types are ignored by length,
 * a breach of the framing ends the connection.
 */
#ifndef TRVMM_GUEST_AGENT_PROTOCOL_H
#define TRVMM_GUEST_AGENT_PROTOCOL_H

#include <stdint.h>

#include "base/le.h"

#define AGENT_PROTOCOL_VERSION 4
#define AGENT_NAME ".trvmm-agent" /* in the root folder, of a disk and of a share */
#define AGENT_PATH "/" AGENT_NAME /* the kernel's init= */

#define AGENT_PORT_CONTROL 1024u
#define AGENT_PORT_PROXY 1025u /* in the guest */
#define AGENT_PORT_STREAMS 0x10000u
#define AGENT_PROXIED_MAX 1024u /* connections at once; others wait */
#define AGENT_SESSIONS_MAX 1024u /* sessions are numbered 0 to AGENT_SESSIONS_MAX - 1; 0 is the main command */

enum agent_stream { AGENT_STDIN = 0, AGENT_STDOUT = 1, AGENT_STDERR = 2 };

static inline uint32_t agent_stream_port(uint32_t session, enum agent_stream stream)
{
	return AGENT_PORT_STREAMS + session * 4 + (uint32_t)stream;
}

#define AGENT_BODY_MAX (2u << 20) /* Linux's ARG_MAX for argv and environment together */

#define AGENT_STRINGS_MAX 262144u /* argc + envc: with a pointer for each, more than any exec takes */
#define AGENT_LIMITS_MAX 16u      /* Linux has as many kinds */
#define AGENT_TMPFS_MAX 64u
#define AGENT_SHARES_MAX 32u

enum agent_type {
	AGENT_HELLO = 1,
	AGENT_RUN = 2,
	AGENT_STARTED = 3,
	AGENT_FAILED = 4,
	AGENT_EXITED = 5,
	AGENT_SIGNAL = 6,
	AGENT_WINDOW = 7,
	AGENT_TIMES = 8, /* of the agent, only when RUN asked for it (AGENT_RUN_TIMES), before EXITED */
};

struct agent_header {
	le32 type;
	le32 length; /* of the body that follows */
};

struct agent_hello {
	le32 version;
};

#define AGENT_RUN_STDIN (1u << 0)    /* connect stdin; otherwise it is /dev/null */
#define AGENT_RUN_TERMINAL (1u << 1) /* a pty instead of three pipes */
#define AGENT_RUN_SYNC (1u << 2)     /* sync() before EXITED, session 0 makes the root read-only: for disks that outlive the machine */

#define AGENT_RUN_PROXY (1u << 3)    /* of session 0: listen at AGENT_PORT_PROXY */

#define AGENT_RUN_TIMES (1u << 4)    /* send TIMES before EXITED */

/*
 * Of session 0: before EXITED, end all other processes, and wait until they have (AGENT_END_OTHERS_MS at most). For shares: what a process
 * has changed by a mapping of a file there is written back, at the latest, when it ends. Not where another program is process 1 (init).
 */
#define AGENT_RUN_END_OTHERS (1u << 5)
#define AGENT_END_OTHERS_MS 5000u

/*
 * RUN: this struct, then limit_count times struct agent_limit, then strings, each ended by a 0 byte, in this order: hostname,
 * working directory, user, init, then argc arguments, then envc environment entries, then tmpfs_count times two: a folder, and the
 * data that mount(2) gets, then share_count times three: tag, place, file. Empty means: leave the hostname as it is, working directory
 * "/", user root, no init. A missing working directory is made. A user is NAME, UID, NAME:GROUP or UID:GID, looked up in the guest's
 * /etc/passwd and /etc/group. The command is searched in the PATH of its environment; HOME is added to that when it is missing. A tmpfs is
 * mounted on each folder, which is made when it is missing, before all else. Then the program at the path `init`, if any, takes the place
 * of process 1, and the agent is a child of it from then on. Only session 0 may ask for tmpfs, shares, init and pids_max. The body's length
 * must match exactly.
 *
 * A share is a virtio-fs device, known by its tag, that is mounted on the folder `place`. When `file` is not empty, the share's root
 * holds just the file of this name, and that is to be at `place`. Places that are missing are made. Of tmpfs and shares, what has fewer
 * components is mounted first.
 */
struct agent_run {
	le32 session;
	le32 flags;
	le16 rows, columns; /* of the terminal; 0: unknown */
	le32 argc;          /* at least 1 */
	le32 envc;
	le32 limit_count; /* at most AGENT_LIMITS_MAX */
	le32 tmpfs_count; /* at most AGENT_TMPFS_MAX */
	le32 pids_max;    /* processes and threads of all commands together; 0: no limit */
	le32 share_count; /* at most AGENT_SHARES_MAX */
	le32 read_only_shares; /* a bit for each share, from bit 0 on */
	le32 dax_shares; /* the same: those that are mounted with dax=always */
};

/* A resource limit of the command, as setrlimit() takes it. */
struct agent_limit {
	le32 resource; /* Linux RLIMIT_* */
	le32 zero;
	le64 soft, hard; /* UINT64_MAX: unlimited */
};

struct agent_started {
	le32 session;
	le32 pid;
};

/* FAILED: this struct and a text for the user (not terminated, any bytes: escape before printing). */
struct agent_failed {
	le32 session;
	le32 error;     /* Linux errno: ENOENT for a command that was not found, ... */
	le32 exit_code; /* 127 not found, 126 not executable, 125 anything else */
};

struct agent_exited {
	le32 session;
	le32 wait_status; /* as waitpid() gives it */
};

/* When stages of a start were reached, as the guest's time stamp counter has it: reading that is no exit, and no system call. */
struct agent_times {
	le32 session;
	le32 zero;
	le64 init;   /* the agent's main() */
	le64 exec;   /* the command's process is about to execute its program */
	le64 exited; /* its end was seen */
};

struct agent_signal {
	le32 session;
	le32 signal; /* Linux x86-64 number, 1 to 64 */
};

struct agent_window {
	le32 session;
	le16 rows, columns;
};

#endif
