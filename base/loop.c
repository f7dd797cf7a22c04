/* An event loop over epoll; see loop.h. */
#include "base/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/container.h"

#define LOOP_BATCH 32 /* events fetched at once */

struct loop_call_item {
	void (*fn)(void *arg);
	void *arg;
	bool done;
	struct loop_call_item *next;
};

struct loop {
	int epoll_fd;
	_Atomic bool stopping;
	_Atomic unsigned turn; /* counts the threads that ran it: one whose turn is over leaves */
	struct loop_source wake; /* eventfd: a call waits, or stop */
	/* The events of the round that is being dispatched; loop_remove() blanks those of a removed source. */
	struct epoll_event *batch;
	int batch_count, batch_next;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t finished;
	struct loop_call_item *calls;
	bool running;
	pthread_t thread;
};

static void loop_run_calls(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	const unsigned turn = atomic_load(&loop->turn);
	while (loop->calls && atomic_load(&loop->turn) == turn) {
		struct loop_call_item *item = loop->calls;
		loop->calls = item->next;
		pthread_mutex_unlock(&loop->lock);
		item->fn(item->arg);
		pthread_mutex_lock(&loop->lock);
		item->done = true;
		pthread_cond_broadcast(&loop->finished);
	}
	pthread_mutex_unlock(&loop->lock);
}

static void loop_woken(struct loop_source *source, uint32_t events)
{
	(void)events;
	struct loop *loop = container_of(source, struct loop, wake);
	eventfd_t count;
	/* Non-blocking; that nothing was there is no news. */
	(void)!eventfd_read(source->fd, &count);
	loop_run_calls(loop);
}

struct loop *loop_create(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	if (!loop)
		return NULL;
	loop->wake.fd = -1;
	pthread_mutex_init(&loop->lock, NULL);
	pthread_cond_init(&loop->finished, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		goto fail;
	loop->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake.fd < 0)
		goto fail;
	loop->wake.events = EPOLLIN;
	loop->wake.ready = loop_woken;
	if (loop_add(loop, &loop->wake) < 0)
		goto fail;
	return loop;
fail:
	loop_destroy(loop);
	return NULL;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	if (loop->wake.fd >= 0)
		close(loop->wake.fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	pthread_cond_destroy(&loop->finished);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

int loop_add(struct loop *loop, struct loop_source *source)
{
	struct epoll_event event = { .events = source->events, .data.ptr = source };
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

int loop_modify(struct loop *loop, struct loop_source *source, uint32_t events)
{
	if (source->events == events)
		return 0;
	struct epoll_event event = { .events = events, .data.ptr = source };
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
		return -errno;
	source->events = events;
	return 0;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	/* ENOENT and EBADF: it was not registered. */
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = loop->batch_next; i < loop->batch_count; i++)
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
}

static void loop_dispatch(struct loop *loop, unsigned turn)
{
	while (loop->batch_next < loop->batch_count && !atomic_load(&loop->stopping)) {
		const struct epoll_event event = loop->batch[loop->batch_next++];
		struct loop_source *source = event.data.ptr;
		if (source)
			source->ready(source, event.events);
		/* The other thread has a batch of its own; what was left of this one is reported anew, but for EPOLLET sources. */
		if (atomic_load(&loop->turn) != turn)
			return;
	}
	loop->batch_count = 0;
}

/* Called with the lock held. */
static unsigned loop_begin_turn(struct loop *loop)
{
	loop->running = true;
	loop->thread = pthread_self();
	return atomic_fetch_add(&loop->turn, 1) + 1;
}

int loop_run(struct loop *loop)
{
	struct epoll_event batch[LOOP_BATCH];
	int result = 0;

	pthread_mutex_lock(&loop->lock);
	const unsigned turn = loop_begin_turn(loop);
	loop->batch = batch;
	loop->batch_count = loop->batch_next = 0;
	pthread_mutex_unlock(&loop->lock);
	while (!atomic_load(&loop->stopping)) {
		const int count = epoll_wait(loop->epoll_fd, batch, LOOP_BATCH, -1);
		if (count < 0 && errno == EINTR)
			continue;
		if (count < 0) {
			result = -errno;
			break;
		}
		loop->batch_count = count;
		loop->batch_next = 0;
		loop_dispatch(loop, turn);
		if (atomic_load(&loop->turn) != turn)
			return 0;
	}
	pthread_mutex_lock(&loop->lock);
	loop->running = false;
	loop->batch = NULL;
	pthread_mutex_unlock(&loop->lock);
	return result;
}

int loop_poll(struct loop *loop)
{
	struct epoll_event batch[LOOP_BATCH];

	pthread_mutex_lock(&loop->lock);
	const unsigned turn = loop_begin_turn(loop);
	loop->batch = batch;
	loop->batch_count = loop->batch_next = 0;
	pthread_mutex_unlock(&loop->lock);
	const int count = epoll_wait(loop->epoll_fd, batch, LOOP_BATCH, 0);
	const int result = count < 0 && errno != EINTR ? -errno : 0;
	loop->batch_count = count > 0 ? count : 0;
	loop_dispatch(loop, turn);
	pthread_mutex_lock(&loop->lock);
	loop->running = false;
	loop->batch = NULL;
	pthread_mutex_unlock(&loop->lock);
	return result;
}

void loop_take_over(struct loop *loop)
{
	pthread_mutex_lock(&loop->lock);
	loop_begin_turn(loop);
	/* The other thread may have been woken for calls that it does not get to. */
	if (loop->calls)
		eventfd_write(loop->wake.fd, 1);
	pthread_mutex_unlock(&loop->lock);
}

void loop_stop(struct loop *loop)
{
	atomic_store(&loop->stopping, true);
	eventfd_write(loop->wake.fd, 1);
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct loop_call_item item = { .fn = fn, .arg = arg };

	pthread_mutex_lock(&loop->lock);
	if (loop->running && pthread_equal(loop->thread, pthread_self())) {
		pthread_mutex_unlock(&loop->lock);
		fn(arg);
		return;
	}
	struct loop_call_item **tail = &loop->calls;
	while (*tail)
		tail = &(*tail)->next;
	*tail = &item;
	eventfd_write(loop->wake.fd, 1);
	while (!item.done)
		pthread_cond_wait(&loop->finished, &loop->lock);
	pthread_mutex_unlock(&loop->lock);
}
