/*
 * devices/virtio-fs/virtio_fs.c: requests and answers, threads that take over from one another, reset. The server is a stand-in that does
 * what the request's node id says.
 */
#include "devices/virtio-fs/virtio_fs.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/fuse.h>
#include <linux/virtio_config.h>
#include <linux/virtio_fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/iov.h"
#include "tests/unit/fake_driver.h"

#define RAM_BYTES (1u << 20)
#define QUEUE_SIZE 128u
#define HIPRIO 0
#define REQUEST 1
#define REQUESTS_AT (FAKE_RAM_BASE + 0x40000)
#define SLOT_BYTES 256u

/* ---- the server ---- */

enum node {
	NODE_ANSWER = 1,
	NODE_GATE, /* answers when the gate is open */
	NODE_SLEEP, /* ... a little later */
	NODE_NOTHING, /* no answer */
	NODE_PROTOCOL, /* can have no answer */
};

static pthread_mutex_t gate_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static bool gate_open;
static unsigned gate_waiting;
static int enter_result;
static _Atomic unsigned under_way, most_under_way, resets;

static void set_gate(bool open)
{
	pthread_mutex_lock(&gate_lock);
	gate_open = open;
	pthread_cond_broadcast(&gate_changed);
	pthread_mutex_unlock(&gate_lock);
}

static void wait_at_gate(void)
{
	pthread_mutex_lock(&gate_lock);
	gate_waiting++;
	while (!gate_open)
		pthread_cond_wait(&gate_changed, &gate_lock);
	gate_waiting--;
	pthread_mutex_unlock(&gate_lock);
}

static unsigned waiting_at_gate(void)
{
	pthread_mutex_lock(&gate_lock);
	const unsigned waiting = gate_waiting;
	pthread_mutex_unlock(&gate_lock);
	return waiting;
}

ssize_t fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
			 size_t out_count)
{
	struct fuse_in_header header = { .len = 0 };
	(void)server;
	const unsigned now = atomic_fetch_add(&under_way, 1) + 1;
	for (unsigned most = atomic_load(&most_under_way);
	     most < now && !atomic_compare_exchange_weak(&most_under_way, &most, now);)
		;
	iov_copy_out(in, (unsigned)in_count, 0, &header, sizeof(header));
	if (header.nodeid == NODE_GATE)
		wait_at_gate();
	if (header.nodeid == NODE_SLEEP)
		usleep(200 + (unsigned)(header.unique % 7) * 300);
	const struct fuse_out_header answer = { .len = sizeof(answer), .unique = header.unique };
	ssize_t result = header.nodeid == NODE_PROTOCOL ? -EPROTO : 0;
	if (header.nodeid != NODE_NOTHING && header.nodeid != NODE_PROTOCOL)
		result = (ssize_t)iov_copy_in(out, (unsigned)out_count, 0, &answer, sizeof(answer));
	atomic_fetch_sub(&under_way, 1);
	return result;
}

static uint8_t window[1];
static bool has_window;
static atomic_bool maps, look_result;
static _Atomic unsigned looks;

void *fs_server_window(const struct fs_server *server)
{
	(void)server;
	return has_window ? window : NULL;
}

bool fs_server_maps(const struct fs_server *server)
{
	(void)server;
	return atomic_load(&maps);
}

bool fs_server_look_at_window(struct fs_server *server)
{
	(void)server;
	atomic_fetch_add(&looks, 1);
	return atomic_load(&look_result);
}

int fs_server_enter_thread(void)
{
	return enter_result;
}

void fs_server_reset(struct fs_server *server)
{
	(void)server;
	cr_assert_eq(atomic_load(&under_way), 0, "reset with a request under way");
	atomic_fetch_add(&resets, 1);
}

/* ---- the device and its driver ---- */

struct kick {
	struct loop_source source; /* first */
	struct rig *rig;
	unsigned queue;
};

struct rig {
	struct fake_ram ram;
	struct fake_queue queues[2];
	struct virtio_fs *fs;
	struct virtio_device *dev;
	struct kick kicks[2];
	_Atomic unsigned interrupts;
};

static void on_interrupt(struct virtio_device *dev)
{
	struct rig *rig = dev->wiring;
	atomic_fetch_add(&rig->interrupts, 1);
}

static void on_kick(struct virtio_device *dev, unsigned queue)
{
	struct rig *rig = dev->wiring;
	eventfd_write(rig->kicks[queue].source.fd, 1);
}

