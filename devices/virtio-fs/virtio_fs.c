/*
 * The queues of virtio-fs and the threads that serve them; see virtio_fs.h.
 *
 * All of the device's state is under one lock, which is given up while the server works. How the lead changes:
 *
 *   called       a request that may take long begins, and others wait behind it: the leader gives up the lead and calls a thread. If
 *                it is back before one has come it keeps the lead.
 *   taken        a thread watches while requests are served, and takes the lead from a leader that it finds in the same request twice.
 *
 * Nothing of this is seen by the transport: its callbacks run on the loop, which goes with the lead (loop_take_over()). A leader loses it
 * only while the server works, within notify, behind which nothing else is touched.
 */
#include "devices/virtio-fs/virtio_fs.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "base/iov.h"
#include "base/thread.h"
#include "devices/virtio/shm_bounce.h"

#define QUEUE_HIPRIO 0
#define QUEUE_REQUEST 1
#define QUEUES 2
#define HIPRIO_SIZE 128
/* Linux makes no request longer than the queue, and one of 1 MiB has 256 buffers besides its headers. */
#define REQUEST_SIZE VIRTQ_MAX_SIZE
/* Requests that one notification takes before the loop does something else. */
#define DRAIN_MAX 1024

#define WATCH_NS 1000000 /* a leader that is in one request for as long, or twice that, is replaced */
#define WATCH_IDLE_MAX 4 /* looks without a request between, after which nobody watches */

static_assert(VIRTIO_FS_SHMCAP_ID_CACHE == 0, "a device's one region has id 0");
static_assert(FS_WINDOW_BYTES % VIRTIO_SHM_ALIGN == 0, "virtio_device.h");
static_assert(sizeof(((struct virtio_fs_config *)NULL)->tag) == VIRTIO_FS_TAG_BYTES, "5.11.4");

struct fs_thread {
	struct virtio_fs *fs;
	pthread_t thread;
	struct virtq_chain chain; /* the request that it serves */
};

struct virtio_fs {
	struct virtio_device dev; /* first: callbacks get a pointer to it */
	struct fs_server *server; /* borrowed */
	struct virtio_fs_config config;
	struct loop_source looks; /* a timer, while files are mapped; -1: the server has no window */

	pthread_mutex_t lock; /* guards the queues and what follows */
	struct fs_thread *threads[VIRTIO_FS_THREADS_MAX]; /* owned */
	unsigned thread_count;
	struct fs_thread *leader; /* NULL: it was given up, and whoever comes first has it */
	struct fs_thread *runner; /* who runs the loop, or did last: the leader, if there is one */
	struct fs_thread *watcher; /* NULL: nobody watches */
	bool watch_wanted;
	bool looking; /* `looks` is set */
	bool serving; /* the leader is in a request */
	uint64_t served; /* requests that leaders began */
	unsigned in_flight; /* requests that were popped and not pushed */
	unsigned waiting; /* threads in `called` */
	bool calling; /* one was woken, or made, and has not come yet */
	bool failed, stopping;
	bool entered; /* the first thread is ready to serve, or has failed */
	int enter_result;
	void (*confine)(void); /* NULL: not wanted */
	struct throttle throttle;
	bool kicked[QUEUES]; /* since the device was activated */
	pthread_cond_t called;
	pthread_cond_t settled; /* in_flight is 0, or `entered` */
};

static void *thread_main(void *arg);

static int start_thread(struct virtio_fs *fs)
{
	if (fs->thread_count == VIRTIO_FS_THREADS_MAX)
		return -EAGAIN;
	struct fs_thread *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	self->fs = fs;
	const int result = thread_start(&self->thread, thread_main, self);
	if (result < 0) {
		free(self);
		return result;
	}
	fs->threads[fs->thread_count++] = self;
	return 0;
}

/* Brings a thread that sees what is to be done. Where there can be none more, those that are there do it when they are free. */
static void call_thread(struct virtio_fs *fs)
{
	if (fs->calling)
		return;
	if (fs->waiting) {
		fs->calling = true;
		pthread_cond_signal(&fs->called);
	} else {
		fs->calling = start_thread(fs) == 0;
	}
}

/* ---- requests -------------------------------------------------------------------------------------------------------------------- */

/* Whether a request may take long: reads and writes data, or waits for the disk. Names and attributes are mostly in memory. */
static bool may_take_long(const struct virtq_chain *chain)
{
	struct fuse_in_header header = { .opcode = 0 };
	if (chain->shm)
		return true;
	iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &header, sizeof(header));
	switch (header.opcode) {
	case FUSE_READ:
	case FUSE_WRITE:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_SYNCFS:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
	case FUSE_SETLKW:
		return true;
	default:
		return false;
	}
}

