/* devices/virtio/virtq: each rule by which a chain is refused, notifications, and that valid chains arrive as they were sent. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/iov.h"
#include "tests/unit/fake_driver.h"

#define RAM_BYTES (1u << 20)
#define SIZE 8

static struct fake_ram ram;
static struct fake_queue drv;
static struct virtq q;
static struct virtq_chain chain;
static gpa_t data; /* the first address behind the rings */

static void start(uint16_t size, bool event_idx)
{
	fake_ram_init(&ram, RAM_BYTES);
	data = fake_queue_init(&drv, &ram, FAKE_RAM_BASE + 0x1000, size);
	const struct virtq_config config = fake_queue_config(&drv);
	cr_assert_eq(virtq_enable(&q, &ram.mem, &config, event_idx), 0);
}

static void start_small(void)
{
	start(SIZE, false);
}

static void stop(void)
{
	virtq_disable(&q);
	if (ram.bytes)
		fake_ram_destroy(&ram);
}

TestSuite(virtq, .init = start_small, .fini = stop);

/* The published chain is refused, the queue broken for good, and nothing came back to the driver. */
static void expect_refused(void)
{
	uint32_t head, length;
	cr_assert_eq(virtq_pop(&q, &chain), -EINVAL);
	cr_assert(q.broken);
	cr_assert(!virtq_has_avail(&q), "a broken queue has work");
	cr_assert(!virtq_want_kicks(&q, true));
	fake_desc(&drv, 0, data, 1, 0, 0);
	fake_publish(&drv, 0);
	cr_assert_eq(virtq_pop(&q, &chain), -EINVAL);
	cr_assert(!fake_used(&drv, &head, &length));
}

static void refuse_head_0(void)
{
	fake_publish(&drv, 0);
	expect_refused();
}

static void accept_head_0(unsigned readable, unsigned writable)
{
	fake_publish(&drv, 0);
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	cr_assert_eq(chain.head, 0);
	cr_assert_eq(chain.readable_count, readable);
	cr_assert_eq(chain.writable_count, writable);
}

/* ---- enabling --------------------------------------------------------------------------------------------------------------- */

static int enable(uint16_t size, gpa_t desc, gpa_t avail, gpa_t used)
{
	struct virtq other = { .mem = NULL };
	const struct virtq_config config = { .size = size, .ready = true, .desc = desc, .avail = avail, .used = used };
	const int result = virtq_enable(&other, &ram.mem, &config, false);
	cr_assert(result == 0 ? other.mem == &ram.mem : other.mem == NULL);
	return result;
}

Test(virtq, enable_refuses_sizes_that_are_no_power_of_two)
{
	for (unsigned size = 0; size <= 0xffff; size++) {
		const bool good = size == 1 || size == 2 || size == 4 || size == 8 || size == 16 || size == 32 || size == 64 ||
				  size == 128 || size == 256 || size == 512;
		cr_assert_eq(enable((uint16_t)size, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x4000, FAKE_RAM_BASE + 0x8000),
			     good ? 0 : -EINVAL);
	}
}

Test(virtq, enable_refuses_misaligned_rings)
{
	for (unsigned off = 0; off < 16; off++) {
		cr_assert_eq(enable(4, FAKE_RAM_BASE + off, FAKE_RAM_BASE + 0x4000, FAKE_RAM_BASE + 0x8000),
			     off % 16 ? -EINVAL : 0);
		cr_assert_eq(enable(4, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x4000 + off, FAKE_RAM_BASE + 0x8000), off % 2 ? -EINVAL : 0);
		cr_assert_eq(enable(4, FAKE_RAM_BASE, FAKE_RAM_BASE + 0x4000, FAKE_RAM_BASE + 0x8000 + off), off % 4 ? -EINVAL : 0);
	}
}

Test(virtq, enable_refuses_rings_outside_ram)
{
	const gpa_t a = FAKE_RAM_BASE, b = FAKE_RAM_BASE + 0x4000, c = FAKE_RAM_BASE + 0x8000, end = fake_ram_end(&ram);
	const gpa_t outside[] = { 0, FAKE_RAM_BASE - 16, end, end - 16, 0xd0000000, 0xfffffffffffffff0, 0x8000000000000000 };
	for (unsigned i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
		cr_assert_eq(enable(16, outside[i], b, c), -EINVAL);
		cr_assert_eq(enable(16, a, outside[i], c), -EINVAL);
		cr_assert_eq(enable(16, a, b, outside[i]), -EINVAL);
	}
}

