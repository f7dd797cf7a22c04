/* devices/virtio/virtio_mmio and virtio_device: every register, the order of a driver's start, and what a hostile one may try. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "devices/virtio/virtio_mmio.h"
#include "tests/unit/fake_driver.h"

#define ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define FAILED VIRTIO_CONFIG_S_FAILED
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET

#define DEVICE_FEATURES 0x8000000000000005ull
#define OFFERED (DEVICE_FEATURES | VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT_DESC | VIRTIO_FEATURE_EVENT_IDX)
#define QUEUES 3
#define RAM_BYTES 0x40000u

/* A device that answers each request with the number of bytes that it could write, and counts what the transport does to it. */
struct dummy {
	struct virtio_device dev; /* first */
	struct virtio_mmio mmio;
	struct loop *loop;
	pthread_t thread;
	struct virtq_chain chain;
	uint8_t config[10];
	int activate_result;
	bool refuse; /* handle() puts chains back */
	unsigned activated, reset, notified[QUEUES], handled;
	_Atomic unsigned interrupts, kicked[VIRTIO_MAX_QUEUES];
};

static struct dummy dummy;
static struct fake_ram ram;
static struct fake_queue drv[QUEUES];
static gpa_t data;

/* Aborts: what fails in a .fini function is not counted by Criterion, and this may be any thread. */
static void check_thread(void)
{
	assert(pthread_equal(pthread_self(), dummy.thread));
}

static int dummy_activate(struct virtio_device *dev)
{
	(void)dev;
	check_thread();
	dummy.activated++;
	return dummy.activate_result;
}

static void dummy_reset(struct virtio_device *dev)
{
	(void)dev;
	check_thread();
	dummy.reset++;
}

static bool dummy_handle(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain)
{
	(void)dev;
	if (dummy.refuse)
		return false;
	dummy.handled++;
	virtq_push(q, chain->head, chain->writable_bytes);
	return true;
}

static void dummy_notify(struct virtio_device *dev, unsigned index)
{
	check_thread();
	dummy.notified[index]++;
	virtio_device_drain(dev, index, &dummy.chain, dummy_handle);
}

static void dummy_interrupt(struct virtio_device *dev)
{
	(void)dev;
	atomic_fetch_add(&dummy.interrupts, 1);
}

static void dummy_kick(struct virtio_device *dev, unsigned index)
{
	(void)dev;
	assert(index < QUEUES);
	atomic_fetch_add(&dummy.kicked[index], 1);
}

static const struct virtio_device_ops dummy_ops = {
	.name = "dummy",
	.device_id = 42,
	.queue_count = QUEUES,
	.queue_size_max = { 8, 256, 2 },
	.activate = dummy_activate,
	.reset = dummy_reset,
	.notify = dummy_notify,
};

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

static void start(void)
{
	fake_ram_init(&ram, RAM_BYTES);
	dummy.loop = loop_create();
	cr_assert(dummy.loop);
	for (unsigned i = 0; i < sizeof(dummy.config); i++)
		dummy.config[i] = (uint8_t)(0xc0 + i);
	dummy.dev = (struct virtio_device){
		.ops = &dummy_ops,
		.loop = dummy.loop,
		.mem = &ram.mem,
		.device_features = DEVICE_FEATURES,
		.config = dummy.config,
		.config_bytes = sizeof(dummy.config),
		.interrupt = dummy_interrupt,
		.kick = dummy_kick,
	};
	virtio_mmio_init(&dummy.mmio, &dummy.dev);
	cr_assert(pthread_create(&dummy.thread, NULL, run_loop, dummy.loop) == 0);
}

static void stop(void)
{
	loop_stop(dummy.loop);
	pthread_join(dummy.thread, NULL);
	loop_destroy(dummy.loop);
	fake_ram_destroy(&ram);
}

TestSuite(mmio, .init = start, .fini = stop);

/* ---- access ----------------------------------------------------------------------------------------------------------------- */

static uint32_t reg(uint64_t offset)
{
	le32 value;
	virtio_mmio_read(&dummy.mmio, offset, &value, 4);
	return le32_get(value);
}

static void set(uint64_t offset, uint32_t value)
{
	const le32 raw = le32_make(value);
	virtio_mmio_write(&dummy.mmio, offset, &raw, 4);
}

static uint32_t status(void)
{
	return reg(VIRTIO_MMIO_STATUS);
}

