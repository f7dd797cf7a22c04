/*
 * The agent, process 1 in the guest (with --init: a child of it): what its files share.
 *
 *   main.c     order of the start, event loop, reaping
 *   wire.c     the control connection: frames in, frames out
 *   mounts.c   file systems that the main command asks for
 *   command.c  sessions: from RUN to EXITED
 *   pump.c     bytes between a command's pipes (or pty) and its vsock connections
 *   proxy.c    TCP connections inside the guest for the host's clients
 *   spawn.c    pipes, pty, the new process, the search for the program
 *   user.c     who the command runs as
 *   init.c     the image's own init as process 1
 *   pids.c     a limit on the number of processes
 *   text.c     one-line messages
 *   initramfs.c  before all that: the way from an initial root file system to the root disk
 *   boot.c, vsock.c  what only a virtual machine has: the functions named platform_*, for which the unit tests have others
 *
 * One thread, no heap, everything non-blocking but exec. A failure of the guest's own making ends one session; what leaves nothing
 * to talk to ends the machine.
 */
#ifndef TRVMM_GUEST_AGENT_AGENT_H
#define TRVMM_GUEST_AGENT_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/agent/protocol.h"

/* ---- text.c ------------------------------------------------------------------------------------------------------------------ */

/* A line under construction; what does not fit is cut. */
struct text {
	size_t length;
	char bytes[400];
};

void text_add(struct text *t, const char *s);
void text_add_number(struct text *t, unsigned long value);
/* Adds ": " and what errno value `error` means. */
void text_add_error(struct text *t, int error);

/* ---- boot.c, vsock.c: the machine; tests/unit/agent_platform.c in the unit tests --------------------------------------------- */

void platform_init(int argc, char **argv);

/* Begins to connect to host port `port`. Returns a non-blocking CLOEXEC descriptor above 2, connected or about to be, or -errno. */
int platform_connect(uint32_t port);

/* Listens for the host's connections to guest port `port`. Returns a non-blocking CLOEXEC descriptor, or -errno. */
int platform_listen(uint32_t port);

/* Mounts and the other things a command expects of its machine. What fails is told on the console. */
void platform_boot(void);

/* Late: commands go before us on the processor, and what we start does not inherit that. Not late: as usual. */
void platform_schedule(bool late);

/* Where the tree of control groups is mounted. */
const char *platform_cgroup(void);

void platform_set_hostname(const char *name);

/* Mounts a tmpfs with the mount(2) data `data` on `folder`, which is there. Returns 0 or -errno. */
int platform_mount_tmpfs(const char *folder, const char *data);

/* How a share is mounted. */
struct share_mount {
	const char *tag;
	bool read_only;
	bool dax; /* all files are mapped */
};

/* Mounts a virtio-fs device on `folder`, which is there. Returns 0 or -errno: -ENODEV when the kernel has no virtio-fs. */
int platform_mount_share(const struct share_mount *share, const char *folder);

/* The same for a share that holds one file, `name`, which is to be at `place`, a file that is there. */
int platform_mount_file(const struct share_mount *share, const char *name, const char *place);

/* Kills all processes but this one. Returns false, and does nothing, when another program is process 1: they are that one's affair. */
bool platform_kill_others(void);

/* Leaves the root file system as after a shutdown: written back, and clean when nothing more can be written. Once, at the end of all. */
void platform_settle_disks(void);

/* The end of the machine, after one line on the console. */
_Noreturn void platform_die(const struct text *why);
_Noreturn void die(const char *what, int error);

/* ---- user.c ------------------------------------------------------------------------------------------------------------------ */

#define USER_GROUPS_MAX 256

struct user {
	uint32_t uid, gid;
	unsigned group_count;
	gid_t groups[USER_GROUPS_MAX]; /* supplementary */
	char home[256];                /* of the passwd entry; "" when there is none */
};

/*
 * Resolves NAME, UID, NAME:GROUP, UID:GID as docker does: a number need not be in the files; a name must. Without a group, the
 * user's own and all those that list the user. Returns 0, or -errno with the reason added to `why`: -ENOENT for an unknown name.
 */
int user_resolve(const char *spec, const char *passwd_path, const char *group_path, struct user *user, struct text *why);

/* ---- init.c ------------------------------------------------------------------------------------------------------------------ */

/*
 * Makes process 1 the program at `path`; we go on as its child. Returns when it runs. Once, before the first command. Returns 0, or -errno
 * with the reason: then there is no init, and the machine has to end.
 */
int init_start(char *path, struct text *why);

/* ---- pids.c ------------------------------------------------------------------------------------------------------------------ */

/* From now on all commands and what they start are at most `max` processes and threads. Once. Returns 0, or -errno with the reason. */
int pids_limit(uint32_t max, struct text *why);

/* In a new process: it is one of those now. Returns 0, or -1 with errno. */
int pids_join(void);

/* ---- mounts.c ---------------------------------------------------------------------------------------------------------------- */

struct mounts {
	uint32_t tmpfs_count, share_count;
	uint32_t read_only_shares, dax_shares; /* bits */
	const char *tmpfs[AGENT_TMPFS_MAX][2];   /* folder, data */
	const char *shares[AGENT_SHARES_MAX][3]; /* tag, place, file or "" */
};

/* Mounts all of them, what is less deep first. Returns 0, or -errno with the reason. */
int mounts_make(const struct mounts *m, struct text *why);