Test(virtq, enable_takes_rings_that_end_with_ram)
{
	const gpa_t a = FAKE_RAM_BASE, b = FAKE_RAM_BASE + 0x4000, c = FAKE_RAM_BASE + 0x8000, end = fake_ram_end(&ram);
	cr_assert_eq(enable(16, end - 16 * 16, b, c), 0);
	/* used_event and avail_event belong to the rings, EVENT_IDX or not. */
	cr_assert_eq(enable(16, a, end - (6 + 2 * 16), c), 0);
	cr_assert_eq(enable(16, a, end - (4 + 2 * 16), c), -EINVAL);
	cr_assert_eq(enable(1, a, b, end - 16), 0);
	cr_assert_eq(enable(1, a, b, end - 12), -EINVAL);
}

Test(virtq, queue_that_is_not_enabled_does_nothing)
{
	virtq_disable(&q);
	fake_desc(&drv, 0, data, 1, 0, 0);
	fake_publish(&drv, 0);
	cr_assert_eq(virtq_pop(&q, &chain), 0);
	cr_assert(!virtq_has_avail(&q) && !virtq_want_kicks(&q, true) && !virtq_want_kicks(&q, false) &&
		  !virtq_needs_interrupt(&q));
	virtq_push(&q, 0, 1);
	cr_assert_eq(fake_get16(&ram, drv.used + 2), 0);
}