static void kicked(struct loop_source *source, uint32_t events)
{
	struct kick *kick = (struct kick *)source;
	eventfd_t count;
	(void)events;
	(void)!eventfd_read(source->fd, &count);
	if (kick->rig->dev->active)
		kick->rig->dev->ops->notify(kick->rig->dev, kick->queue);
}

/* As the transport does it. */
static void activate_now(void *arg)
{
	struct rig *rig = arg;
	rig->dev->active = true;
	for (unsigned i = 0; i < 2; i++) {
		const struct virtq_config config = fake_queue_config(&rig->queues[i]);
		cr_assert_eq(virtq_enable(&rig->dev->queues[i], &rig->ram.mem, &config, false), 0);
	}
	cr_assert_eq(rig->dev->ops->activate(rig->dev), 0);
	for (unsigned i = 0; i < 2; i++)
		if (virtq_has_avail(&rig->dev->queues[i]))
			rig->dev->ops->notify(rig->dev, i);
}

static void reset_now(void *arg)
{
	struct rig *rig = arg;
	rig->dev->active = false;
	rig->dev->ops->reset(rig->dev);
	for (unsigned i = 0; i < 2; i++)
		virtq_disable(&rig->dev->queues[i]);
}

static void clear_queues(struct rig *rig)
{
	const gpa_t end = fake_queue_init(&rig->queues[0], &rig->ram, FAKE_RAM_BASE, QUEUE_SIZE);
	cr_assert(fake_queue_init(&rig->queues[1], &rig->ram, end, QUEUE_SIZE) < REQUESTS_AT);
}

static void rig_init(struct rig *rig, const char *tag)
{
	*rig = (struct rig){ .fs = NULL };
	set_gate(false);
	atomic_store(&resets, 0);
	atomic_store(&most_under_way, 0);
	fake_ram_init(&rig->ram, RAM_BYTES);
	clear_queues(rig);
	cr_assert_eq(virtio_fs_create(&rig->ram.mem, NULL, tag, &rig->fs), 0);
	rig->dev = virtio_fs_device(rig->fs);
	rig->dev->wiring = rig;
	rig->dev->interrupt = on_interrupt;
	rig->dev->kick = on_kick;
	for (unsigned i = 0; i < 2; i++) {
		rig->kicks[i] = (struct kick){ .source = { .fd = eventfd(0, EFD_NONBLOCK), .events = EPOLLIN, .ready = kicked },
					       .rig = rig,
					       .queue = i };
		cr_assert_eq(loop_add(rig->dev->loop, &rig->kicks[i].source), 0);
	}
	cr_assert_eq(virtio_fs_start(rig->fs), 0);
}

static void rig_activate(struct rig *rig)
{
	loop_call(rig->dev->loop, activate_now, rig);
}

static void rig_reset(struct rig *rig)
{
	loop_call(rig->dev->loop, reset_now, rig);
}

static void rig_destroy(struct rig *rig)
{
	set_gate(true);
	virtio_fs_destroy(rig->fs);
	for (unsigned i = 0; i < 2; i++)
		close(rig->kicks[i].source.fd);
	fake_ram_destroy(&rig->ram);
}

static gpa_t slot(unsigned index)
{
	return REQUESTS_AT + index * SLOT_BYTES;
}

/* Request `index` of queue 1 is at descriptors 2 * index and the one behind; its unique number is index + 1000. */
static void put(struct rig *rig, unsigned index, uint32_t opcode, enum node node)
{
	struct fake_queue *q = &rig->queues[REQUEST];
	const struct fuse_in_header header = { .len = sizeof(header), .opcode = opcode, .unique = 1000 + index, .nodeid = node };
	memcpy(fake_at(&rig->ram, slot(index)), &header, sizeof(header));
	memset(fake_at(&rig->ram, slot(index) + 128), 0, 128);
	fake_desc(q, 2 * index, slot(index), sizeof(header), FAKE_NEXT, 2 * index + 1);
	fake_desc(q, 2 * index + 1, slot(index) + 128, 128, FAKE_WRITE, 0);
	fake_publish(q, (uint16_t)(2 * index));
}

static void notify(struct rig *rig, unsigned queue)
{
	on_kick(rig->dev, queue);
}

/* Waits for the next chain of a queue that comes back. Returns its head, or -1 after two seconds. */
static int take(struct rig *rig, unsigned queue, uint32_t *length)
{
	struct fake_queue *q = &rig->queues[queue];
	for (unsigned i = 0; i < 20000; i++) {
		uint32_t head;
		if (fake_used(q, &head, length))
			return (int)head;
		usleep(100);
	}
	return -1;
}