static void set_features(uint64_t features)
{
	set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	set(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
	set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	set(VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
}

static void set_address(unsigned low, gpa_t address)
{
	set(low, (uint32_t)address);
	set(low + 4, (uint32_t)(address >> 32));
}

static void set_queue(unsigned index, uint32_t size, gpa_t desc, gpa_t avail, gpa_t used)
{
	set(VIRTIO_MMIO_QUEUE_SEL, index);
	set(VIRTIO_MMIO_QUEUE_NUM, size);
	set_address(VIRTIO_MMIO_QUEUE_DESC_LOW, desc);
	set_address(VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail);
	set_address(VIRTIO_MMIO_QUEUE_USED_LOW, used);
}

static void set_fake_queue(unsigned index)
{
	static const uint16_t sizes[QUEUES] = { 8, 256, 2 };
	const gpa_t end = fake_queue_init(&drv[index], &ram, FAKE_RAM_BASE + 0x4000 * index, sizes[index]);
	data = FAKE_RAM_BASE + 0x4000 * QUEUES;
	cr_assert(end <= FAKE_RAM_BASE + 0x4000 * (index + 1));
	set_queue(index, sizes[index], drv[index].desc, drv[index].avail, drv[index].used);
}

static void set_ready(unsigned index, uint32_t value)
{
	set(VIRTIO_MMIO_QUEUE_SEL, index);
	set(VIRTIO_MMIO_QUEUE_READY, value);
}

/* Up to FEATURES_OK. */
static void negotiate(uint64_t features)
{
	set(VIRTIO_MMIO_STATUS, 0);
	set(VIRTIO_MMIO_STATUS, ACK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	set_features(features);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
}

/* A whole start with queues 0 and 1 (2 stays off). */
static void bring_up(uint64_t features)
{
	negotiate(features);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK);
	for (unsigned i = 0; i < 2; i++) {
		set_fake_queue(i);
		set_ready(i, 1);
	}
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

static void notified_on_loop(void *index)
{
	virtio_mmio_notified(&dummy.mmio, *(unsigned *)index);
}

/* What the reader of the ioeventfd does. */
static void notify(unsigned index)
{
	loop_call(dummy.loop, notified_on_loop, &index);
}

static void offer(unsigned index, uint16_t head, uint32_t bytes)
{
	fake_desc(&drv[index], head, data, bytes, FAKE_WRITE, 0);
	fake_publish(&drv[index], head);
}

static void expect_used(unsigned index, uint32_t head, uint32_t bytes)
{
	uint32_t got_head = UINT32_MAX, got_bytes = UINT32_MAX;
	cr_assert(fake_used(&drv[index], &got_head, &got_bytes), "nothing in the used ring");
	cr_assert(got_head == head && got_bytes == bytes);
}

static bool is_active(void)
{
	return dummy.dev.active;
}

/* ---- registers -------------------------------------------------------------------------------------------------------------- */

Test(mmio, identification)
{
	cr_assert_eq(reg(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	cr_assert_eq(reg(VIRTIO_MMIO_VERSION), 2);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_ID), 42);
	cr_assert_eq(reg(VIRTIO_MMIO_VENDOR_ID), 0x4d565254);
}

Test(mmio, identification_is_read_only)
{
	for (uint64_t offset = 0; offset <= VIRTIO_MMIO_DEVICE_FEATURES; offset += 4)
		set(offset, 0xffffffff);
	cr_assert_eq(reg(VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
	cr_assert_eq(reg(VIRTIO_MMIO_VERSION), 2);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)OFFERED);
}

Test(mmio, device_features_in_two_words)
{
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)OFFERED);
	set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)(OFFERED >> 32));
	set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, UINT32_MAX);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), 0);
	set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)OFFERED);
}

Test(mmio, queue_num_max_of_each_queue)
{
	static const uint32_t sizes[] = { 8, 256, 2 };
	for (unsigned i = 0; i < QUEUES; i++) {
		set(VIRTIO_MMIO_QUEUE_SEL, i);
		cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), sizes[i]);
	}
}

/* 4.2.2: the length of a shared memory region that is not there is -1. */
Test(mmio, no_shared_memory)
{
	for (uint32_t id = 0; id < 3; id++) {
		set(VIRTIO_MMIO_SHM_SEL, id);
		cr_assert_eq(reg(VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX);
		cr_assert_eq(reg(VIRTIO_MMIO_SHM_LEN_HIGH), UINT32_MAX);
	}
}

#define SHM_BASE 0x140000000ull
#define SHM_BYTES 0x210000000ull

static void give_shm(void)
{
	dummy.dev.shm = (struct virtio_shm){ .host = &dummy, .bytes = SHM_BYTES, .gpa = SHM_BASE };
}

Test(mmio, shared_memory_region_0_is_where_the_machine_put_it)
{
	give_shm();
	cr_assert_eq(reg(VIRTIO_MMIO_SHM_LEN_LOW), (uint32_t)SHM_BYTES);
	cr_assert_eq(reg(VIRTIO_MMIO_SHM_LEN_HIGH), SHM_BYTES >> 32);
	cr_assert_eq(reg(VIRTIO_MMIO_SHM_BASE_LOW), (uint32_t)SHM_BASE);
	cr_assert_eq(reg(VIRTIO_MMIO_SHM_BASE_HIGH), SHM_BASE >> 32);
	set(VIRTIO_MMIO_SHM_SEL, 1);
	for (uint64_t offset = VIRTIO_MMIO_SHM_LEN_LOW; offset <= VIRTIO_MMIO_SHM_BASE_HIGH; offset += 4)
		cr_assert_eq(reg(offset), UINT32_MAX);
	set(VIRTIO_MMIO_STATUS, 0);
	cr_assert_eq(reg(VIRTIO_MMIO_SHM_LEN_LOW), (uint32_t)SHM_BYTES, "a reset selects region 0");
}

Test(mmio, write_only_and_reserved_registers_read_zero)
{
	bring_up(OFFERED);
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset += 4) {
		switch (offset) {
		case VIRTIO_MMIO_MAGIC_VALUE:
		case VIRTIO_MMIO_VERSION:
		case VIRTIO_MMIO_DEVICE_ID:
		case VIRTIO_MMIO_VENDOR_ID:
		case VIRTIO_MMIO_DEVICE_FEATURES:
		case VIRTIO_MMIO_QUEUE_NUM_MAX:
		case VIRTIO_MMIO_QUEUE_READY:
		case VIRTIO_MMIO_STATUS:
		case VIRTIO_MMIO_SHM_LEN_LOW:
		case VIRTIO_MMIO_SHM_LEN_HIGH:
		case VIRTIO_MMIO_SHM_BASE_LOW:
		case VIRTIO_MMIO_SHM_BASE_HIGH:
			continue;
		default:
			cr_assert_eq(reg(offset), 0, "register 0x%llx", (unsigned long long)offset);
		}
	}
}