Test(virtq, queue_that_is_enabled_anew_starts_at_0)
{
	uint32_t head, length;
	fake_publish(&drv, SIZE);
	expect_refused();
	fake_queue_init(&drv, &ram, drv.desc, SIZE);
	const struct virtq_config config = fake_queue_config(&drv);
	cr_assert_eq(virtq_enable(&q, &ram.mem, &config, false), 0);
	fake_desc(&drv, 3, data, 1, 0, 0);
	fake_publish(&drv, 3);
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	virtq_push(&q, chain.head, 7);
	cr_assert(fake_used(&drv, &head, &length) && head == 3 && length == 7);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------------- */

Test(virtq, refuses_head_outside_the_table)
{
	fake_publish(&drv, SIZE);
	expect_refused();
}

Test(virtq, refuses_head_65535)
{
	fake_publish(&drv, 0xffff);
	expect_refused();
}

Test(virtq, refuses_next_outside_the_table)
{
	fake_desc(&drv, 0, data, 1, FAKE_NEXT, SIZE);
	refuse_head_0();
}

Test(virtq, ignores_next_without_its_flag)
{
	fake_desc(&drv, 0, data, 1, 0, 0xffff);
	accept_head_0(1, 0);
}

Test(virtq, takes_a_chain_as_long_as_the_queue)
{
	for (unsigned i = 0; i < SIZE; i++)
		fake_desc(&drv, i, data + i, 1, i + 1 < SIZE ? FAKE_NEXT : 0, i + 1);
	accept_head_0(SIZE, 0);
	cr_assert_eq(chain.readable_bytes, SIZE);
}

Test(virtq, refuses_chain_longer_than_the_queue)
{
	for (unsigned i = 0; i < SIZE; i++)
		fake_desc(&drv, i, data + i, 1, FAKE_NEXT, (i + 1) % SIZE);
	refuse_head_0();
}

Test(virtq, refuses_descriptor_that_is_its_own_next)
{
	fake_desc(&drv, 0, data, 1, FAKE_NEXT, 0);
	refuse_head_0();
}

Test(virtq, refuses_cycle_of_empty_descriptors)
{
	fake_desc(&drv, 0, data, 0, FAKE_NEXT, 1);
	fake_desc(&drv, 1, data, 0, FAKE_NEXT, 0);
	refuse_head_0();
}

Test(virtq, refuses_readable_after_writable)
{
	fake_desc(&drv, 0, data, 1, FAKE_WRITE | FAKE_NEXT, 1);
	fake_desc(&drv, 1, data, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_readable_after_writable_in_an_indirect_table)
{
	fake_desc(&drv, 0, data, 32, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, FAKE_WRITE | FAKE_NEXT, 1);
	fake_table_desc(&ram, data, 1, data + 64, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_readable_table_after_writable_descriptor)
{
	fake_desc(&drv, 0, data + 64, 1, FAKE_WRITE | FAKE_NEXT, 1);
	fake_desc(&drv, 1, data, 16, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_nested_indirect_table)
{
	fake_desc(&drv, 0, data, 16, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 16, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data + 64, 0, data + 128, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_that_leads_to_itself)
{
	fake_desc(&drv, 0, data, 16, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data, 16, FAKE_INDIRECT, 0);
	refuse_head_0();
}

Test(virtq, refuses_empty_indirect_table)
{
	fake_desc(&drv, 0, data, 0, FAKE_INDIRECT, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_misaligned_in_length)
{
	fake_desc(&drv, 0, data, 17, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_shorter_than_a_descriptor)
{
	fake_desc(&drv, 0, data, 15, FAKE_INDIRECT, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_with_a_successor)
{
	fake_desc(&drv, 0, data, 16, FAKE_INDIRECT | FAKE_NEXT, 1);
	fake_desc(&drv, 1, data + 64, 1, 0, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_outside_ram)
{
	fake_desc(&drv, 0, fake_ram_end(&ram) - 16, 32, FAKE_INDIRECT, 0);
	refuse_head_0();
}

Test(virtq, refuses_indirect_table_as_long_as_the_address_space)
{
	fake_desc(&drv, 0, data, 0xfffffff0, FAKE_INDIRECT, 0);
	refuse_head_0();
}

Test(virtq, refuses_next_outside_the_indirect_table)
{
	fake_desc(&drv, 0, data, 32, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, FAKE_NEXT, 2);
	refuse_head_0();
}

Test(virtq, refuses_indirect_chain_longer_than_the_queue)
{
	fake_desc(&drv, 0, data, 16 * (SIZE + 1), FAKE_INDIRECT, 0);
	for (unsigned i = 0; i <= SIZE; i++)
		fake_table_desc(&ram, data, i, data + 0x1000, 1, i < SIZE ? FAKE_NEXT : 0, i + 1);
	refuse_head_0();
}

Test(virtq, refuses_cycle_in_an_indirect_table)
{
	fake_desc(&drv, 0, data, 32, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 64, 1, FAKE_NEXT, 1);
	fake_table_desc(&ram, data, 1, data + 64, 1, FAKE_NEXT, 0);
	refuse_head_0();
}

Test(virtq, takes_an_indirect_chain_as_long_as_the_queue)
{
	fake_desc(&drv, 0, data, 16 * SIZE, FAKE_INDIRECT, 0);
	for (unsigned i = 0; i < SIZE; i++)
		fake_table_desc(&ram, data, i, data + 0x1000, 1, (i + 1 < SIZE ? FAKE_NEXT : 0) | (i ? FAKE_WRITE : 0), i + 1);
	accept_head_0(1, SIZE - 1);
}

/* 2.7.5.3.2: descriptors may stand before the one that leads to a table. */
Test(virtq, takes_descriptors_before_an_indirect_table)
{
	fake_desc(&drv, 0, data + 64, 3, FAKE_NEXT, 5);
	fake_desc(&drv, 5, data, 32, FAKE_INDIRECT, 0);
	fake_table_desc(&ram, data, 0, data + 80, 4, FAKE_NEXT, 1);
	fake_table_desc(&ram, data, 1, data + 96, 5, FAKE_WRITE, 0);
	accept_head_0(2, 1);
	cr_assert(chain.readable_bytes == 7 && chain.writable_bytes == 5);
}

/* 2.7.5.3.2: the device must ignore the write-only flag of the descriptor that leads to a table. */
Test(virtq, ignores_the_write_flag_of_an_indirect_table)
{
	fake_desc(&drv, 0, data, 32, FAKE_INDIRECT | FAKE_WRITE, 0);
	fake_table_desc(&ram, data, 0, data + 80, 4, FAKE_NEXT, 1);
	fake_table_desc(&ram, data, 1, data + 96, 5, FAKE_WRITE, 0);
	accept_head_0(1, 1);
}

Test(virtq, refuses_range_before_ram)
{
	fake_desc(&drv, 0, FAKE_RAM_BASE - 1, 2, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_range_over_the_end_of_ram)
{
	fake_desc(&drv, 0, fake_ram_end(&ram) - 4, 5, FAKE_WRITE, 0);
	refuse_head_0();
}

Test(virtq, refuses_range_behind_ram)
{
	fake_desc(&drv, 0, fake_ram_end(&ram), 1, 0, 0);
	refuse_head_0();
}

Test(virtq, refuses_range_that_wraps_the_address_space)
{
	fake_desc(&drv, 0, 0ull - 16, 0xffffffff, FAKE_WRITE, 0);
	refuse_head_0();
}

Test(virtq, refuses_bad_range_in_a_later_descriptor)
{
	fake_desc(&drv, 0, data, 1, FAKE_NEXT, 1);
	fake_desc(&drv, 1, data, 1, FAKE_WRITE | FAKE_NEXT, 2);
	fake_desc(&drv, 2, 0xdeadbeef000, 1, FAKE_WRITE, 0);
	refuse_head_0();
}

Test(virtq, takes_a_range_that_ends_with_ram)
{
	fake_desc(&drv, 0, fake_ram_end(&ram) - 4, 4, FAKE_WRITE, 0);
	accept_head_0(0, 1);
	memset(virtq_writable(&chain)->iov_base, 1, 4);
}

/* A length of 0 offers nothing, wherever it points. */
Test(virtq, drops_empty_descriptors)
{
	fake_desc(&drv, 0, 0xdeadbeef000, 0, FAKE_NEXT, 1);
	fake_desc(&drv, 1, data, 1, FAKE_NEXT, 2);
	fake_desc(&drv, 2, data, 0, FAKE_NEXT | FAKE_WRITE, 3);
	fake_desc(&drv, 3, data, 1, FAKE_WRITE, 0);
	accept_head_0(1, 1);
}

/* 64 MiB of lazily mapped RAM, offered 64 times: 4 GiB, one byte more than a total may have. */
static void offer_4_gib(unsigned flags, uint32_t less)
{
	const uint32_t bytes = 64u << 20;
	uint8_t *big = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	cr_assert(big != MAP_FAILED);
	fake_ram_destroy(&ram);
	ram.bytes = big;
	ram.size_bytes = bytes;
	guest_mem_from_buffer(&ram.mem, FAKE_RAM_BASE, big, bytes);
	fake_queue_init(&drv, &ram, FAKE_RAM_BASE, 64);
	const struct virtq_config config = fake_queue_config(&drv);
	cr_assert_eq(virtq_enable(&q, &ram.mem, &config, false), 0);
	for (unsigned i = 0; i < 64; i++)
		fake_desc(&drv, i, FAKE_RAM_BASE, i == 63 ? bytes - less : bytes, flags | (i < 63 ? FAKE_NEXT : 0), i + 1);
	fake_publish(&drv, 0);
	ram.bytes = NULL; /* not of the heap: left to the end of the process */
}

Test(virtq, refuses_total_length_over_32_bits_readable)
{
	offer_4_gib(0, 0);
	cr_assert_eq(virtq_pop(&q, &chain), -EINVAL);
}

Test(virtq, refuses_total_length_over_32_bits_writable)
{
	offer_4_gib(FAKE_WRITE, 0);
	cr_assert_eq(virtq_pop(&q, &chain), -EINVAL);
}

Test(virtq, takes_a_total_length_of_32_bits)
{
	offer_4_gib(FAKE_WRITE, 1);
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	cr_assert_eq(chain.writable_bytes, UINT32_MAX);
}

Test(virtq, takes_an_available_index_size_ahead)
{
	for (unsigned i = 0; i < SIZE; i++) {
		fake_desc(&drv, i, data, 1, 0, 0);
		fake_publish(&drv, (uint16_t)i);
	}
	for (unsigned i = 0; i < SIZE; i++)
		cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == i);
	cr_assert_eq(virtq_pop(&q, &chain), 0);
}

Test(virtq, refuses_available_index_more_than_size_ahead)
{
	fake_put16(&ram, drv.avail + 2, SIZE + 1);
	drv.avail_idx = SIZE + 1;
	expect_refused();
}

Test(virtq, refuses_available_index_that_went_back)
{
	fake_desc(&drv, 0, data, 1, 0, 0);
	fake_publish(&drv, 0);
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	fake_put16(&ram, drv.avail + 2, 0);
	cr_assert_eq(virtq_pop(&q, &chain), -EINVAL);
	cr_assert(q.broken);
}

/* ---- popping and pushing ---------------------------------------------------------------------------------------------------- */

Test(virtq, empty_queue_has_nothing)
{
	cr_assert(!virtq_has_avail(&q));
	cr_assert_eq(virtq_pop(&q, &chain), 0);
}

Test(virtq, unpop_gives_the_same_chain_again)
{
	fake_desc(&drv, 2, data, 1, 0, 0);
	fake_desc(&drv, 3, data, 1, 0, 0);
	fake_publish(&drv, 2);
	fake_publish(&drv, 3);
	cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == 2);
	virtq_unpop(&q);
	cr_assert(virtq_has_avail(&q));
	/* Copied and checked anew: what the driver made of it meanwhile counts. */
	fake_desc(&drv, 2, data, 9, FAKE_WRITE, 0);
	cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == 2 && chain.writable_bytes == 9 && chain.readable_bytes == 0);
	cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == 3);
	cr_assert(!virtq_has_avail(&q));
}

Test(virtq, unpop_over_the_wrap_of_the_index)
{
	q.next_avail = drv.avail_idx = 0xffff;
	fake_put16(&ram, drv.avail + 2, 0xffff);
	fake_desc(&drv, 1, data, 1, 0, 0);
	fake_publish(&drv, 1);
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	cr_assert_eq(q.next_avail, 0);
	virtq_unpop(&q);
	cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == 1);
}

Test(virtq, push_may_be_out_of_order)
{
	uint32_t head, length;
	for (unsigned i = 0; i < 3; i++) {
		fake_desc(&drv, i, data, 100, FAKE_WRITE, 0);
		fake_publish(&drv, (uint16_t)i);
		cr_assert_eq(virtq_pop(&q, &chain), 1);
	}
	virtq_push(&q, 2, 20);
	virtq_push(&q, 0, 0);
	virtq_push(&q, 1, UINT32_MAX);
	cr_assert(fake_used(&drv, &head, &length) && head == 2 && length == 20);
	cr_assert(fake_used(&drv, &head, &length) && head == 0 && length == 0);
	cr_assert(fake_used(&drv, &head, &length) && head == 1 && length == UINT32_MAX);
	cr_assert(!fake_used(&drv, &head, &length));
}

Test(virtq, used_index_is_never_read_back)
{
	fake_put16(&ram, drv.used + 2, 0x1234);
	virtq_push(&q, 5, 6);
	cr_assert_eq(fake_get16(&ram, drv.used + 2), 1);
	cr_assert_eq(fake_get32(&ram, drv.used + 4), 5);
}

Test(virtq, same_head_may_come_again)
{
	fake_desc(&drv, 0, data, 1, 0, 0);
	fake_publish(&drv, 0);
	fake_publish(&drv, 0);
	cr_assert(virtq_pop(&q, &chain) == 1 && virtq_pop(&q, &chain) == 1 && virtq_pop(&q, &chain) == 0);
}

/* The 16-bit indices wrap twice on the way, in queues of the smallest, an ordinary and the largest size. */
static void run_through(uint16_t size, bool event_idx)
{
	fake_ram_destroy(&ram);
	start(size, event_idx);
	uint32_t head, length;
	for (unsigned i = 0; i < 140000; i++) {
		const uint16_t index = (uint16_t)(i * 7 % size);
		fake_desc(&drv, index, data + i % 1000, 1 + i % 50, FAKE_WRITE, 0);
		fake_publish(&drv, index);
		cr_assert(virtq_has_avail(&q));
		cr_assert(virtq_pop(&q, &chain) == 1 && chain.head == index);
		cr_assert(chain.writable_bytes == 1 + i % 50 && chain.iov[0].iov_base == fake_at(&ram, data + i % 1000));
		virtq_push(&q, index, i);
		cr_assert(fake_used(&drv, &head, &length) && head == index && length == i);
		if (event_idx)
			fake_set_used_event(&drv, (uint16_t)i); /* the driver wants the next one */
		cr_assert(virtq_needs_interrupt(&q));
	}
	cr_assert(!virtq_has_avail(&q) && virtq_pop(&q, &chain) == 0);
}

Test(virtq, indices_wrap_size_1)
{
	run_through(1, false);
}

Test(virtq, indices_wrap_size_4_event_idx)
{
	run_through(4, true);
}

Test(virtq, indices_wrap_size_256_event_idx)
{
	run_through(256, true);
}

/* ---- notifications ---------------------------------------------------------------------------------------------------------- */

Test(virtq, interrupt_unless_the_driver_set_the_flag)
{
	virtq_push(&q, 0, 0);
	cr_assert(virtq_needs_interrupt(&q));
	fake_put16(&ram, drv.avail, 1);
	virtq_push(&q, 0, 0);
	cr_assert(!virtq_needs_interrupt(&q));
	fake_put16(&ram, drv.avail, 0);
	virtq_push(&q, 0, 0);
	cr_assert(virtq_needs_interrupt(&q));
}

Test(virtq, no_interrupt_without_a_push)
{
	cr_assert(!virtq_needs_interrupt(&q));
	virtq_push(&q, 0, 0);
	cr_assert(virtq_needs_interrupt(&q));
	cr_assert(!virtq_needs_interrupt(&q));
}

Test(virtq, kicks_are_asked_for_and_off_by_the_flag)
{
	cr_assert(!virtq_want_kicks(&q, false));
	cr_assert_eq(fake_get16(&ram, drv.used), 1);
	cr_assert(!virtq_want_kicks(&q, true));
	cr_assert_eq(fake_get16(&ram, drv.used), 0);
}

Test(virtq, want_kicks_tells_of_requests_that_came_before)
{
	virtq_want_kicks(&q, false);
	fake_desc(&drv, 0, data, 1, 0, 0);
	fake_publish(&drv, 0);
	cr_assert(!virtq_want_kicks(&q, false));
	cr_assert(virtq_want_kicks(&q, true));
	cr_assert_eq(virtq_pop(&q, &chain), 1);
	cr_assert(!virtq_want_kicks(&q, true));
}

static void start_event_idx(void)
{
	start(SIZE, true);
}

TestSuite(virtq_event_idx, .init = start_event_idx, .fini = stop);

/* 2.7.7.2: interrupt when used_event is among the indices that were pushed since the last decision. */
Test(virtq_event_idx, interrupt_when_used_event_was_passed)
{
	uint64_t seed = 6;
	for (unsigned round = 0; round < 20000; round++) {
		const uint16_t before = (uint16_t)fake_random(&seed);
		const uint16_t pushes = (uint16_t)(1 + fake_below(&seed, SIZE));
		const uint16_t used_event = (uint16_t)(before + fake_below(&seed, 2 * SIZE + 4) - SIZE / 2);
		q.next_used = q.signalled_used = before;
		bool passed = false;
		for (uint16_t i = 0; i < pushes; i++) {
			virtq_push(&q, 0, 0);
			passed |= (uint16_t)(before + i) == used_event;
		}
		fake_set_used_event(&drv, used_event);
		cr_assert_eq(virtq_needs_interrupt(&q), passed);
		cr_assert(!virtq_needs_interrupt(&q), "the same push interrupts twice");
	}
}

/* 2.7.7.2: the flag means nothing here. */
Test(virtq_event_idx, avail_flag_is_ignored)
{
	fake_put16(&ram, drv.avail, 1);
	fake_set_used_event(&drv, 0);
	virtq_push(&q, 0, 0);
	cr_assert(virtq_needs_interrupt(&q));
}

/* 2.7.10.1: used.flags stays 0; avail_event is the index of the next request. */
Test(virtq_event_idx, kicks_are_asked_for_at_the_next_index)
{
	for (unsigned i = 0; i < 5; i++) {
		fake_desc(&drv, i, data, 1, 0, 0);
		fake_publish(&drv, (uint16_t)i);
	}
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(virtq_pop(&q, &chain), 1);
	cr_assert(!virtq_want_kicks(&q, false));
	cr_assert_eq(fake_avail_event(&drv), 0);
	cr_assert(virtq_want_kicks(&q, true));
	cr_assert_eq(fake_avail_event(&drv), 3);
	cr_assert(virtq_pop(&q, &chain) == 1 && virtq_pop(&q, &chain) == 1);
	cr_assert(!virtq_want_kicks(&q, true));
	cr_assert_eq(fake_avail_event(&drv), 5);
	cr_assert_eq(fake_get16(&ram, drv.used), 0);
}

/* ---- all valid chains ------------------------------------------------------------------------------------------------------- */

struct piece {
	gpa_t at;
	uint32_t length;
};

/* Cuts `total` bytes at `at` into at most `most` pieces, some of them empty. Returns how many. */
static unsigned cut(uint64_t *seed, gpa_t at, uint32_t total, unsigned most, struct piece *pieces)
{
	unsigned count = 0;
	while (total && count + 1 < most) {
		const uint32_t length = fake_below(seed, 4) ? fake_below(seed, total + 1) : 0;
		pieces[count++] = (struct piece){ at, length };
		at += length;
		total -= length;
	}
	if (total)
		pieces[count++] = (struct piece){ at, total };
	return count;
}

/* Writes the chain's descriptors in random places of the table, or behind `table` when indirect. Returns the head. */
static uint16_t put_chain(uint64_t *seed, const struct piece *pieces, unsigned count, unsigned readable, bool indirect, gpa_t table)
{
	uint16_t order[VIRTQ_MAX_SIZE];
	const unsigned entries = indirect ? count : drv.size;
	for (unsigned i = 0; i < entries; i++)
		order[i] = (uint16_t)i;
	/* An indirect chain begins at entry 0. */
	for (unsigned i = entries; i-- > (indirect ? 2u : 1u);) {
		const unsigned low = indirect ? 1 : 0;
		const unsigned j = low + fake_below(seed, i - low + 1);
		const uint16_t other = order[i];
		order[i] = order[j];
		order[j] = other;
	}
	for (unsigned i = 0; i < count; i++) {
		const unsigned flags = (i >= readable ? FAKE_WRITE : 0) | (i + 1 < count ? FAKE_NEXT : 0);
		fake_table_desc(&ram, indirect ? table : drv.desc, order[i], pieces[i].at, pieces[i].length, flags,
				i + 1 < count ? order[i + 1] : (unsigned)fake_below(seed, 0x10000));
	}
	if (!indirect)
		return order[0];
	const uint16_t head = (uint16_t)fake_below(seed, drv.size);
	fake_desc(&drv, head, table, 16 * count, FAKE_INDIRECT | (fake_below(seed, 2) ? FAKE_WRITE : 0), 0xffff);
	return head;
}

static void random_chains(uint16_t size, unsigned rounds, uint64_t seed)
{
	static uint8_t sent[3000], got[3000];
	start(size, fake_below(&seed, 2));
	for (unsigned round = 0; round < rounds; round++) {
		struct piece pieces[VIRTQ_MAX_SIZE];
		const uint32_t readable_bytes = fake_below(&seed, sizeof(sent)), writable_bytes = fake_below(&seed, sizeof(sent));
		/* The table takes at most `size` entries of 16 bytes; then the two buffers, at any alignment. */
		const gpa_t table = data + 16 * fake_below(&seed, 4);
		const gpa_t out = data + 0x2000 + fake_below(&seed, 64), in = out + sizeof(sent) + fake_below(&seed, 64);
		const unsigned most = 1 + fake_below(&seed, size);
		unsigned readable = most > 1 ? cut(&seed, out, readable_bytes, most / 2, pieces) : 0;
		unsigned count = readable + cut(&seed, in, writable_bytes, most - readable, pieces + readable);
		if (count == 0) {
			pieces[count++] = (struct piece){ out, 0 };
			readable = 1;
		}
		fake_fill(&seed, fake_at(&ram, out), sizeof(sent) * 2 + 64);
		memcpy(sent, fake_at(&ram, out), sizeof(sent));
		const uint16_t head = put_chain(&seed, pieces, count, readable, fake_below(&seed, 2), table);
		fake_publish(&drv, head);

		const uint32_t want_out = readable && readable_bytes ? readable_bytes : 0;
		cr_assert_eq(virtq_pop(&q, &chain), 1);
		cr_assert_eq(chain.head, head);
		uint32_t readable_sum = 0, writable_sum = 0;
		for (unsigned i = 0; i < count; i++)
			*(i < readable ? &readable_sum : &writable_sum) += pieces[i].length;
		cr_assert(readable_sum == 0 || readable_sum == want_out);
		cr_assert(chain.readable_bytes == readable_sum && chain.writable_bytes == writable_sum);
		cr_assert_eq(iov_total(virtq_readable(&chain), chain.readable_count), readable_sum);
		cr_assert_eq(iov_total(virtq_writable(&chain), chain.writable_count), writable_sum);
		cr_assert_eq(iov_copy_out(virtq_readable(&chain), chain.readable_count, 0, got, sizeof(got)), readable_sum);
		cr_assert(!memcmp(got, sent, readable_sum));
		fake_fill(&seed, got, writable_sum);
		cr_assert_eq(iov_copy_in(virtq_writable(&chain), chain.writable_count, 0, got, writable_sum), writable_sum);
		cr_assert(!memcmp(fake_at(&ram, in), got, writable_sum));
		uint32_t used_head, used_length;
		virtq_push(&q, head, writable_sum);
		cr_assert(fake_used(&drv, &used_head, &used_length) && used_head == head && used_length == writable_sum);
	}
	stop();
}

Test(virtq_random, chains_arrive_as_sent_size_1)
{
	random_chains(1, 2000, 7);
}

Test(virtq_random, chains_arrive_as_sent_size_16)
{
	random_chains(16, 4000, 8);
}

Test(virtq_random, chains_arrive_as_sent_size_256)
{
	random_chains(256, 4000, 9);
}

/* Rings of noise: whatever is popped lies in RAM, and the sanitizer sees no other access. */
Test(virtq_random, noise_never_leaves_ram)
{
	uint64_t seed = 10;
	unsigned taken = 0;
	for (unsigned round = 0; round < 30000; round++) {
		if (!ram.bytes)
			start(16, true);
		const struct virtq_config config = fake_queue_config(&drv);
		for (unsigned i = 0; i < 48; i++) {
			const gpa_t at = FAKE_RAM_BASE + fake_below(&seed, RAM_BYTES + 64) - 32;
			fake_table_desc(&ram, i < 16 ? drv.desc : data, i < 16 ? i : i - 16, fake_below(&seed, 3) ? at : data,
					fake_below(&seed, 2) ? 16 * fake_below(&seed, 40) : fake_below(&seed, RAM_BYTES),
					fake_below(&seed, 8), fake_below(&seed, 18));
		}
		for (unsigned i = 0; i < 16; i++)
			fake_put16(&ram, drv.avail + 4 + 2 * i, (uint16_t)fake_below(&seed, 18));
		fake_put16(&ram, drv.avail + 2, (uint16_t)fake_below(&seed, 18));
		cr_assert_eq(virtq_enable(&q, &ram.mem, &config, true), 0);
		while (virtq_pop(&q, &chain) == 1) {
			taken++;
			for (unsigned i = 0; i < chain.readable_count + chain.writable_count; i++) {
				const uint8_t *at = chain.iov[i].iov_base;
				cr_assert(at >= ram.bytes && chain.iov[i].iov_len <= (size_t)(ram.bytes + RAM_BYTES - at));
				cr_assert(chain.iov[i].iov_len > 0);
			}
		}
	}
	cr_assert(taken > 1000, "the noise is too loud: only %u chains", taken);
	stop();
}