static void expect_answer(struct rig *rig, unsigned index)
{
	uint32_t length = 0;
	struct fuse_out_header answer;
	cr_assert_eq(take(rig, REQUEST, &length), (int)(2 * index));
	cr_assert_eq(length, sizeof(answer));
	memcpy(&answer, fake_at(&rig->ram, slot(index) + 128), sizeof(answer));
	cr_assert_eq(answer.unique, 1000 + index);
}

static void expect_nothing(struct rig *rig)
{
	struct fake_queue *q = &rig->queues[REQUEST];
	usleep(20000);
	cr_assert_eq(fake_load16(&rig->ram, q->used + 2), q->used_seen);
}

static void wait_until_waiting(unsigned count)
{
	for (unsigned i = 0; i < 20000 && waiting_at_gate() != count; i++)
		usleep(100);
	cr_assert_eq(waiting_at_gate(), count);
}

/* ---- tests ---- */

Test(virtio_fs, configuration_space_has_the_tag_and_one_request_queue)
{
	struct fake_ram ram;
	struct virtio_fs *fs;
	fake_ram_init(&ram, 4096);
	const char *longest = "123456789-123456789-123456789-123456";
	cr_assert_eq(virtio_fs_create(&ram.mem, NULL, "share", &fs), 0);
	const struct virtio_device *dev = virtio_fs_device(fs);
	const struct virtio_fs_config *config = dev->config;
	cr_assert_eq(dev->ops->device_id, 26);
	cr_assert_eq(dev->config_bytes, 40);
	cr_assert_eq(memcmp(config->tag, "share\0\0", 7), 0);
	cr_assert_eq(le32toh(config->num_request_queues), 1);
	cr_assert_eq(dev->device_features, 0, "no notifications");
	virtio_fs_destroy(fs);
	cr_assert_eq(virtio_fs_create(&ram.mem, NULL, longest, &fs), 0);
	cr_assert_eq(memcmp(((const struct virtio_fs_config *)virtio_fs_device(fs)->config)->tag, longest, 36), 0);
	virtio_fs_destroy(fs);
	cr_assert_eq(virtio_fs_create(&ram.mem, NULL, "", &fs), -EINVAL);
	cr_assert_eq(virtio_fs_create(&ram.mem, NULL, "123456789-123456789-123456789-1234567", &fs), -EINVAL);
	fake_ram_destroy(&ram);
}

Test(virtio_fs, a_thread_that_cannot_serve_is_told_of_at_the_start)
{
	struct fake_ram ram;
	struct virtio_fs *fs;
	fake_ram_init(&ram, 4096);
	cr_assert_eq(virtio_fs_create(&ram.mem, NULL, "share", &fs), 0);
	enter_result = -EPERM;
	cr_assert_eq(virtio_fs_start(fs), -EPERM);
	virtio_fs_destroy(fs);
	enter_result = 0;
	fake_ram_destroy(&ram);
}

Test(virtio_fs, a_request_is_answered_and_interrupts)
{
	struct rig rig;
	rig_init(&rig, "a");
	rig_activate(&rig);
	for (unsigned round = 0; round < 3; round++) {
		const unsigned before = atomic_load(&rig.interrupts);
		put(&rig, 0, FUSE_GETATTR, NODE_ANSWER);
		notify(&rig, REQUEST);
		expect_answer(&rig, 0);
		for (unsigned i = 0; i < 1000 && atomic_load(&rig.interrupts) == before; i++)
			usleep(100);
		cr_assert_eq(atomic_load(&rig.interrupts), before + 1);
	}
	rig_destroy(&rig);
}

Test(virtio_fs, requests_that_wait_at_activation_are_served)
{
	struct rig rig;
	rig_init(&rig, "a");
	put(&rig, 0, FUSE_GETATTR, NODE_ANSWER);
	put(&rig, 1, FUSE_GETATTR, NODE_ANSWER);
	rig_activate(&rig);
	expect_answer(&rig, 0);
	expect_answer(&rig, 1);
	rig_destroy(&rig);
}