static bool reads_zero(uint64_t offset, unsigned length)
{
	uint8_t bytes[8];
	memset(bytes, 0xee, sizeof(bytes));
	virtio_mmio_read(&dummy.mmio, offset, bytes, length);
	for (unsigned i = 0; i < 8; i++)
		if (bytes[i] != (i < length ? 0 : 0xee))
			return false;
	return true;
}

/* 4.2.2.2: registers are 32 bits wide and aligned. */
Test(mmio, wrong_width_or_alignment_reads_zero)
{
	bring_up(OFFERED);
	for (uint64_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++)
		for (unsigned length = 1; length <= 8; length *= 2)
			if (length != 4 || offset % 4)
				cr_assert(reads_zero(offset, length), "%u bytes at 0x%llx", length, (unsigned long long)offset);
}

Test(mmio, wrong_width_or_alignment_writes_nothing)
{
	static const uint8_t zeroes[8];
	bring_up(OFFERED);
	/* A reset is what a zero at the status register means. */
	for (uint64_t offset = VIRTIO_MMIO_STATUS - 8; offset < VIRTIO_MMIO_STATUS + 8; offset++)
		for (unsigned length = 1; length <= 8; length *= 2)
			if (length != 4 || offset % 4)
				virtio_mmio_write(&dummy.mmio, offset, zeroes, length);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert(is_active());
}

Test(mmio, offsets_beyond_the_page_read_zero_and_write_nothing)
{
	const uint64_t offsets[] = { VIRTIO_MMIO_PAGE_BYTES - 4,
				     VIRTIO_MMIO_PAGE_BYTES,
				     VIRTIO_MMIO_PAGE_BYTES + VIRTIO_MMIO_STATUS,
				     1ull << 32,
				     (1ull << 32) + VIRTIO_MMIO_CONFIG,
				     UINT64_MAX - 7,
				     UINT64_MAX - 3,
				     UINT64_MAX };
	static const uint8_t zeroes[8];
	bring_up(OFFERED);
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		for (unsigned length = 1; length <= 8; length *= 2) {
			cr_assert(reads_zero(offsets[i], length));
			virtio_mmio_write(&dummy.mmio, offsets[i], zeroes, length);
		}
	}
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
}

Test(mmio, config_space_is_read_in_any_width_up_to_its_end)
{
	for (unsigned at = 0; at < 16; at++) {
		for (unsigned length = 1; length <= 8; length *= 2) {
			uint8_t bytes[8];
			if (at + length > sizeof(dummy.config)) {
				cr_assert(reads_zero(VIRTIO_MMIO_CONFIG + at, length));
				continue;
			}
			virtio_mmio_read(&dummy.mmio, VIRTIO_MMIO_CONFIG + at, bytes, length);
			cr_assert(!memcmp(bytes, dummy.config + at, length));
		}
	}
}

Test(mmio, config_space_cannot_be_written)
{
	static const uint8_t zeroes[8];
	uint8_t before[sizeof(dummy.config)];
	memcpy(before, dummy.config, sizeof(before));
	for (unsigned at = 0; at < 16; at++)
		for (unsigned length = 1; length <= 8; length *= 2)
			virtio_mmio_write(&dummy.mmio, VIRTIO_MMIO_CONFIG + at, zeroes, length);
	cr_assert(!memcmp(before, dummy.config, sizeof(before)));
	cr_assert_eq(reg(VIRTIO_MMIO_CONFIG_GENERATION), 0);
}

Test(mmio, device_without_config_space_reads_zero)
{
	dummy.dev.config = NULL;
	dummy.dev.config_bytes = 0;
	cr_assert(reads_zero(VIRTIO_MMIO_CONFIG, 1) && reads_zero(VIRTIO_MMIO_CONFIG, 8));
}

/* ---- status and features ---------------------------------------------------------------------------------------------------- */