/* ---- spawn.c ----------------------------------------------------------------------------------------------------------------- */

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* systemd's defaults: programs that need more descriptors raise the soft limit, programs that try them all are not slowed. */
#define NOFILE_SOFT 1024
#define NOFILE_HARD 524288

struct spawn {
	char **argv;         /* argv[-1] is a free slot, for the shell of a script without #! */
	char **env;
	const char *workdir; /* exists */
	const struct user *user;
	bool terminal;
	const struct agent_limit *limits; /* come over the defaults */
	uint32_t limit_count;
	int fds[3];          /* blocking, CLOEXEC; become 0, 1, 2 of the command */
	/* Results. */
	int error;           /* errno of what failed */
	const char *failed;  /* what failed; NULL: nothing did */
	uint64_t exec_tsc;   /* the time stamp counter just before the program was executed */
	bool interpreter_missing; /* ENOENT, though the file is there */
};

/*
 * Starts the command; returns when it runs its program. Returns its pid, or -errno with `failed` and `error` set. Blocks for as
 * long as the program is loaded.
 */
pid_t spawn(struct spawn *s);

/* A pipe for stream `stream`: our end non-blocking, the command's blocking and its user's own. Returns 0 or -errno. */
int spawn_pipe(enum agent_stream stream, uint32_t uid, uint32_t gid, int *ours, int *theirs);

/* A pty: the master non-blocking. Returns 0 or -errno. */
int spawn_pty(uint32_t uid, uint16_t rows, uint16_t columns, int *master, int *slave);

void spawn_set_window(int master, uint16_t rows, uint16_t columns);

/* mkdir -p. Returns 0 or -errno. */
int spawn_make_folder(const char *path);

/* ---- pump.c ------------------------------------------------------------------------------------------------------------------ */

/* Descriptors of a command, as indices: its connections, then what is local to the guest. A pty uses the two of STDIN. */
#define ENDS 6
#define END_SOCKET(stream) ((unsigned)(stream))
#define END_LOCAL(stream) (3 + (unsigned)(stream))

struct end {
	int fd;            /* owned; -1: none */
	uint32_t watched;  /* epoll's mask; WATCHED_NOT: not there */
	bool connecting;
};

#define PUMPS 3
#define PUMP_BYTES 65536u

/* One direction. While the buffer holds something nothing is read: that is the flow control. */
struct pump {
	bool active;
	bool output;               /* from the command */
	uint8_t from, to;          /* ends */
	uint32_t start, stop;      /* what of the buffer waits to be written */
	uint64_t left;             /* bytes that may still be read */
	uint8_t buffer[PUMP_BYTES];
};

struct command {
	uint32_t session;
	uint32_t generation;       /* tells late events of an earlier session with this number from ours */
	uint32_t flags;            /* AGENT_RUN_* */
	pid_t pid;                 /* 0: not running */
	bool exited;
	int wait_status;
	struct agent_times times;  /* kept when AGENT_RUN_TIMES asks for them */
	struct end ends[ENDS];
	struct pump pumps[PUMPS];
};

void pump_open(struct command *c, unsigned index, unsigned from, unsigned to, bool output);
/* Something happened at an end (EPOLL* bits). */
void pump_event(struct command *c, unsigned end, uint32_t events);
/* The command has exited: its output is what is in the pipes now, its input is over. */
void pump_drain(struct command *c);
/* Tells epoll what each end waits for. */
void pump_watch(struct command *c);
bool pump_has_output(const struct command *c);
void end_close(struct end *end);

/* ---- command.c --------------------------------------------------------------------------------------------------------------- */

/* Connects the streams of session 0 before anybody asked: its RUN is on its way. */
void command_connect_early(void);
void command_run(const uint8_t *body, uint32_t length);
void command_signal(uint32_t session, uint32_t signal);
void command_window(uint32_t session, uint16_t rows, uint16_t columns);
void command_event(uint64_t tag, uint32_t events);
void command_reaped(pid_t pid, int wait_status);

/* The time stamp counter when main() began. */
extern uint64_t agent_began_tsc;

/* ---- proxy.c ----------------------------------------------------------------------------------------------------------------- */

/* Listens at AGENT_PORT_PROXY. Returns 0 or -errno. */
int proxy_listen(void);
void proxy_accept(void);
void proxy_event(uint64_t tag, uint32_t events);

/* ---- wire.c ------------------------------------------------------------------------------------------------------------------ */

void wire_connect(void);
/* There is a new epoll. */
void wire_watch(void);
void wire_event(uint32_t events);
/* Queues a message; it leaves with wire_flush(). */
void wire_send(enum agent_type type, const void *body, uint32_t length, const void *more, uint32_t more_length);
void wire_flush(void);

/* ---- initramfs.c ------------------------------------------------------------------------------------------------------------- */

/* Mounts the root and executes the agent there, with the same arguments. */
_Noreturn void initramfs_run(char **argv);

/* ---- main.c ------------------------------------------------------------------------------------------------------------------ */

/* We are a new process with the old one's descriptors. */
void main_go_on_as_child(void);

#define TAG_CONTROL UINT64_MAX
#define TAG_SIGNAL (UINT64_MAX - 1)
#define TAG_PROXY_LISTENER (UINT64_MAX - 2)
#define TAG_PROXY (1ull << 63) /* with less below; the tags of commands are smaller */
#define WATCHED_NOT UINT32_MAX

/* Sets what epoll reports of `fd` under `tag`; `watched` remembers it, so that no change is no system call. */
void watch(int fd, uint32_t *watched, uint32_t events, uint64_t tag);

#endif
