/*
 * An event loop over epoll, one per thread that serves devices.
 *
 * Everything that is registered with a loop is called on the loop's thread only, so what hangs on one loop needs no lock. Other
 * threads reach it in two ways: by an eventfd that is one of its sources, and by loop_call(), which runs a function there and waits.
 */
#ifndef TRVMM_BASE_LOOP_H
#define TRVMM_BASE_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;

/*
 * A file descriptor and what to do when it is ready. Embedded in its owner; the loop borrows it from loop_add() to loop_remove().
 * `ready` gets the EPOLL* bits; it may remove this source or any other, and free its owner afterwards: an event that was already
 * fetched for a removed source is dropped.
 */
struct loop_source {
	int fd;             /* borrowed; close it after loop_remove() */
	uint32_t events;    /* EPOLLIN, EPOLLOUT, ... currently watched; level-triggered unless EPOLLET is given */
	void (*ready)(struct loop_source *source, uint32_t events);
};

/* Creates a loop (no thread yet). Returns NULL and errno on failure. */
struct loop *loop_create(void);

/* Frees the loop; nothing may be running it. NULL is allowed. Sources are forgotten, not closed. */
void loop_destroy(struct loop *loop);

/* Watches `source`. Returns 0 or -errno. On the loop's thread, or before it runs. */
int loop_add(struct loop *loop, struct loop_source *source);

/* Changes the watched events. A source with events == 0 still reports EPOLLHUP and EPOLLERR. No system call when nothing changes. */
int loop_modify(struct loop *loop, struct loop_source *source, uint32_t events);

/* Forgets `source`; after the return its `ready` is not called any more. A source that is not registered is ignored. */
void loop_remove(struct loop *loop, struct loop_source *source);

/* Dispatches what is ready now, once, and does not wait: for who has more to do on this thread. Returns 0 or -errno of epoll_wait. */
int loop_poll(struct loop *loop);

/* Dispatches events on this thread until loop_stop() or loop_take_over(). Returns 0 or -errno of epoll_wait. */
int loop_run(struct loop *loop);

/*
 * Makes this thread the loop's, which has to call loop_run() next. The thread that was it until now must be inside a callback that does not
 * touch the loop any more (it waits for the host, say); it returns from loop_run() when that callback returns. So the sources of a loop are
 * served on while one of them blocks; but an event of an EPOLLET source that was fetched and not served is not told again, so the new
 * thread looks at such sources itself, first. What keeps two threads from doing this at a time, or at any other moment, is the callers'
 * affair.
 */
void loop_take_over(struct loop *loop);

/* Makes loop_run() return after the current callback, and at once from then on. From any thread. */
void loop_stop(struct loop *loop);

/*
 * Runs fn(arg) on the loop's thread and returns when it has returned. From any thread but the loop's own, where it calls fn at
 * once. The loop must be running or about to run. Must not be called with a lock held that a callback of the loop takes.
 */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);

#endif