Test(mmio, status_is_built_up_in_order)
{
	cr_assert_eq(status(), 0);
	set(VIRTIO_MMIO_STATUS, ACK);
	cr_assert_eq(status(), ACK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	cr_assert_eq(status(), ACK | DRIVER);
	set_features(VIRTIO_FEATURE_VERSION_1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(dummy.activated, 0);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(dummy.activated, 1);
	cr_assert_eq(dummy.reset, 0);
}

Test(mmio, status_bits_out_of_order_are_ignored)
{
	set_features(VIRTIO_FEATURE_VERSION_1);
	set(VIRTIO_MMIO_STATUS, DRIVER);
	cr_assert_eq(status(), 0);
	set(VIRTIO_MMIO_STATUS, FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), 0);
	set(VIRTIO_MMIO_STATUS, ACK | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), ACK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | DRIVER_OK);
	cr_assert_eq(status(), ACK | DRIVER);
	cr_assert_eq(dummy.activated, 0);
}

Test(mmio, status_bits_are_cleared_by_reset_only)
{
	bring_up(OFFERED);
	set(VIRTIO_MMIO_STATUS, ACK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	set(VIRTIO_MMIO_STATUS, 0);
	cr_assert_eq(status(), 0);
}

Test(mmio, driver_ok_twice_activates_once)
{
	bring_up(OFFERED);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	set(VIRTIO_MMIO_STATUS, DRIVER_OK);
	cr_assert_eq(dummy.activated, 1);
}

Test(mmio, driver_cannot_set_needs_reset_or_unknown_bits)
{
	set(VIRTIO_MMIO_STATUS, 0xffffff00u | NEEDS_RESET | 0x30);
	cr_assert_eq(status(), 0);
	set(VIRTIO_MMIO_STATUS, ACK | NEEDS_RESET | 0xabcdef00);
	cr_assert_eq(status(), ACK);
}

Test(mmio, failed_stays_until_reset)
{
	set(VIRTIO_MMIO_STATUS, ACK);
	set(VIRTIO_MMIO_STATUS, ACK | FAILED);
	cr_assert_eq(status(), ACK | FAILED);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	cr_assert_eq(status(), ACK | FAILED);
	set(VIRTIO_MMIO_STATUS, 0);
	bring_up(OFFERED);
}

Test(mmio, driver_ok_together_with_failed_activates_nothing)
{
	negotiate(OFFERED);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK | FAILED);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | FAILED);
	cr_assert_eq(dummy.activated, 0);
}

static void expect_refused(uint64_t features)
{
	negotiate(features);
	cr_assert_eq(status(), ACK | DRIVER);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), ACK | DRIVER);
	cr_assert(dummy.activated == 0 && dummy.dev.driver_features == 0);
}

Test(mmio, features_that_are_not_offered_are_refused)
{
	for (unsigned bit = 0; bit < 64; bit++)
		if (!(OFFERED & (1ull << bit)))
			expect_refused(VIRTIO_FEATURE_VERSION_1 | 1ull << bit);
}

Test(mmio, driver_without_version_1_is_refused)
{
	expect_refused(0);
	expect_refused(OFFERED & ~VIRTIO_FEATURE_VERSION_1);
}

Test(mmio, refused_driver_may_try_again_with_other_features)
{
	expect_refused(VIRTIO_FEATURE_VERSION_1 | 2);
	set_features(VIRTIO_FEATURE_VERSION_1 | 4);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(dummy.dev.driver_features, VIRTIO_FEATURE_VERSION_1 | 4);
}

Test(mmio, any_subset_with_version_1_is_taken)
{
	uint64_t seed = 11;
	for (unsigned i = 0; i < 100; i++) {
		const uint64_t features = (fake_random(&seed) & OFFERED) | VIRTIO_FEATURE_VERSION_1;
		negotiate(features);
		cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK);
		cr_assert_eq(dummy.dev.driver_features, features);
	}
}

Test(mmio, features_are_fixed_by_features_ok)
{
	negotiate(VIRTIO_FEATURE_VERSION_1);
	set_features(OFFERED);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(dummy.dev.driver_features, VIRTIO_FEATURE_VERSION_1);
}

Test(mmio, driver_features_of_other_words_are_ignored)
{
	set(VIRTIO_MMIO_STATUS, ACK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	set_features(VIRTIO_FEATURE_VERSION_1);
	set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 2);
	set(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	set(VIRTIO_MMIO_DRIVER_FEATURES_SEL, UINT32_MAX);
	set(VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(dummy.dev.driver_features, VIRTIO_FEATURE_VERSION_1);
}

/* Whatever is written, no bit stands without those before it, and none goes but by a reset. */
Test(mmio, status_keeps_its_order_under_random_writes)
{
	uint64_t seed = 12;
	for (unsigned i = 0; i < 20000; i++) {
		const uint32_t before = status();
		if (fake_below(&seed, 8) == 0)
			set_features(fake_below(&seed, 2) ? OFFERED : fake_random(&seed));
		uint32_t value = fake_below(&seed, 50) ? (uint32_t)fake_random(&seed) & 0xff : 0;
		if (fake_below(&seed, 3))
			value &= ~(uint32_t)FAILED;
		set(VIRTIO_MMIO_STATUS, value);
		const uint32_t after = status();
		cr_assert(!(after & DRIVER) || (after & ACK));
		cr_assert(!(after & FEATURES_OK) || (after & DRIVER));
		cr_assert(!(after & DRIVER_OK) || (after & FEATURES_OK));
		cr_assert(value == 0 || (before & ~after) == 0);
		cr_assert(!(after & ~value & ~before));
	}
}

/* ---- queues ----------------------------------------------------------------------------------------------------------------- */

Test(mmio, requests_are_served_after_a_notification)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 3, 77);
	notify(0);
	expect_used(0, 3, 77);
	offer(1, 255, 1);
	notify(1);
	expect_used(1, 255, 1);
	cr_assert_eq(dummy.interrupts, 2);
}