/* What the request has to wait for those before it. With the lock, so that each waits for all others. */
static uint64_t charge(struct virtio_fs *fs, const struct virtq_chain *chain)
{
	if (!throttle_is_on(&fs->throttle))
		return 0;
	const uint64_t now_ns = throttle_now_ns(), wait_ns = throttle_wait_ns(&fs->throttle, now_ns);
	throttle_charge(&fs->throttle, (uint64_t)chain->readable_bytes + chain->writable_bytes, now_ns);
	return wait_ns;
}

/* ---- the window ------------------------------------------------------------------------------------------------------------------- */

/* Begins or ceases to look after what is mapped. With the lock. */
static void set_looks(struct virtio_fs *fs)
{
	const bool wanted = fs->looks.fd >= 0 && fs_server_maps(fs->server);
	if (wanted == fs->looking)
		return;
	const struct timespec pause = { .tv_nsec = wanted ? 1000000000 / VIRTIO_FS_LOOKS_A_SECOND : 0 };
	fs->looking = wanted;
	timerfd_settime(fs->looks.fd, 0, &(struct itimerspec){ .it_interval = pause, .it_value = pause }, NULL);
}

static void look(struct loop_source *source, uint32_t events)
{
	struct virtio_fs *fs = (struct virtio_fs *)((char *)source - offsetof(struct virtio_fs, looks));
	uint64_t times;
	(void)events;
	if (read(source->fd, &times, sizeof(times)) == (ssize_t)sizeof(times))
		fs_server_look_at_window(fs->server);
}

static bool fs_shm_touched(struct virtio_device *dev)
{
	return fs_server_look_at_window(((struct virtio_fs *)dev)->server);
}

static int add_window(struct virtio_fs *fs)
{
	void *window = fs_server_window(fs->server);
	if (!window)
		return 0;
	fs->dev.shm = (struct virtio_shm){ .host = window, .bytes = FS_WINDOW_BYTES };
	fs->looks.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	return fs->looks.fd < 0 ? -errno : loop_add(fs->dev.loop, &fs->looks);
}

/* ---- serving ---------------------------------------------------------------------------------------------------------------------- */

/* The answer to a request of which not all could be read, or written. Returns its length. */
static ssize_t answer_fault(const struct virtq_chain *chain)
{
	struct fuse_in_header header = { .unique = 0 };
	iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &header, sizeof(header));
	const struct fuse_out_header answer = { .len = sizeof(answer), .error = -EFAULT, .unique = header.unique };
	return (ssize_t)iov_copy_in(virtq_writable(chain), chain->writable_count, 0, &answer, sizeof(answer));
}

static ssize_t handle(struct virtio_fs *fs, const struct virtq_chain *chain)
{
	return fs_server_handle(fs->server, virtq_readable(chain), chain->readable_count, virtq_writable(chain),
				chain->writable_count);
}

/* The same for a chain that is in part a file which the guest has mapped: a program there writes from it, or reads to it. */
static ssize_t handle_bounced(struct virtio_fs *fs, struct virtq_chain *chain)
{
	struct shm_bounce bounce;
	const int failure = shm_bounce_begin(fs->dev.mem, chain, &bounce);
	ssize_t written = failure == -EFAULT ? answer_fault(chain) : failure ? 0 : handle(fs, chain);
	if (written > 0 && shm_bounce_copy_back(chain, &bounce, (uint32_t)written) < 0) {
		written = answer_fault(chain);
		(void)shm_bounce_copy_back(chain, &bounce, (uint32_t)written);
	}
	shm_bounce_end(&bounce);
	return written;
}

/* Serves the request in the leader's chain. With the lock, which is given up meanwhile. Returns false when the lead was lost. */
static bool serve(struct virtio_fs *fs, struct fs_thread *self, unsigned index)
{
	struct virtq_chain *chain = &self->chain;
	struct virtq *q = &fs->dev.queues[index];

	fs->in_flight++;
	fs->served++;
	fs->serving = true;
	if (virtq_has_avail(q) && may_take_long(chain)) {
		fs->leader = NULL;
		call_thread(fs);
	} else if (!fs->watcher) {
		fs->watch_wanted = true;
		call_thread(fs);
	}
	const uint64_t wait_ns = charge(fs, chain);
	pthread_mutex_unlock(&fs->lock);
	if (wait_ns)
		throttle_sleep(wait_ns);
	const ssize_t written = chain->shm ? handle_bounced(fs, chain) : handle(fs, chain);
	pthread_mutex_lock(&fs->lock);
	fs->in_flight--;
	set_looks(fs);
	if (!fs->failed) {
		/* What cannot be answered just goes back. */
		virtq_push(q, chain->head, written > 0 ? (uint32_t)written : 0);
		virtio_device_notify_driver(&fs->dev, index);
	}
	if (fs->in_flight == 0)
		pthread_cond_broadcast(&fs->settled);
	if (!fs->leader && fs->runner == self)
		fs->leader = self;
	if (fs->leader != self)
		return false;
	fs->serving = false;
	return true;
}

