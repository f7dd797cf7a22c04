/* devices/virtio/shm_bounce.c: buffers in devices' shared memory, of which parts cannot be touched. */
#include "devices/virtio/shm_bounce.h"

#include <criterion/criterion.h>
#include <errno.h>

#include "tests/unit/fake_driver.h"

#define RAM_BYTES 0x10000u
#define DATA_AT (FAKE_RAM_BASE + 0x4000)

static struct fake_ram ram;
static struct fake_queue drv;
static struct virtq q;
static struct virtq_chain chain;
static struct shm_bounce bounce;
static uint8_t *shm;

static void setup(void)
{
	fake_ram_init(&ram, RAM_BYTES);
	fake_queue_init(&drv, &ram, FAKE_RAM_BASE, 16);
	shm = fake_shm_add(&ram);
	const struct virtq_config config = fake_queue_config(&drv);
	cr_assert_eq(virtq_enable(&q, &ram.mem, &config, false), 0);
	q.takes_shm = true;
}

static void teardown(void)
{
	fake_shm_destroy(shm);
	fake_ram_destroy(&ram);
}

TestSuite(shm_bounce, .init = setup, .fini = teardown);

/* 8 readable bytes at `from`, then writable: 8 in RAM and `bytes` at `to`. */
static int pop(gpa_t from, gpa_t to, uint32_t bytes)
{
	fake_desc(&drv, 0, from, 8, FAKE_NEXT, 1);
	fake_desc(&drv, 1, DATA_AT + 64, 8, FAKE_NEXT | FAKE_WRITE, 2);
	fake_desc(&drv, 2, to, bytes, FAKE_WRITE, 0);
	fake_publish(&drv, 0);
	return virtq_pop(&q, &chain);
}

Test(shm_bounce, chains_in_ram_have_none)
{
	cr_assert(pop(DATA_AT, DATA_AT + 128, 8) == 1 && !chain.shm);
}

Test(shm_bounce, queues_that_do_not_take_it_refuse_it)
{
	q.takes_shm = false;
	cr_assert_eq(pop(DATA_AT, FAKE_SHM_BASE, 8), -EINVAL);
}

Test(shm_bounce, what_is_not_all_in_it_is_refused)
{
	cr_assert_eq(pop(DATA_AT, FAKE_SHM_BASE + FAKE_SHM_BYTES - 4, 8), -EINVAL);
}

Test(shm_bounce, parts_are_copied_out_and_back)
{
	memcpy(shm + 16, "readable", 8);
	memcpy(shm + 4000, "--------", 8);
	cr_assert(pop(FAKE_SHM_BASE + 16, FAKE_SHM_BASE + 4000, 8) == 1 && chain.shm);
	cr_assert_eq(shm_bounce_begin(&ram.mem, &chain, &bounce), 0);
	for (unsigned i = 0; i < 3; i++)
		cr_assert(!guest_is_shm(&ram.mem, chain.iov[i].iov_base));
	cr_assert_eq(memcmp(chain.iov[0].iov_base, "readable", 8), 0);
	memcpy(chain.iov[1].iov_base, "in RAM.", 8);
	memcpy(chain.iov[2].iov_base, "written.", 8);
	/* As far as it was written. */
	cr_assert_eq(shm_bounce_copy_back(&chain, &bounce, 8 + 4), 0);
	cr_assert_eq(memcmp(shm + 4000, "writ----", 8), 0);
	cr_assert_eq(memcmp(fake_at(&ram, DATA_AT + 64), "in RAM.", 8), 0);
	shm_bounce_end(&bounce);
}

Test(shm_bounce, what_cannot_be_read_is_zero_and_an_error)
{
	cr_assert(pop(FAKE_SHM_BASE + 4092, FAKE_SHM_BASE, 8) == 1);
	cr_assert_eq(shm_bounce_begin(&ram.mem, &chain, &bounce), -EFAULT);
	cr_assert_eq(memcmp((uint8_t *)chain.iov[0].iov_base + 4, "\0\0\0", 4), 0);
	cr_assert_eq(shm_bounce_copy_back(&chain, &bounce, 16), 0);
	shm_bounce_end(&bounce);
}

Test(shm_bounce, what_cannot_be_written_is_an_error)
{
	cr_assert(pop(DATA_AT, FAKE_SHM_BASE + 4092, 8) == 1);
	cr_assert_eq(shm_bounce_begin(&ram.mem, &chain, &bounce), 0);
	memset(chain.iov[2].iov_base, 'x', 8);
	cr_assert_eq(shm_bounce_copy_back(&chain, &bounce, 12), 0, "up to the end of the page");
	cr_assert_eq(shm_bounce_copy_back(&chain, &bounce, 16), -EFAULT);
	shm_bounce_end(&bounce);
}

Test(shm_bounce, its_size_is_bounded)
{
	cr_assert(pop(DATA_AT, FAKE_SHM_BASE, SHM_BOUNCE_MAX_BYTES) == 1);
	cr_assert_eq(shm_bounce_begin(&ram.mem, &chain, &bounce), 0);
	shm_bounce_end(&bounce);
	cr_assert(pop(DATA_AT, FAKE_SHM_BASE, SHM_BOUNCE_MAX_BYTES + 1) == 1);
	cr_assert_eq(shm_bounce_begin(&ram.mem, &chain, &bounce), -E2BIG);
	shm_bounce_end(&bounce);
}