/* The driver may put requests into a queue before DRIVER_OK; its notification could have come to nobody. */
Test(mmio, requests_from_before_driver_ok_are_served)
{
	negotiate(OFFERED);
	set_fake_queue(0);
	offer(0, 1, 5);
	set_ready(0, 1);
	notify(0);
	cr_assert_eq(dummy.notified[0], 0);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	expect_used(0, 1, 5);
}

Test(mmio, queue_notify_register_kicks_the_loop)
{
	bring_up(OFFERED);
	set(VIRTIO_MMIO_QUEUE_NOTIFY, 1);
	cr_assert(dummy.kicked[0] == 0 && dummy.kicked[1] == 1);
}

Test(mmio, notification_of_a_queue_that_is_not_there_is_ignored)
{
	bring_up(OFFERED);
	const uint32_t bad[] = { QUEUES, VIRTIO_MAX_QUEUES, 0xffff, 0x10000, 0x10001, 0x80000000, UINT32_MAX };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		set(VIRTIO_MMIO_QUEUE_NOTIFY, bad[i]);
		notify(bad[i]);
	}
	cr_assert(dummy.kicked[0] + dummy.kicked[1] + dummy.kicked[2] == 0);
	cr_assert(dummy.notified[0] + dummy.notified[1] + dummy.notified[2] == 0);
}

Test(mmio, notification_of_a_queue_that_is_not_ready_is_ignored)
{
	bring_up(OFFERED);
	notify(2);
	cr_assert_eq(dummy.notified[2], 0);
}

Test(mmio, notification_before_driver_ok_and_after_reset_is_ignored)
{
	notify(0);
	bring_up(OFFERED);
	set(VIRTIO_MMIO_STATUS, 0);
	offer(0, 0, 1);
	notify(0);
	cr_assert_eq(dummy.notified[0], 0);
}

Test(mmio, queue_select_out_of_range_reads_and_writes_nothing)
{
	const uint32_t bad[] = { QUEUES, VIRTIO_MAX_QUEUES, 0x100, 0x80000000, UINT32_MAX };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct virtio_mmio before;
		set(VIRTIO_MMIO_QUEUE_SEL, bad[i]);
		memcpy(&before, &dummy.mmio, sizeof(before));
		set_queue(bad[i], 2, FAKE_RAM_BASE, FAKE_RAM_BASE, FAKE_RAM_BASE);
		set(VIRTIO_MMIO_QUEUE_READY, 1);
		cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
		cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
		cr_assert(!memcmp(before.queues, dummy.mmio.queues, sizeof(before.queues)));
	}
	bring_up(OFFERED);
}

