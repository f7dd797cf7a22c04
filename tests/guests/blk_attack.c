/*
 * Malformed rings and hostile requests, each against a fresh device. A malformed ring stops the device (DEVICE_NEEDS_RESET), a
 * well-formed chain with a bad request gets an error status, one that cannot hold a request goes back empty. After each the device
 * works again, at the latest after a reset.
 */
#include "tests/guests/guest.h"

#define SIZE 128u
#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT
#define END ((uint64_t)WORLD_MEMORY_BYTES)
#define SECTOR WORLD_SECTOR_BYTES
#define UNTOUCHED (WORLD_WRITABLE_FIRST + 1000) /* of a write that could not be answered, and is not done */

enum outcome {
	FAILS, /* DEVICE_NEEDS_RESET */
	EMPTY, /* comes back with length 0 and nothing written */
	OK, /* VIRTIO_BLK_S_OK, and so on */
	IOERR,
	UNSUPP,
	SURVIVES, /* whatever it answers: the attack destroyed its own rings */
};

struct row {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct attack {
	const char *name;
	enum outcome outcome;
	uint32_t type;
	uint64_t sector;
	uint16_t head;
	struct row desc[5];
	struct row table[4]; /* the indirect table at `table` */
};

struct range {
	uint64_t sector;
	uint32_t count, flags;
};

static struct device disk, ro_disk;
static struct blk_header header;
static volatile uint8_t status;
static uint64_t data[8 * WORLD_SECTOR_WORDS] __attribute__((aligned(4096)));
static struct vring_desc table[160] __attribute__((aligned(16)));
static struct range ranges[17];

#define AT(object) ((uint64_t) & (object))
/* clang-format off */
#define HEADER { AT(header), 16, N, 1 }
#define DATA { AT(data), SECTOR, N | W, 2 }
#define STATUS { AT(status), 1, W, 0 }
#define TABLE(entries, flags, next) { AT(table), (entries) * 16, I | (flags), (next) }

static const struct attack chains[] = {
	/* Ranges outside RAM: Firecracker CVE-2019-18960 was the second. */
	{ "data just behind RAM", FAILS, .desc = { HEADER, { END, SECTOR, N | W, 2 }, STATUS } },
	{ "data over the end of RAM", FAILS, .desc = { HEADER, { END - 256, SECTOR, N | W, 2 }, STATUS } },
	{ "one byte over the end of RAM", FAILS, .desc = { HEADER, { END - SECTOR + 1, SECTOR, N | W, 2 }, STATUS } },
	{ "data up to the last byte of RAM", OK, .desc = { HEADER, { END - SECTOR, SECTOR, N | W, 2 }, STATUS } },
	{ "data in a device's registers", FAILS, .desc = { HEADER, { 0xd0000000, SECTOR, N | W, 2 }, STATUS } },
	{ "data in the interrupt controller", FAILS, .desc = { HEADER, { 0xfee00000, SECTOR, N | W, 2 }, STATUS } },
	{ "data above 4 GiB", FAILS, .desc = { HEADER, { 0x100000000, SECTOR, N | W, 2 }, STATUS } },
	{ "data whose end wraps", FAILS, .desc = { HEADER, { UINT64_MAX - 255, SECTOR, N | W, 2 }, STATUS } },
	{ "data at the highest address", FAILS, .desc = { HEADER, { UINT64_MAX, 1, N | W, 2 }, STATUS } },
	{ "data at a negative address", FAILS, .desc = { HEADER, { 1ull << 63, SECTOR, N | W, 2 }, STATUS } },
	{ "data of 4 GiB - 1", FAILS, .desc = { HEADER, { AT(data), UINT32_MAX, N | W, 2 }, STATUS } },
	{ "data whose 32-bit sum with the address wraps", FAILS,
	  .desc = { HEADER, { END - SECTOR, 0u - (32u << 20) + SECTOR, N | W, 2 }, STATUS } },
	{ "header behind RAM", FAILS, .desc = { { END, 16, N, 1 }, DATA, STATUS } },
	{ "header over the end of RAM", FAILS, .desc = { { END - 8, 16, N, 1 }, DATA, STATUS } },
	{ "status behind RAM", FAILS, .desc = { HEADER, DATA, { END, 1, W, 0 } } },
	{ "empty buffer at an address that is not there", OK, .desc = { HEADER, { END, 0, N | W, 2 }, STATUS } },

	/* Links. */
	{ "head outside the table", FAILS, .head = SIZE, .desc = { HEADER, DATA, STATUS } },
	{ "head 65535", FAILS, .head = 65535, .desc = { HEADER, DATA, STATUS } },
	{ "next outside the table", FAILS, .desc = { HEADER, { AT(data), SECTOR, N | W, SIZE }, STATUS } },
	{ "next 65535", FAILS, .desc = { HEADER, { AT(data), SECTOR, N | W, 65535 }, STATUS } },
	{ "a descriptor that follows itself", FAILS, .desc = { { AT(header), 16, N, 0 } } },
	{ "a cycle of two", FAILS, .desc = { HEADER, { AT(data), SECTOR, N, 0 } } },
	{ "a cycle behind the header", FAILS, .desc = { HEADER, DATA, { AT(data), SECTOR, N | W, 1 } } },
	{ "a cycle of empty buffers", FAILS, .desc = { HEADER, { AT(data), 0, N | W, 2 }, { AT(data), 0, N | W, 1 } } },
	{ "readable behind writable", FAILS, .desc = { HEADER, DATA, { AT(data), SECTOR, N, 3 }, STATUS } },
	{ "header behind status", FAILS, .desc = { { AT(status), 1, N | W, 1 }, { AT(header), 16, 0, 0 } } },
	{ "readable last", FAILS, .desc = { HEADER, DATA, { AT(status), 1, 0, 0 } } },

	/* Indirect tables. */
	{ "indirect table in an indirect table", FAILS, .desc = { TABLE(3, 0, 0) }, .table = { HEADER, { AT(table), 48, I, 0 } } },
	{ "indirect table that is its own entry", FAILS, .desc = { TABLE(1, 0, 0) }, .table = { { AT(table), 16, I, 0 } } },
	{ "empty indirect table", FAILS, .desc = { TABLE(0, 0, 0) }, .table = { HEADER, DATA, STATUS } },
	{ "indirect table of 17 bytes", FAILS, .desc = { { AT(table), 17, I, 0 } }, .table = { { AT(header), 16, 0, 0 } } },
	{ "indirect table of 8 bytes", FAILS, .desc = { { AT(table), 8, I, 0 } }, .table = { { AT(header), 16, 0, 0 } } },
	{ "indirect table with a successor", FAILS, .desc = { TABLE(3, N, 1), STATUS }, .table = { HEADER, DATA, STATUS } },
	{ "indirect table behind RAM", FAILS, .desc = { { END, 48, I, 0 } } },
	{ "indirect table over the end of RAM", FAILS, .desc = { { END - 32, 48, I, 0 } } },
	{ "indirect table at the highest address", FAILS, .desc = { { UINT64_MAX - 15, 48, I, 0 } } },
	{ "indirect table of 4 GiB", FAILS, .desc = { { AT(table), 0xfffffff0, I, 0 } }, .table = { HEADER, DATA, STATUS } },
	{ "next outside an indirect table", FAILS, .desc = { TABLE(3, 0, 0) },
	  .table = { HEADER, { AT(data), SECTOR, N | W, 3 }, STATUS } },
	{ "next inside the queue but outside the table", FAILS, .desc = { TABLE(1, 0, 0), DATA, STATUS }, .table = { HEADER } },
	{ "a cycle in an indirect table", FAILS, .desc = { TABLE(3, 0, 0) }, .table = { HEADER, { AT(data), 1, N | W, 1 } } },
	{ "address behind RAM in an indirect table", FAILS, .desc = { TABLE(3, 0, 0) },
	  .table = { HEADER, { END, SECTOR, N | W, 2 }, STATUS } },
	{ "the queue's own table as an indirect one", FAILS, .desc = { { 0, 0, I, 0 } } }, /* see prepare() */

	/* Chains that hold no request. */
	{ "header only", EMPTY, .desc = { { AT(header), 16, 0, 0 } } },
	{ "status only", EMPTY, .desc = { STATUS } },
	{ "data and status only", EMPTY, .desc = { { AT(data), SECTOR, N | W, 1 }, { AT(status), 1, W, 0 } } },
	{ "one empty readable buffer", EMPTY, .desc = { { AT(header), 0, 0, 0 } } },
	{ "one empty writable buffer", EMPTY, .desc = { { AT(status), 0, W, 0 } } },
	{ "header of 15 bytes", EMPTY, .desc = { { AT(header), 15, N, 1 }, DATA, STATUS } },
	{ "header and data, both readable", EMPTY, .type = VIRTIO_BLK_T_OUT, .sector = UNTOUCHED,
	  .desc = { HEADER, { AT(data), SECTOR, 0, 0 } } },
	{ "header and empty status", EMPTY, .desc = { HEADER, { AT(status), 0, W, 0 } } },

	/* Requests beyond the disk, in broken sectors, of kinds that do not exist. */
	{ "read behind the disk", IOERR, .sector = WORLD_DISK_SECTORS, .desc = { HEADER, DATA, STATUS } },
	{ "read over the end of the disk", IOERR, .sector = WORLD_DISK_SECTORS - 1,
	  .desc = { HEADER, { AT(data), 2 * SECTOR, N | W, 2 }, STATUS } },
	{ "sector whose byte offset wraps to 0", IOERR, .sector = 1ull << 55, .desc = { HEADER, DATA, STATUS } },
	{ "sector 2^64 - 1", IOERR, .sector = UINT64_MAX, .desc = { HEADER, DATA, STATUS } },
	{ "sector 2^63", IOERR, .sector = 1ull << 63, .desc = { HEADER, DATA, STATUS } },
	{ "read of 511 bytes", IOERR, .desc = { HEADER, { AT(data), 511, N | W, 2 }, STATUS } },
	{ "read of 513 bytes", IOERR, .desc = { HEADER, { AT(data), 513, N | W, 2 }, STATUS } },
	{ "write of 1 byte", IOERR, .type = VIRTIO_BLK_T_OUT, .sector = WORLD_WRITABLE_FIRST,
	  .desc = { HEADER, { AT(data), 1, N, 2 }, STATUS } },
	{ "write behind the disk", IOERR, .type = VIRTIO_BLK_T_OUT, .sector = WORLD_DISK_SECTORS,
	  .desc = { HEADER, { AT(data), SECTOR, N, 2 }, STATUS } },
	{ "write over the end of the disk", IOERR, .type = VIRTIO_BLK_T_OUT, .sector = WORLD_DISK_SECTORS - 1,
	  .desc = { HEADER, { AT(data), 2 * SECTOR, N, 2 }, STATUS } },
	{ "write whose data is writable", OK, .type = VIRTIO_BLK_T_OUT, .sector = 0,
	  .desc = { HEADER, DATA, STATUS } }, /* of 0 bytes */
	{ "empty read behind the disk", IOERR, .sector = UINT64_MAX, .desc = { HEADER, STATUS, STATUS } },
	{ "SCSI command", UNSUPP, .type = 2, .desc = { HEADER, DATA, STATUS } },
	{ "SCSI command out", UNSUPP, .type = 3, .desc = { HEADER, DATA, STATUS } },
	{ "type 5", UNSUPP, .type = 5, .desc = { HEADER, DATA, STATUS } },
	{ "secure erase", UNSUPP, .type = 14, .desc = { HEADER, { AT(ranges), 16, N, 2 }, STATUS } },
	{ "lifetime", UNSUPP, .type = 10, .desc = { HEADER, DATA, STATUS } },
	{ "the old barrier bit", UNSUPP, .type = 0x80000000u, .desc = { HEADER, DATA, STATUS } },
	{ "type 2^32 - 1", UNSUPP, .type = UINT32_MAX, .desc = { HEADER, DATA, STATUS } },
	{ "id into no buffer", OK, .type = VIRTIO_BLK_T_GET_ID, .desc = { { AT(header), 16, N, 2 }, DATA, STATUS } },
	{ "id into one byte", OK, .type = VIRTIO_BLK_T_GET_ID, .desc = { HEADER, { AT(data), 1, N | W, 2 }, STATUS } },
	{ "id into 4 KiB", OK, .type = VIRTIO_BLK_T_GET_ID, .desc = { HEADER, { AT(data), 4096, N | W, 2 }, STATUS } },
	{ "flush with data", OK, .type = VIRTIO_BLK_T_FLUSH, .sector = UINT64_MAX, .desc = { HEADER, DATA, STATUS } },

	/* Requests that overwrite what describes them. */
	{ "read over its own header", OK, .sector = 8,
	  .desc = { HEADER, { AT(header), 16, N | W, 2 }, { AT(data), SECTOR - 16, N | W, 3 }, STATUS } },
	{ "status over the header", SURVIVES, .desc = { HEADER, DATA, { AT(header), 1, W, 0 } } },
	{ "data and status at one place", OK,
	  .desc = { HEADER, { AT(status), 1, N | W, 2 }, { AT(data), SECTOR - 1, N | W, 3 }, STATUS } },
};
/* clang-format on */

static void put_chain(const struct attack *attack)
{
	struct queue *q = &disk.queues[0];
	header = (struct blk_header){ .type = attack->type, .sector = attack->sector };
	status = 0xee;
	for (unsigned i = 0; i < 5; i++)
		desc_set_raw(&q->desc[i], attack->desc[i].addr, attack->desc[i].len, attack->desc[i].flags, attack->desc[i].next);
	for (unsigned i = 0; i < 4; i++)
		desc_set_raw(&table[i], attack->table[i].addr, attack->table[i].len, attack->table[i].flags, attack->table[i].next);
	if (attack->desc[0].flags == I && attack->desc[0].addr == 0)
		desc_set(q, 0, q->desc, 16 * SIZE, I, 0);
}

/* A device that stopped says so, by the configuration change interrupt too, and takes no more requests. */
static void expect_failed(void)
{
	struct queue *q = &disk.queues[0];
	EXPECT(device_wait_failed(&disk));
	const uint16_t used = queue_used_index(q);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	desc_set(q, 0, &header, 16, 0, 0);
	queue_put(q, 0);
	queue_notify(&disk, 0);
	delay_us(100);
	EXPECT(queue_used_index(q) == used);
	EXPECT(device_status(&disk) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void expect_outcome(enum outcome outcome)
{
	static const uint8_t statuses[] = { [OK] = VIRTIO_BLK_S_OK, [IOERR] = VIRTIO_BLK_S_IOERR, [UNSUPP] = VIRTIO_BLK_S_UNSUPP };
	struct queue *q = &disk.queues[0];

	if (outcome == FAILS) {
		expect_failed();
		return;
	}
	const bool answered = queue_wait(&disk, 0, 1);
	if (outcome == SURVIVES)
		return;
	EXPECT(answered);
	if (outcome == EMPTY)
		EXPECT(status == 0xee && queue_used_length(q, 0) == 0);
	else
		EXPECT(status == statuses[outcome]);
	/* The device goes on without a reset. */
	EXPECT(blk_read(&disk, 6, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, 6));
}

static void test_chains(void)
{
	for (unsigned i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
		const struct attack *attack = &chains[i];
		EXPECT(blk_start(&disk));
		put_chain(attack);
		queue_put(&disk.queues[0], attack->head);
		queue_notify(&disk, 0);
		expect_outcome(attack->outcome);
		EXPECT(blk_recovers(&disk));
		test_end(attack->name);
	}
	EXPECT(blk_read(&disk, UNTOUCHED, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, UNTOUCHED));
	test_end("a write that cannot be answered is not done");
}

/* ---- the available ring ---- */

static void jump(uint16_t by, const char *name)
{
	struct queue *q = &disk.queues[0];
	EXPECT(blk_start(&disk));
	EXPECT(blk_read(&disk, 6, data, 1) == VIRTIO_BLK_S_OK);
	q->next_avail = (uint16_t)(q->next_avail + by);
	q->avail[1] = q->next_avail;
	barrier();
	queue_notify(&disk, 0);
	expect_failed();
	EXPECT(blk_recovers(&disk));
	test_end(name);
}

static void test_avail(void)
{
	struct queue *q = &disk.queues[0];

	jump(SIZE + 1, "available index one too far ahead");
	jump(0x8000, "available index half around");
	jump(UINT16_MAX, "available index goes back");

	/* The same chain in each entry of the ring: each is a request of its own, and they are as many as the ring holds. */
	EXPECT(blk_start(&disk));
	EXPECT(blk_read(&disk, 6, data, 1) == VIRTIO_BLK_S_OK);
	for (unsigned i = 0; i < SIZE; i++)
		q->avail[2 + i] = 0;
	q->next_avail = (uint16_t)(q->next_avail + SIZE);
	barrier();
	q->avail[1] = q->next_avail;
	queue_notify(&disk, 0);
	EXPECT(queue_wait(&disk, 0, SIZE) && status == VIRTIO_BLK_S_OK);
	EXPECT(blk_recovers(&disk));
	test_end("one chain submitted 128 times");

	/* A bad head behind good ones: what was before it is done. */
	EXPECT(blk_start(&disk));
	EXPECT(blk_read(&disk, 6, data, 1) == VIRTIO_BLK_S_OK);
	q->avail[3] = 0;
	q->avail[4] = SIZE;
	q->next_avail = 3;
	barrier();
	q->avail[1] = 3;
	queue_notify(&disk, 0);
	expect_failed();
	EXPECT(queue_used_index(q) == 2);
	EXPECT(blk_recovers(&disk));
	test_end("a bad head behind a good one");
}

/* ---- chains too long for the table above ---- */

static void submit(enum outcome outcome, const char *name)
{
	queue_put(&disk.queues[0], 0);
	queue_notify(&disk, 0);
	expect_outcome(outcome);
	EXPECT(blk_recovers(&disk));
	test_end(name);
}

static void test_long_chains(void)
{
	struct queue *q = &disk.queues[0];
	const struct attack read = { .desc = { HEADER, DATA, STATUS } };

	/* 128 times all of RAM is 2^32 bytes. */
	EXPECT(blk_start(&disk));
	for (uint16_t i = 0; i < SIZE; i++)
		desc_set_raw(&q->desc[i], 0, WORLD_MEMORY_BYTES, i == SIZE - 1 ? 0 : N, (uint16_t)(i + 1));
	submit(FAILS, "total length of 2^32 readable");
	EXPECT(blk_start(&disk));
	put_chain(&read);
	for (uint16_t i = 0; i < SIZE; i++)
		desc_set_raw(&table[i], 0, WORLD_MEMORY_BYTES, i == SIZE - 1 ? W : N | W, (uint16_t)(i + 1));
	desc_set(q, 1, table, SIZE * 16, I, 0);
	submit(FAILS, "total length of 2^32 writable");

	/* 127 times all of RAM: a well-formed request for more than the disk has. */
	EXPECT(blk_start(&disk));
	put_chain(&read);
	for (uint16_t i = 1; i < SIZE - 1; i++)
		desc_set_raw(&q->desc[i], 0, WORLD_MEMORY_BYTES, N | W, (uint16_t)(i + 1));
	desc_set(q, SIZE - 1, &status, 1, W, 0);
	submit(IOERR, "read of nearly 4 GiB");

	/* An indirect table longer than the queue: by the chain in it, and with a chain that uses a little of it. */
	EXPECT(blk_start(&disk));
	put_chain(&read);
	desc_set_raw(&table[0], AT(header), 16, N, 1);
	for (uint16_t i = 1; i < SIZE; i++)
		desc_set_raw(&table[i], AT(data), 4, N | W, (uint16_t)(i + 1));
	desc_set_raw(&table[SIZE], AT(status), 1, W, 0);
	desc_set(q, 0, table, (SIZE + 1) * 16, I, 0);
	submit(FAILS, "a chain of 129 in an indirect table");
	EXPECT(blk_start(&disk));
	put_chain(&read);
	desc_set_raw(&table[0], AT(header), 16, N, 150);
	desc_set_raw(&table[150], AT(data), SECTOR, N | W, 159);
	desc_set_raw(&table[159], AT(status), 1, W, 0);
	desc_set(q, 0, table, 160 * 16, I, 0);
	submit(OK, "a short chain in an indirect table of 160");
	EXPECT(blk_start(&disk));
	put_chain(&read);
	for (uint16_t i = 0; i < 3; i++)
		memcpy((uint8_t *)table + 1 + 16 * i, (const uint8_t *)(uintptr_t)&q->desc[i], 16);
	desc_set_raw(&q->desc[0], AT(table) + 1, 48, I, 0);
	submit(OK, "an indirect table at an odd address");
}

/* ---- reads into the rings, which the device must have copied or must doubt ---- */

static void overwrite(const volatile void *to, uint32_t sectors, const char *name)
{
	const struct attack read = { .sector = 40, .desc = { HEADER, DATA, STATUS } };
	EXPECT(blk_start(&disk));
	put_chain(&read);
	desc_set(&disk.queues[0], 1, to, sectors * SECTOR, N | W, 2);
	queue_put(&disk.queues[0], 0);
	queue_notify(&disk, 0);
	expect_outcome(SURVIVES);
	/* Whatever stands there now is submitted, too. */
	for (unsigned i = 0; i < 4; i++) {
		queue_put(&disk.queues[0], (uint16_t)i);
		queue_notify(&disk, 0);
	}
	delay_us(QUIET_US);
	EXPECT(blk_recovers(&disk));
	test_end(name);
}

static void test_overwrites(void)
{
	struct queue *q = &disk.queues[0];
	EXPECT(blk_start(&disk));
	overwrite(q->desc, 4, "read over the descriptor table");
	overwrite(q->avail, 1, "read over the available ring");
	overwrite(q->used, 2, "read over the used ring");
	overwrite(q->desc, 13, "read over all rings");

	/* The used index is the device's own: what stands in memory is not read back. */
	EXPECT(blk_start(&disk));
	EXPECT(blk_read(&disk, 6, data, 1) == VIRTIO_BLK_S_OK);
	((volatile uint16_t *)(uintptr_t)q->used)[1] = 0x1234;
	q->last_used = 1;
	queue_put(q, 0);
	queue_notify(&disk, 0);
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while (queue_used_index(q) != 2 && rdtsc() < deadline)
		pause();
	EXPECT(queue_used_index(q) == 2);
	EXPECT(blk_recovers(&disk));
	test_end("used index overwritten by the driver");
}

/* ---- discard, write-zeroes, the read-only disk ---- */

static unsigned range_request(struct device *dev, uint32_t type, struct range range, uint32_t length)
{
	for (unsigned i = 0; i < 17; i++)
		ranges[i] = range;
	return blk_request(dev, type, 0, ranges, length, false);
}

static void test_ranges(void)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES };
	const struct range good = { .sector = WORLD_WRITABLE_FIRST, .count = 8 };

	EXPECT(blk_start(&disk));
	for (unsigned i = 0; i < 2; i++) {
		EXPECT(range_request(&disk, types[i], good, 0) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], good, 15) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], good, 17) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], good, 17 * 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], good, 16 * 16) == VIRTIO_BLK_S_OK);
	}
	test_end("discard and write-zeroes of a wrong length");
	for (unsigned i = 0; i < 2; i++) {
		EXPECT(range_request(&disk, types[i], (struct range){ WORLD_DISK_SECTORS, 1, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ WORLD_DISK_SECTORS - 1, 2, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ UINT64_MAX, 1, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ UINT64_MAX - 6, 8, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ 1ull << 55, 8, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ 0, UINT32_MAX, 0 }, 16) == VIRTIO_BLK_S_IOERR);
		EXPECT(range_request(&disk, types[i], (struct range){ WORLD_DISK_SECTORS, 0, 0 }, 16) == VIRTIO_BLK_S_OK);
	}
	test_end("discard and write-zeroes beyond the disk");
	EXPECT(range_request(&disk, VIRTIO_BLK_T_DISCARD, (struct range){ good.sector, 8, 1 }, 16) == VIRTIO_BLK_S_UNSUPP);
	EXPECT(range_request(&disk, VIRTIO_BLK_T_DISCARD, (struct range){ good.sector, 8, 0x80000000 }, 16) == VIRTIO_BLK_S_UNSUPP);
	EXPECT(range_request(&disk, VIRTIO_BLK_T_WRITE_ZEROES, (struct range){ good.sector, 8, 2 }, 16) == VIRTIO_BLK_S_UNSUPP);
	EXPECT(range_request(&disk, VIRTIO_BLK_T_WRITE_ZEROES, (struct range){ good.sector, 8, UINT32_MAX }, 16) ==
	       VIRTIO_BLK_S_UNSUPP);
	test_end("discard and write-zeroes with unknown flags");

	/* All segments are checked before the first is done: sector 0 would be found changed. */
	for (unsigned i = 0; i < 17; i++)
		ranges[i] = good;
	ranges[1].sector = WORLD_DISK_SECTORS;
	sector_fill(data, 7000200);
	EXPECT(blk_write(&disk, good.sector, data, 1) == VIRTIO_BLK_S_OK);
	EXPECT(blk_request(&disk, VIRTIO_BLK_T_DISCARD, 0, ranges, 32, false) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_read(&disk, good.sector, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, 7000200));
	test_end("discard with a bad second segment does nothing");
}

static void test_read_only(void)
{
	EXPECT(blk_start(&ro_disk));
	sector_fill(data, 1);
	EXPECT(blk_write(&ro_disk, 0, data, 1) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_write(&ro_disk, 0, data, 0) == VIRTIO_BLK_S_IOERR);
	EXPECT(range_request(&ro_disk, VIRTIO_BLK_T_DISCARD, (struct range){ 0, 8, 0 }, 16) == VIRTIO_BLK_S_IOERR);
	EXPECT(range_request(&ro_disk, VIRTIO_BLK_T_WRITE_ZEROES, (struct range){ 0, 8, 0 }, 16) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_read(&ro_disk, 0, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, WORLD_RO_SEED));
	EXPECT(blk_read(&ro_disk, WORLD_RO_SECTORS, data, 1) == VIRTIO_BLK_S_IOERR);
	test_end("no change of a read-only disk");
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&ro_disk, 1, VIRTIO_ID_BLOCK));
	test_chains();
	test_avail();
	test_long_chains();
	test_overwrites();
	test_ranges();
	test_read_only();
}