/* Serves what is in queue `index`. With the lock. Returns false when the lead was lost. */
static bool drain(struct virtio_fs *fs, struct fs_thread *self, unsigned index)
{
	struct virtq *q = &fs->dev.queues[index];
	unsigned taken = 0;

	if (fs->failed)
		return true;
	do {
		int popped;
		virtq_want_kicks(q, false);
		while (taken < DRAIN_MAX && (popped = virtq_pop(q, &self->chain)) != 0) {
			if (popped < 0) {
				fs->failed = true;
				virtio_device_fail(&fs->dev, "the guest's virtqueue is malformed");
				return true;
			}
			taken++;
			if (!serve(fs, self, index))
				return false;
		}
	} while (taken < DRAIN_MAX && virtq_want_kicks(q, true));
	if (taken >= DRAIN_MAX)
		fs->dev.kick(&fs->dev, index);
	return true;
}

static void settle(struct virtio_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	while (fs->in_flight)
		pthread_cond_wait(&fs->settled, &fs->lock);
	pthread_mutex_unlock(&fs->lock);
}

/* ---- callbacks of the transport, on the leader ----------------------------------------------------------------------------------- */

static int fs_activate(struct virtio_device *dev)
{
	struct virtio_fs *fs = (struct virtio_fs *)dev;
	fs->kicked[QUEUE_HIPRIO] = fs->kicked[QUEUE_REQUEST] = false;
	return 0;
}

static void fs_settle(struct virtio_device *dev)
{
	settle((struct virtio_fs *)dev);
}

static void fs_reset(struct virtio_device *dev)
{
	struct virtio_fs *fs = (struct virtio_fs *)dev;
	settle(fs);
	fs_server_reset(fs->server);
	pthread_mutex_lock(&fs->lock);
	set_looks(fs);
	fs->failed = false;
	pthread_mutex_unlock(&fs->lock);
}

static void fs_notify(struct virtio_device *dev, unsigned index)
{
	struct virtio_fs *fs = (struct virtio_fs *)dev;
	/* The first call may come from within the activation, which goes on behind it: no place to lose the lead. */
	if (!fs->kicked[index]) {
		fs->kicked[index] = true;
		dev->kick(dev, index);
		return;
	}
	pthread_mutex_lock(&fs->lock);
	drain(fs, fs->leader, index);
	pthread_mutex_unlock(&fs->lock);
}

static const struct virtio_device_ops fs_ops = {
	.name = "virtio-fs",
	.device_id = VIRTIO_ID_FS,
	.queue_count = QUEUES,
	.queue_size_max = { HIPRIO_SIZE, REQUEST_SIZE },
	.activate = fs_activate,
	.reset = fs_reset,
	.settle = fs_settle,
	.notify = fs_notify,
	.shm_touched = fs_shm_touched,
	.takes_shm = true,
};

/* ---- threads --------------------------------------------------------------------------------------------------------------------- */

/* With the lock. Returns when the lead was lost, or the loop stopped. */
static void lead(struct virtio_fs *fs, struct fs_thread *self)
{
	fs->leader = fs->runner = self;
	fs->serving = false;
	loop_take_over(fs->dev.loop);
	/* The former leader had asked the driver for silence. */
	bool leads = true;
	for (unsigned i = 0; leads && i < QUEUES; i++)
		leads = !fs->dev.active || drain(fs, self, i);
	pthread_mutex_unlock(&fs->lock);
	if (leads)
		loop_run(fs->dev.loop);
	pthread_mutex_lock(&fs->lock);
}