Test(mmio, ready_reads_as_written_and_takes_0_and_1_only)
{
	negotiate(OFFERED);
	set_fake_queue(0);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	set(VIRTIO_MMIO_QUEUE_READY, 2);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	set(VIRTIO_MMIO_QUEUE_READY, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 1);
	set(VIRTIO_MMIO_QUEUE_SEL, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	set_ready(0, 0);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
}

Test(mmio, queue_size_over_the_maximum_is_ignored)
{
	negotiate(OFFERED);
	set_fake_queue(0);
	const uint32_t bad[] = { 9, 16, 256, 0x10008, 0x80000008, UINT32_MAX };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		set(VIRTIO_MMIO_QUEUE_NUM, bad[i]);
	set_ready(0, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(dummy.dev.queues[0].size, 8);
}

Test(mmio, queue_may_be_smaller_than_the_maximum)
{
	negotiate(OFFERED);
	fake_queue_init(&drv[1], &ram, FAKE_RAM_BASE, 4);
	data = FAKE_RAM_BASE + 0x1000;
	set_queue(1, 4, drv[1].desc, drv[1].avail, drv[1].used);
	set_ready(1, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	for (uint16_t i = 0; i < 4; i++)
		offer(1, i, i + 1u);
	notify(1);
	for (uint16_t i = 0; i < 4; i++)
		expect_used(1, i, i + 1u);
}

/* Sets what differs from the ready queue 0 in every way. */
static void try_to_move_queue(void)
{
	set_queue(0, 4, FAKE_RAM_BASE + 0x20000, FAKE_RAM_BASE + 0x21000, FAKE_RAM_BASE + 0x22000);
}

static void expect_unmoved(void)
{
	cr_assert(dummy.dev.queues[0].size == 8 && dummy.dev.queues[0].desc == fake_at(&ram, drv[0].desc));
	cr_assert(dummy.dev.queues[0].avail == fake_at(&ram, drv[0].avail) &&
		  dummy.dev.queues[0].used == fake_at(&ram, drv[0].used));
	offer(0, 1, 5);
	notify(0);
	expect_used(0, 1, 5);
}

Test(mmio, ready_queue_cannot_be_changed)
{
	negotiate(OFFERED);
	set_fake_queue(0);
	set_ready(0, 1);
	try_to_move_queue();
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	expect_unmoved();
}

Test(mmio, queue_can_be_changed_after_ready_was_taken_back)
{
	negotiate(OFFERED);
	try_to_move_queue();
	set_ready(0, 1);
	set_ready(0, 0);
	set_fake_queue(0);
	set_ready(0, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	expect_unmoved();
}

Test(mmio, queue_of_a_running_device_cannot_be_changed)
{
	bring_up(OFFERED);
	try_to_move_queue();
	expect_unmoved();
	set_ready(0, 1);
	expect_unmoved();
}

Test(mmio, queue_of_a_running_device_can_be_stopped_but_not_started)
{
	bring_up(OFFERED);
	offer(0, 1, 5);
	set_ready(0, 0);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	notify(0);
	cr_assert_eq(dummy.notified[0], 0);
	cr_assert_null(dummy.dev.queues[0].mem);
	try_to_move_queue();
	set_ready(0, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	notify(0);
	cr_assert_eq(dummy.notified[0], 0);
	/* The other one goes on. */
	offer(1, 1, 6);
	notify(1);
	expect_used(1, 1, 6);
}

Test(mmio, queue_that_was_off_at_driver_ok_stays_off)
{
	bring_up(OFFERED);
	set_fake_queue(2);
	set_ready(2, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
	cr_assert_null(dummy.dev.queues[2].mem);
}

/* ---- reset ------------------------------------------------------------------------------------------------------------------ */

Test(mmio, reset_forgets_everything)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 0, 1);
	notify(0);
	set(VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	set(VIRTIO_MMIO_QUEUE_SEL, 1);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	set(VIRTIO_MMIO_STATUS, 0);
	cr_assert_eq(dummy.reset, 2); /* the first began the start */
	cr_assert_eq(status(), 0);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
	cr_assert_eq(reg(VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)OFFERED);
	cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_NUM_MAX), 8);
	cr_assert(!is_active() && dummy.dev.driver_features == 0);
	for (unsigned i = 0; i < QUEUES; i++) {
		set(VIRTIO_MMIO_QUEUE_SEL, i);
		cr_assert_eq(reg(VIRTIO_MMIO_QUEUE_READY), 0);
		cr_assert_null(dummy.dev.queues[i].mem);
	}
	/* Features have to be written anew. */
	set(VIRTIO_MMIO_STATUS, ACK);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK);
	cr_assert_eq(status(), ACK | DRIVER);
}

Test(mmio, reset_of_a_device_that_never_ran)
{
	set(VIRTIO_MMIO_STATUS, 0);
	set(VIRTIO_MMIO_STATUS, 0);
	cr_assert(dummy.reset == 2 && dummy.activated == 0);
}

Test(mmio, device_works_again_after_reset)
{
	for (unsigned life = 0; life < 20; life++) {
		bring_up(life % 2 ? OFFERED : VIRTIO_FEATURE_VERSION_1);
		for (uint16_t i = 0; i < 12; i++) {
			offer(0, i % 8, i);
			notify(0);
			expect_used(0, i % 8, i);
		}
	}
	cr_assert_eq(dummy.activated, 20);
}

/* ---- a broken device -------------------------------------------------------------------------------------------------------- */

static void expect_broken(void)
{
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
	cr_assert(reg(VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	cr_assert_eq(dummy.interrupts, 1);
	cr_assert(!is_active());
	const unsigned notified = dummy.notified[0] + dummy.notified[1];
	notify(0);
	notify(1);
	cr_assert_eq(dummy.notified[0] + dummy.notified[1], notified, "a broken device was notified");
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(status(), ACK | DRIVER | FEATURES_OK | DRIVER_OK | NEEDS_RESET);
	cr_assert_eq(dummy.interrupts, 1);
	/* A reset mends it. */
	dummy.activate_result = 0;
	bring_up(OFFERED);
	offer(0, 0, 9);
	notify(0);
	expect_used(0, 0, 9);
}

Test(mmio, malformed_ring_needs_reset)
{
	bring_up(OFFERED);
	fake_publish(&drv[0], 8);
	notify(0);
	expect_broken();
}

/* What is mapped there may shrink on the host: a thread of ours that touched it would die. */
Test(mmio, a_buffer_in_shared_memory_is_none)
{
	give_shm();
	bring_up(OFFERED);
	fake_desc(&drv[0], 0, SHM_BASE, 64, FAKE_WRITE, 0);
	fake_publish(&drv[0], 0);
	notify(0);
	expect_broken();
}

Test(mmio, a_queue_in_shared_memory_is_none)
{
	give_shm();
	negotiate(OFFERED);
	set_queue(0, 8, SHM_BASE, SHM_BASE + 0x1000, SHM_BASE + 0x2000);
	set_ready(0, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert(status() & NEEDS_RESET);
}

Test(mmio, malformed_ring_after_good_requests_needs_reset)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 0, 1);
	offer(0, 1, 2);
	fake_desc(&drv[0], 2, 0, 1, 0, 0);
	fake_publish(&drv[0], 2);
	offer(0, 3, 4);
	notify(0);
	expect_used(0, 0, 1);
	expect_used(0, 1, 2);
	uint32_t head, length;
	cr_assert(!fake_used(&drv[0], &head, &length));
	expect_broken();
}

Test(mmio, malformed_ring_at_driver_ok_needs_reset)
{
	negotiate(OFFERED);
	set_fake_queue(0);
	set_ready(0, 1);
	fake_publish(&drv[0], 8);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	expect_broken();
}

static void start_with_queue(uint32_t size, gpa_t desc, gpa_t avail, gpa_t used)
{
	negotiate(OFFERED);
	set_queue(1, size, desc, avail, used);
	set_ready(1, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(dummy.activated, 0);
	expect_broken();
}

Test(mmio, queue_size_0_needs_reset)
{
	start_with_queue(0, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x2000, FAKE_RAM_BASE + 0x3000);
}

Test(mmio, queue_size_that_is_no_power_of_two_needs_reset)
{
	start_with_queue(24, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x2000, FAKE_RAM_BASE + 0x3000);
}

Test(mmio, misaligned_queue_needs_reset)
{
	start_with_queue(16, FAKE_RAM_BASE + 8, FAKE_RAM_BASE + 0x2000, FAKE_RAM_BASE + 0x3000);
}

Test(mmio, queue_outside_ram_needs_reset)
{
	start_with_queue(16, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x2000, 0xfffffffffffff000);
}

Test(mmio, failed_activation_needs_reset)
{
	negotiate(OFFERED);
	dummy.activate_result = -ENOMEM;
	set_fake_queue(0);
	set_ready(0, 1);
	offer(0, 0, 1);
	set(VIRTIO_MMIO_STATUS, ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	cr_assert_eq(dummy.notified[0], 0);
	expect_broken();
}

static void break_ring(void)
{
	bring_up(OFFERED);
	fake_publish(&drv[0], 8);
	notify(0);
	fake_publish(&drv[1], 0xffff);
	notify(1);
	notify(0);
}

/* How many lines the log gets from `lives` broken lives. */
static unsigned lines_of_lives(unsigned lives)
{
	char text[4096];
	int ends[2];
	cr_assert(pipe(ends) == 0);
	const int old = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	for (unsigned i = 0; i < lives; i++)
		break_ring();
	dup2(old, STDERR_FILENO);
	close(ends[1]);
	const ssize_t n = read(ends[0], text, sizeof(text) - 1);
	cr_assert(n > 0);
	text[n] = '\0';
	unsigned lines = 0;
	for (char *at = strtok(text, "\n"); at; at = strtok(NULL, "\n"), lines++)
		cr_assert(!strncmp(at, "trvmm: dummy: ", 14), "%s", at);
	return lines;
}

Test(mmio, breach_is_logged_once_for_each_life)
{
	cr_assert_eq(lines_of_lives(2), 2);
}

Test(mmio, breaches_without_end_do_not_fill_the_log)
{
	cr_assert_eq(lines_of_lives(50), VIRTIO_COMPLAINTS_MAX);
}

static void fail_twice(void *arg)
{
	(void)arg;
	virtio_device_fail(&dummy.dev, "first");
	virtio_device_fail(&dummy.dev, "second");
}

Test(mmio, failing_twice_interrupts_once)
{
	bring_up(OFFERED);
	loop_call(dummy.loop, fail_twice, NULL);
	expect_broken();
}

/* ---- interrupts ------------------------------------------------------------------------------------------------------------- */

Test(mmio, interrupt_status_is_cleared_by_ack_of_its_bits)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 0, 1);
	notify(0);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	set(VIRTIO_MMIO_INTERRUPT_ACK, 0);
	set(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_CONFIG);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING);
	fake_publish(&drv[0], 8);
	notify(0);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
	set(VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), VIRTIO_MMIO_INT_CONFIG);
	set(VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

/* What our own guest kernel relies on, which neither reads nor acknowledges (guest/kernel/patches). */
Test(mmio, interrupts_come_without_acknowledgement)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	for (unsigned i = 1; i <= 3; i++) {
		offer(0, 0, 1);
		notify(0);
		cr_assert_eq(dummy.interrupts, i);
	}
}

Test(mmio, interrupt_status_cannot_be_written)
{
	set(VIRTIO_MMIO_INTERRUPT_STATUS, UINT32_MAX);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

Test(mmio, one_interrupt_for_a_batch_of_requests)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	for (uint16_t i = 0; i < 8; i++)
		offer(0, i, 1);
	notify(0);
	cr_assert_eq(dummy.interrupts, 1);
	cr_assert_eq(dummy.handled, 8);
}

Test(mmio, no_interrupt_for_a_spurious_notification)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	notify(0);
	cr_assert(dummy.notified[0] == 1 && dummy.interrupts == 0);
	cr_assert_eq(reg(VIRTIO_MMIO_INTERRUPT_STATUS), 0);
}

Test(mmio, no_interrupt_against_the_drivers_wish)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	fake_put16(&ram, drv[0].avail, 1);
	offer(0, 0, 1);
	notify(0);
	expect_used(0, 0, 1);
	cr_assert_eq(dummy.interrupts, 0);
}

