/*
 * trvmm's own standard streams as descriptors that never block the event loop.
 *
 * O_NONBLOCK belongs to the open file description, which standard streams share with the shell and its other programs: it must not
 * be set on them. What a descriptor is decides what is done instead:
 *
 *   regular file, block device, /dev/null and its like     used as it is (a duplicate: it shares the position, as it should)
 *   pipe, FIFO, terminal                                   opened again through /proc/self/fd: a description of our own, O_NONBLOCK
 *   socket, or anything that could not be opened again     a thread that reads or writes it, joined by a pipe
 *
 * The threads do read, write, poll, close and then end; they block all signals. A process that is to be confined prepares its ends first
 * and starts their threads when it is (vmm/sandbox.h).
 * The process must ignore SIGPIPE.
 *
 * A pipe that was opened again still has the original descriptor as a reader or writer. A program that wants its peer to notice
 * that the guest closed its stdin closes its own descriptor 0 after session_create().
 */
#ifndef TRVMM_VMM_STDIO_H
#define TRVMM_VMM_STDIO_H

struct relay_job;

struct stdio_end {
	int fd; /* does not block, CLOEXEC; owned by the caller */
	int done_fd; /* writing through a thread: hung up (EPOLLHUP) when that has written all and ended; owned likewise. Else -1 */
	struct relay_job *waiting; /* the thread's work, until it is started; NULL: there is none, or it runs */
};

/* Makes an end to read from or write to `fd` (borrowed). Returns 0 or -errno; `end` is untouched then. */
int stdio_open_read(int fd, struct stdio_end *end);
int stdio_open_write(int fd, struct stdio_end *end);

/* The same, but a thread that is needed is not started before stdio_start(), which returns 0 or -errno, and does nothing for other ends. */
int stdio_prepare_read(int fd, struct stdio_end *end);
int stdio_prepare_write(int fd, struct stdio_end *end);
int stdio_start(struct stdio_end *end);
/* Forgets the thread that was not started, if there is one. */
void stdio_discard(struct stdio_end *end);

/*
 * An end of what another process has sent us: files that never wait, and pipes, as they are. Pipes should not block. Needs no thread and
 * opens nothing. Returns 0, -EINVAL for anything else, or -errno.
 */
int stdio_take(int fd, struct stdio_end *end);

/* As stdio_open_*(), but always with a pipe and a thread: for an end that goes to another process, which must not touch what `fd` is. */
int stdio_relay_read(int fd, struct stdio_end *end);
int stdio_relay_write(int fd, struct stdio_end *end);

#endif