/* Waits for a call, or `for_ns`. With the lock. */
static void wait_for_call(struct virtio_fs *fs, uint64_t for_ns)
{
	struct timespec until;
	fs->waiting++;
	if (for_ns) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		const uint64_t ns = (uint64_t)until.tv_nsec + for_ns;
		until.tv_sec += (time_t)(ns / 1000000000u);
		until.tv_nsec = (long)(ns % 1000000000u);
		pthread_cond_timedwait(&fs->called, &fs->lock, &until);
	} else {
		pthread_cond_wait(&fs->called, &fs->lock);
	}
	fs->waiting--;
	fs->calling = false;
}

/* Looks after the leader until there is none, or nothing to do. With the lock. */
static void watch(struct virtio_fs *fs, struct fs_thread *self)
{
	uint64_t seen = fs->served;

	fs->watcher = self;
	fs->watch_wanted = false;
	for (unsigned idle = 0; idle < WATCH_IDLE_MAX && fs->leader && !fs->stopping;) {
		wait_for_call(fs, WATCH_NS);
		if (fs->served != seen)
			idle = 0;
		else if (!fs->serving)
			idle++;
		else
			fs->leader = NULL;
		seen = fs->served;
	}
	fs->watcher = NULL;
}

static void *thread_main(void *arg)
{
	struct fs_thread *self = arg;
	struct virtio_fs *fs = self->fs;

	const int result = fs_server_enter_thread();
	pthread_mutex_lock(&fs->lock);
	fs->calling = false;
	if (!fs->entered) {
		if (result == 0 && fs->confine)
			fs->confine();
		fs->entered = true;
		fs->enter_result = result;
		pthread_cond_broadcast(&fs->settled);
	}
	/* A later one that cannot serve leaves the work to those that can. */
	while (result == 0 && !fs->stopping) {
		if (!fs->leader)
			lead(fs, self);
		else if (fs->watch_wanted && !fs->watcher)
			watch(fs, self);
		else
			wait_for_call(fs, 0);
	}
	pthread_mutex_unlock(&fs->lock);
	return NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

int virtio_fs_create(const struct guest_mem *mem, struct fs_server *server, const char *tag, struct virtio_fs **result)
{
	const size_t length = strlen(tag);
	if (length == 0 || length > VIRTIO_FS_TAG_BYTES)
		return -EINVAL;
	struct virtio_fs *fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->server = server;
	/* Without an ending 0 when it is as long as its place. */
	for (size_t i = 0; i < length; i++)
		fs->config.tag[i] = (uint8_t)tag[i];
	fs->config.num_request_queues = htole32(1);
	fs->looks = (struct loop_source){ .fd = -1, .events = EPOLLIN, .ready = look };
	fs->dev = (struct virtio_device){
		.ops = &fs_ops,
		.loop = loop_create(),
		.mem = mem,
		.config = &fs->config,
		.config_bytes = sizeof(fs->config),
	};
	pthread_condattr_t attributes;
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&fs->called, &attributes);
	pthread_condattr_destroy(&attributes);
	pthread_cond_init(&fs->settled, NULL);
	pthread_mutex_init(&fs->lock, NULL);
	const int failure = fs->dev.loop ? add_window(fs) : -errno;
	if (failure) {
		virtio_fs_destroy(fs);
		return failure;
	}
	*result = fs;
	return 0;
}

void virtio_fs_set_limit(struct virtio_fs *fs, const struct throttle_limit *limit)
{
	throttle_init(&fs->throttle, limit);
}

void virtio_fs_set_confine(struct virtio_fs *fs, void (*confine)(void))
{
	fs->confine = confine;
}

int virtio_fs_start(struct virtio_fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	int result = start_thread(fs);
	while (result == 0 && !fs->entered)
		pthread_cond_wait(&fs->settled, &fs->lock);
	if (result == 0)
		result = fs->enter_result;
	pthread_mutex_unlock(&fs->lock);
	return result;
}

void virtio_fs_destroy(struct virtio_fs *fs)
{
	if (!fs)
		return;
	pthread_mutex_lock(&fs->lock);
	fs->stopping = true;
	pthread_cond_broadcast(&fs->called);
	pthread_mutex_unlock(&fs->lock);
	if (fs->dev.loop)
		loop_stop(fs->dev.loop);
	for (unsigned i = 0; i < fs->thread_count; i++) {
		pthread_join(fs->threads[i]->thread, NULL);
		free(fs->threads[i]);
	}
	loop_destroy(fs->dev.loop);
	if (fs->looks.fd >= 0)
		close(fs->looks.fd);
	pthread_cond_destroy(&fs->settled);
	pthread_cond_destroy(&fs->called);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

struct virtio_device *virtio_fs_device(struct virtio_fs *fs)
{
	return &fs->dev;
}