Test(mmio, event_idx_is_used_when_negotiated)
{
	bring_up(OFFERED);
	fake_set_used_event(&drv[0], 1); /* after the second */
	offer(0, 0, 1);
	notify(0);
	cr_assert_eq(dummy.interrupts, 0);
	cr_assert_eq(fake_avail_event(&drv[0]), 1);
	offer(0, 1, 1);
	notify(0);
	cr_assert_eq(dummy.interrupts, 1);
	cr_assert_eq(fake_avail_event(&drv[0]), 2);
}

/* ---- virtio_device_drain() -------------------------------------------------------------------------------------------------- */

Test(mmio, drain_puts_back_what_the_device_cannot_take_now)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	dummy.refuse = true;
	offer(0, 4, 44);
	notify(0);
	notify(0);
	cr_assert_eq(dummy.handled, 0);
	cr_assert_eq(fake_get16(&ram, drv[0].used), 0);
	dummy.refuse = false;
	notify(0);
	expect_used(0, 4, 44);
}

Test(mmio, drain_leaves_notifications_on)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 0, 1);
	notify(0);
	cr_assert_eq(fake_get16(&ram, drv[0].used), 0);
}

/* Submits a request anew as soon as it is done: a driver that never stops. */
static struct fake_queue *endless;
static unsigned endless_handled;