Test(virtio_fs, what_has_no_answer_goes_back_with_nothing_written)
{
	struct rig rig;
	uint32_t length = 1;
	const struct fuse_in_header forget = { .len = sizeof(forget), .opcode = FUSE_FORGET, .nodeid = NODE_NOTHING };
	rig_init(&rig, "a");
	rig_activate(&rig);
	memcpy(fake_at(&rig.ram, slot(0)), &forget, sizeof(forget));
	fake_desc(&rig.queues[HIPRIO], 5, slot(0), sizeof(forget), 0, 0);
	fake_publish(&rig.queues[HIPRIO], 5);
	notify(&rig, HIPRIO);
	cr_assert_eq(take(&rig, HIPRIO, &length), 5);
	cr_assert_eq(length, 0);
	put(&rig, 3, FUSE_GETATTR, NODE_PROTOCOL);
	notify(&rig, REQUEST);
	length = 1;
	cr_assert_eq(take(&rig, REQUEST, &length), 6);
	cr_assert_eq(length, 0);
	rig_destroy(&rig);
}

/* Of a kind that is served with no thread called. */
Test(virtio_fs, a_request_that_blocks_delays_no_later_one)
{
	struct rig rig;
	rig_init(&rig, "a");
	rig_activate(&rig);
	put(&rig, 0, FUSE_LOOKUP, NODE_GATE);
	notify(&rig, REQUEST);
	wait_until_waiting(1);
	put(&rig, 1, FUSE_LOOKUP, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 1);
	put(&rig, 2, FUSE_LOOKUP, NODE_GATE);
	put(&rig, 3, FUSE_LOOKUP, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 3);
	set_gate(true);
	uint32_t length;
	cr_assert_eq(take(&rig, REQUEST, &length) + take(&rig, REQUEST, &length), 0 + 4);
	rig_destroy(&rig);
}

Test(virtio_fs, a_read_that_blocks_delays_none_that_wait_behind_it)
{
	struct rig rig;
	rig_init(&rig, "a");
	rig_activate(&rig);
	for (unsigned i = 0; i < 6; i++)
		put(&rig, i, FUSE_READ, i % 2 ? NODE_ANSWER : NODE_GATE);
	notify(&rig, REQUEST);
	unsigned answered = 0;
	uint32_t length;
	for (unsigned i = 0; i < 3; i++)
		answered |= 1u << take(&rig, REQUEST, &length) / 2;
	cr_assert_eq(answered, 1u << 1 | 1u << 3 | 1u << 5);
	wait_until_waiting(3);
	set_gate(true);
	for (unsigned i = 0; i < 3; i++)
		answered |= 1u << take(&rig, REQUEST, &length) / 2;
	cr_assert_eq(answered, 0x3f);
	rig_destroy(&rig);
}

Test(virtio_fs, the_number_of_requests_under_way_is_bounded)
{
	struct rig rig;
	uint32_t length;
	rig_init(&rig, "a");
	rig_activate(&rig);
	for (unsigned i = 0; i < 40; i++)
		put(&rig, i, FUSE_READ, NODE_GATE);
	notify(&rig, REQUEST);
	wait_until_waiting(VIRTIO_FS_THREADS_MAX);
	expect_nothing(&rig);
	cr_assert_eq(atomic_load(&most_under_way), VIRTIO_FS_THREADS_MAX);
	set_gate(true);
	for (unsigned i = 0; i < 40; i++)
		cr_assert_geq(take(&rig, REQUEST, &length), 0, "request %u", i);
	rig_destroy(&rig);
}

static void *reset_thread(void *arg)
{
	rig_reset(arg);
	return NULL;
}

Test(virtio_fs, reset_waits_for_requests_under_way)
{
	struct rig rig;
	pthread_t thread;
	rig_init(&rig, "a");
	rig_activate(&rig);
	put(&rig, 0, FUSE_READ, NODE_GATE);
	put(&rig, 1, FUSE_LOOKUP, NODE_GATE);
	notify(&rig, REQUEST);
	wait_until_waiting(2);
	pthread_create(&thread, NULL, reset_thread, &rig);
	usleep(20000);
	cr_assert_eq(atomic_load(&resets), 0);
	set_gate(true);
	pthread_join(thread, NULL);
	cr_assert_eq(atomic_load(&resets), 1);
	/* The next life. */
	clear_queues(&rig);
	rig_activate(&rig);
	put(&rig, 4, FUSE_LOOKUP, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 4);
	rig_destroy(&rig);
}