static bool resubmit(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain)
{
	(void)dev;
	virtq_push(q, chain->head, 0);
	if (++endless_handled < 5000)
		fake_publish(endless, chain->head);
	return true;
}

static void drain_endless(void *arg)
{
	(void)arg;
	virtio_device_drain(&dummy.dev, 0, &dummy.chain, resubmit);
}

Test(mmio, drain_of_an_endless_queue_gives_way_to_the_loop)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	endless = &drv[0];
	offer(0, 0, 1);
	loop_call(dummy.loop, drain_endless, NULL);
	cr_assert(endless_handled > 0 && endless_handled < 5000);
	cr_assert_eq(dummy.kicked[0], 1);
	for (unsigned calls = 1; endless_handled < 5000; calls++) {
		cr_assert(calls < 5000 && dummy.kicked[0] == calls, "the rest is never asked for");
		loop_call(dummy.loop, drain_endless, NULL);
	}
}

Test(mmio, drain_without_kick_takes_all)
{
	bring_up(VIRTIO_FEATURE_VERSION_1);
	dummy.dev.kick = NULL;
	endless = &drv[0];
	offer(0, 0, 1);
	loop_call(dummy.loop, drain_endless, NULL);
	cr_assert_eq(endless_handled, 5000);
}

/* ---- several processors at once --------------------------------------------------------------------------------------------- */

static void *hammer(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	for (unsigned i = 0; i < 3000; i++) {
		const uint64_t offset = 4 * fake_below(&seed, 0x110 / 4);
		if (fake_below(&seed, 3) == 0)
			(void)reg(offset);
		else if (fake_below(&seed, 4) == 0)
			set(VIRTIO_MMIO_STATUS, fake_below(&seed, 10) ? (uint32_t)fake_below(&seed, 16) : 0);
		else if (offset != VIRTIO_MMIO_STATUS)
			set(offset, fake_below(&seed, 2) ? fake_below(&seed, 4) : (uint32_t)fake_random(&seed));
		if (fake_below(&seed, 6) == 0)
			notify(fake_below(&seed, QUEUES + 1));
		if (fake_below(&seed, 40) == 0) {
			set_features(VIRTIO_FEATURE_VERSION_1);
			set_queue(0, 8, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x1000, FAKE_RAM_BASE + 0x2000);
			set_ready(0, 1);
			for (uint32_t bits = 1; bits < 32; bits = bits << 1 | 1)
				set(VIRTIO_MMIO_STATUS, bits & 0xf);
		}
	}
	return NULL;
}

Test(mmio, random_accesses_of_two_processors, .timeout = 60)
{
	pthread_t other;
	cr_assert(pthread_create(&other, NULL, hammer, (void *)0x5eed) == 0);
	hammer((void *)0xfeed);
	pthread_join(other, NULL);
	set(VIRTIO_MMIO_STATUS, 0);
	cr_assert_eq(status(), 0);
	dummy.handled = 0;
	bring_up(VIRTIO_FEATURE_VERSION_1);
	offer(0, 0, 3);
	notify(0);
	expect_used(0, 0, 3);
	cr_assert(dummy.activated > 1);
}