Test(virtio_fs, a_malformed_ring_stops_the_device_until_its_reset)
{
	struct rig rig;
	rig_init(&rig, "a");
	rig_activate(&rig);
	put(&rig, 0, FUSE_READ, NODE_GATE);
	notify(&rig, REQUEST);
	wait_until_waiting(1);
	fake_publish(&rig.queues[REQUEST], QUEUE_SIZE);
	notify(&rig, REQUEST);
	for (unsigned i = 0; i < 20000 && !(atomic_load(&rig.dev->status) & VIRTIO_CONFIG_S_NEEDS_RESET); i++)
		usleep(100);
	cr_assert(atomic_load(&rig.dev->status) & VIRTIO_CONFIG_S_NEEDS_RESET);
	set_gate(true);
	expect_nothing(&rig);
	rig_reset(&rig);
	atomic_store(&rig.dev->status, 0);
	clear_queues(&rig);
	rig_activate(&rig);
	put(&rig, 0, FUSE_LOOKUP, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 0);
	rig_destroy(&rig);
}

static void touch(void *arg)
{
	const struct rig *rig = arg;
	cr_assert_eq(rig->dev->ops->shm_touched(rig->dev), atomic_load(&look_result));
}

static bool looks_reach(unsigned count)
{
	for (unsigned i = 0; i < 20000 && atomic_load(&looks) < count; i++)
		usleep(100);
	return atomic_load(&looks) >= count;
}

Test(virtio_fs, files_that_are_mapped_are_looked_at_now_and_then)
{
	struct rig rig;
	has_window = true;
	rig_init(&rig, "a");
	cr_assert(rig.dev->shm.host == window && rig.dev->shm.bytes == FS_WINDOW_BYTES);
	rig_activate(&rig);
	put(&rig, 0, FUSE_LOOKUP, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 0);
	usleep(1000000 / VIRTIO_FS_LOOKS_A_SECOND * 3 / 2);
	cr_assert_eq(atomic_load(&looks), 0, "nothing is mapped");
	atomic_store(&maps, true);
	put(&rig, 1, FUSE_SETUPMAPPING, NODE_ANSWER);
	notify(&rig, REQUEST);
	expect_answer(&rig, 1);
	cr_assert(looks_reach(2));
	/* The guest touched what is not there: two answers. */
	const unsigned before = atomic_load(&looks);
	loop_call(rig.dev->loop, touch, &rig);
	atomic_store(&look_result, true);
	loop_call(rig.dev->loop, touch, &rig);
	cr_assert_geq(atomic_load(&looks), before + 2);
	/* The reset takes everything away. */
	atomic_store(&maps, false);
	rig_reset(&rig);
	const unsigned after = atomic_load(&looks);
	usleep(1000000 / VIRTIO_FS_LOOKS_A_SECOND * 3 / 2);
	cr_assert_eq(atomic_load(&looks), after);
	rig_destroy(&rig);
}

Test(virtio_fs, without_a_window_there_is_no_shared_memory)
{
	struct rig rig;
	rig_init(&rig, "a");
	cr_assert_null(rig.dev->shm.host);
	rig_destroy(&rig);
}

Test(virtio_fs, every_request_comes_back_once_whatever_blocks)
{
	enum { ROUNDS = 60, BATCH = 48 };
	static const uint32_t opcodes[] = { FUSE_READ, FUSE_LOOKUP, FUSE_FSYNC, FUSE_GETATTR };
	uint64_t seed = 0x1234567;
	struct rig rig;
	rig_init(&rig, "a");
	rig_activate(&rig);
	set_gate(true);
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint64_t seen = 0;
		for (unsigned i = 0; i < BATCH; i++) {
			put(&rig, i, opcodes[fake_below(&seed, 4)], fake_below(&seed, 4) ? NODE_ANSWER : NODE_SLEEP);
			if (fake_below(&seed, 3) == 0)
				notify(&rig, REQUEST);
			if (fake_below(&seed, 16) == 0)
				usleep(1500);
		}
		notify(&rig, REQUEST);
		for (unsigned i = 0; i < BATCH; i++) {
			uint32_t length;
			const int head = take(&rig, REQUEST, &length);
			cr_assert(head >= 0 && head % 2 == 0 && head / 2 < BATCH, "round %u: %u of %u came back", round, i, BATCH);
			cr_assert_not(seen >> (head / 2) & 1, "request %d came back twice", head / 2);
			seen |= 1ull << (head / 2);
		}
		if (round % 16 == 15) {
			rig_reset(&rig);
			clear_queues(&rig);
			rig_activate(&rig);
		}
	}
	rig_destroy(&rig);
}
