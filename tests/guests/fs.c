/*
 * virtio-fs as a driver uses it (virtio 1.2, 5.11): its configuration, requests in every layout of a chain, answers out of order while
 * one is slow, forgetting on the high priority queue. What the operations do is for the unit tests of the server and the end-to-end
 * tests.
 */
#include <linux/virtio_fs.h>

#include "tests/guests/guest_fs.h"

static struct vring_desc table[8] __attribute__((aligned(16)));

static void test_configuration(void)
{
	const uintptr_t config = fs.base + VIRTIO_MMIO_CONFIG;
	static const char tag[] = WORLD_FS_TAG;
	for (unsigned i = 0; i < 36; i++)
		EXPECT(mmio_read8(config + i) == (i < sizeof(tag) ? (uint8_t)tag[i] : 0));
	EXPECT(mmio_read32(config + 36) == 1);
	EXPECT((device_offered(&fs) & 0xffffff) == 0);
	test_end("configuration and features");
}

static void test_file(void)
{
	static const char text[] = WORLD_FS_TEXT;
	const struct fuse_open_in open = { .flags = 0 };
	struct fuse_read_in read = { .size = 4096 };

	EXPECT(fs_start_mounted() && fs_works());
	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	EXPECT(node > FUSE_ROOT_ID);
	EXPECT(fs_call(FUSE_OPEN, node, &open, sizeof(open)) == 0);
	read.fh = ((const struct fuse_open_out *)(const void *)fs_slots[0].out)->fh;
	EXPECT(fs_call(FUSE_READ, node, &read, sizeof(read)) == 0);
	EXPECT(fs_slots[0].answer.len == sizeof(struct fuse_out_header) + sizeof(text) - 1);
	EXPECT(!memcmp(fs_slots[0].out, text, sizeof(text) - 1));
	const struct fuse_release_in release = { .fh = read.fh };
	EXPECT(fs_call(FUSE_RELEASE, node, &release, sizeof(release)) == 0);
	EXPECT(fs_lookup("missing") == 0);
	test_end("look up, open, read, release");
}

static void test_write(void)
{
	const struct fuse_create_in create = { .flags = 02 | 0100, .mode = 0100644 };
	struct {
		struct fuse_write_in in;
		char data[16];
	} write = { .in = { .offset = 3, .size = 5 }, .data = "hello" };
	struct fuse_read_in read = { .size = 100 };

	EXPECT(fs_call_name(FUSE_CREATE, FUSE_ROOT_ID, &create, sizeof(create), "made") == 0);
	const struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} *made = (const void *)fs_slots[0].out;
	const uint64_t node = made->entry.nodeid;
	read.fh = write.in.fh = made->open.fh;
	EXPECT(fs_call(FUSE_WRITE, node, &write, sizeof(write.in) + 5) == 0);
	EXPECT(((const struct fuse_write_out *)(const void *)fs_slots[0].out)->size == 5);
	EXPECT(fs_call(FUSE_READ, node, &read, sizeof(read)) == 0);
	EXPECT(fs_slots[0].answer.len == sizeof(struct fuse_out_header) + 8 && !memcmp(fs_slots[0].out, "\0\0\0hello", 8));
	EXPECT(fs_call_name(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "made") == 0);
	EXPECT(fs_call(FUSE_READ, node, &read, sizeof(read)) == 0);
	test_end("create, write, read back, unlink, read on");
}

/* Makes 1 GiB of memory at a multiple of that, above what is mapped anyway, accessible at the same address. */
static void map_gigabyte(uint64_t at)
{
	static uint64_t directory[512] __attribute__((aligned(4096)));
	uint64_t *pml4;
	__asm__ volatile("mov %%cr3, %0" : "=r"(pml4));
	uint64_t *pdpt = (uint64_t *)(uintptr_t)(pml4[0] & ~0xfffull);
	for (unsigned i = 0; i < 512; i++)
		directory[i] = (at + ((uint64_t)i << 21)) | 0x83; /* present, writable, 2 MiB */
	pdpt[at >> 30] = (uintptr_t)directory | 3;
	__asm__ volatile("mov %0, %%cr3" : : "r"(pml4) : "memory");
}

static void test_window(void)
{
	static const char text[] = WORLD_FS_TEXT;
	const uint64_t range = 2u << 20;
	uint64_t bytes;

	EXPECT(fs_start_mounted());
	const uint64_t base = fs_window(&bytes);
	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	EXPECT(base >= 1ull << 32 && base % (1u << 30) == 0 && bytes >= 4 * range);
	EXPECT(fs_map(node, 0, range, FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE, range) == 0);
	map_gigabyte(base);
	volatile uint8_t *file = (volatile uint8_t *)(uintptr_t)(base + range);
	for (unsigned i = 0; i < sizeof(text) - 1; i++)
		EXPECT(file[i] == (uint8_t)text[i]);
	EXPECT(file[sizeof(text)] == 0);
	/* There and back. */
	file[0] = '!';
	const struct fuse_open_in open = { .flags = 0 };
	EXPECT(fs_call(FUSE_OPEN, node, &open, sizeof(open)) == 0);
	const struct fuse_read_in read = { .fh = ((const struct fuse_open_out *)(const void *)fs_slots[0].out)->fh, .size = 100 };
	EXPECT(fs_call(FUSE_READ, node, &read, sizeof(read)) == 0 && fs_slots[0].out[0] == '!' &&
	       fs_slots[0].out[1] == (uint8_t)text[1]);
	file[0] = (uint8_t)text[0];
	/* As direct I/O for a program whose buffer is that file: what is read comes there, and what is written from there. */
	struct queue *q = &fs.queues[FS_REQUEST];
	fs_prepare(0, FUSE_READ, node, &read, sizeof(read));
	fs_submit(0, sizeof(read), FS_ANSWER_BYTES);
	desc_set_raw(&q->desc[1], (uintptr_t)&fs_slots[0].answer, sizeof(struct fuse_out_header),
		     VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc_set_raw(&q->desc[2], base + range + 4, 8, VRING_DESC_F_WRITE, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && fs_slots[0].answer.error == 0);
	for (unsigned i = 0; i < 8; i++) {
		EXPECT(file[4 + i] == (uint8_t)text[i]);
		file[4 + i] = (uint8_t)text[4 + i];
	}
	EXPECT(fs_unmap(1, range, range) == 0);
	test_end("a file in the window");
}

#define CR4_MCE (1ull << 6)
#define MSR_MCG_STATUS 0x17a
#define MSR_MC1_STATUS 0x405
#define MSR_MC1_ADDR 0x406

static void clear_machine_check(void)
{
	guest_faults(GUEST_WRMSR, MSR_MC1_STATUS, 0, NULL);
	guest_faults(GUEST_WRMSR, MSR_MCG_STATUS, 0, NULL);
}

/* Reading the byte at `at` of the window is a machine check of the kind that programs survive: see vmm/machine_shm.c. */
static bool is_machine_check(uint64_t at)
{
	uint64_t global = 0, status = 0, address = 0;
	if (!guest_faults(GUEST_LOAD, 0, at, NULL))
		return false;
	if (guest_faults(GUEST_RDMSR, MSR_MCG_STATUS, 0, &global) || guest_faults(GUEST_RDMSR, MSR_MC1_STATUS, 0, &status) ||
	    guest_faults(GUEST_RDMSR, MSR_MC1_ADDR, 0, &address))
		return false;
	clear_machine_check();
	return global == 7 && status == 0xbd80000000000134ull && address == fs.base;
}

static void test_behind_the_end(void)
{
	const char *name = "behind the end of a file, and where nothing is: machine checks";
	const uint64_t range = 2u << 20, read = FUSE_SETUPMAPPING_FLAG_READ;
	uint64_t bytes, byte = 0, cr4;

	__asm__ volatile("mov %%cr4, %0" : "=r"(cr4));
	__asm__ volatile("mov %0, %%cr4" : : "r"(cr4 | CR4_MCE));
	EXPECT(fs_start_mounted());
	const uint64_t base = fs_window(&bytes);
	/* A KVM that interprets instructions takes memory that it cannot read for registers of a device. */
	if (!guest_faults(GUEST_LOAD, 0, base, &byte)) {
		EXPECT(byte == 0xff);
		test_skip(name, "this KVM interprets instructions");
		return;
	}
	clear_machine_check();
	EXPECT(fs_map(fs_lookup(WORLD_FS_FILE), 0, range, read, range) == 0);
	EXPECT(!guest_faults(GUEST_LOAD, 0, base + range, &byte) && byte == (uint8_t)WORLD_FS_TEXT[0]);
	for (unsigned i = 0; i < 3; i++)
		EXPECT(is_machine_check(base + range + 4096 * (i + 1)));
	EXPECT(!guest_faults(GUEST_LOAD, 0, base + range + 4095, &byte) && byte == 0);
	EXPECT(is_machine_check(base) && is_machine_check(base + 3 * range));
	EXPECT(fs_unmap(1, range, range) == 0 && is_machine_check(base + range));
	EXPECT(fs_works());
	test_end(name);
}

/* A GETATTR whose header and argument are split at `at`, and its answer likewise. */
static void run_split(unsigned at)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	const uint32_t in_bytes = sizeof(struct fuse_in_header) + sizeof(in);
	const uint32_t out_bytes = sizeof(struct fuse_out_header) + sizeof(struct fuse_attr_out);
	uint8_t *from = (uint8_t *)&fs_slots[0].header, *to = (uint8_t *)&fs_slots[0].answer;

	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in));
	desc_set(q, 0, from, at, VRING_DESC_F_NEXT, 1);
	desc_set(q, 1, from + at, in_bytes - at, VRING_DESC_F_NEXT, 2);
	desc_set(q, 2, to, at, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
	desc_set(q, 3, to + at, out_bytes - at, VRING_DESC_F_WRITE, 0);
	queue_put(q, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && fs_result(0, queue_used_length(q, (uint16_t)(q->last_used - 1))) == 0);
}

static void test_layouts(void)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	const struct fuse_getattr_in in = { .getattr_flags = 0 };

	for (unsigned at = 1; at < sizeof(struct fuse_in_header) + sizeof(in); at++)
		run_split(at);
	test_end("headers split at every byte");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in));
	desc_set_raw(&table[0], (uint64_t)&fs_slots[0].header, sizeof(struct fuse_in_header), VRING_DESC_F_NEXT, 1);
	desc_set_raw(&table[1], (uint64_t)fs_slots[0].body, sizeof(in), VRING_DESC_F_NEXT, 2);
	desc_set_raw(&table[2], (uint64_t)&fs_slots[0].answer, sizeof(struct fuse_out_header),
		     VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
	desc_set_raw(&table[3], (uint64_t)fs_slots[0].out, sizeof(struct fuse_attr_out), VRING_DESC_F_WRITE, 0);
	desc_set(q, 0, table, 4 * sizeof(table[0]), VRING_DESC_F_INDIRECT, 0);
	queue_put(q, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && fs_result(0, queue_used_length(q, (uint16_t)(q->last_used - 1))) == 0);
	test_end("indirect table");
}

/* Which slot came back as number `at` of the used ring. */
static unsigned slot_at(uint16_t at)
{
	return queue_used_id(&fs.queues[FS_REQUEST], at) / 3;
}

static void test_out_of_order(uint32_t slow_opcode, const char *name)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	const struct fuse_read_in read = { .size = 1 };

	const uint16_t before = q->last_used;
	if (slow_opcode == FUSE_READ)
		fs_prepare(1, FUSE_READ, FUSE_ROOT_ID, &read, sizeof(read));
	else
		fs_prepare(1, slow_opcode, FUSE_ROOT_ID, &in, sizeof(in));
	fs_slots[1].header.unique = WORLD_FS_SLOW;
	fs_submit(1, slow_opcode == FUSE_READ ? sizeof(read) : sizeof(in), FS_ANSWER_BYTES);
	queue_notify(&fs, FS_REQUEST);
	for (unsigned slot = 2; slot < 6; slot++) {
		fs_prepare(slot, FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in));
		fs_submit(slot, sizeof(in), FS_ANSWER_BYTES);
		queue_notify(&fs, FS_REQUEST);
	}
	EXPECT(queue_wait(&fs, FS_REQUEST, 5));
	for (uint16_t i = 0; i < 4; i++)
		EXPECT(slot_at((uint16_t)(before + i)) != 1);
	EXPECT(slot_at((uint16_t)(before + 4)) == 1);
	EXPECT(fs_works());
	test_end(name);
}

static void test_batch(void)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	bool seen[FS_SLOTS] = { false };

	for (unsigned round = 0; round < 4; round++) {
		const uint16_t before = q->last_used;
		for (unsigned slot = 0; slot < FS_SLOTS; slot++) {
			seen[slot] = false;
			fs_prepare(slot, FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in));
			fs_submit(slot, sizeof(in), FS_ANSWER_BYTES);
		}
		queue_notify(&fs, FS_REQUEST);
		EXPECT(queue_wait(&fs, FS_REQUEST, FS_SLOTS));
		for (uint16_t i = 0; i < FS_SLOTS; i++) {
			const unsigned slot = slot_at((uint16_t)(before + i));
			if (!EXPECT(slot < FS_SLOTS && !seen[slot]))
				break;
			seen[slot] = true;
			EXPECT(fs_result(slot, queue_used_length(q, (uint16_t)(before + i))) == 0);
		}
	}
	test_end("40 requests at once, four times");
}

static void test_forget(void)
{
	struct queue *q = &fs.queues[FS_HIPRIO];
	const struct fuse_forget_in forget = { .nlookup = 1 };

	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	fs_prepare(0, FUSE_FORGET, node, &forget, sizeof(forget));
	desc_set(q, 0, &fs_slots[0].header, sizeof(struct fuse_in_header) + sizeof(forget), 0, 0);
	queue_put(q, 0);
	queue_notify(&fs, FS_HIPRIO);
	EXPECT(queue_wait(&fs, FS_HIPRIO, 1));
	EXPECT(queue_used_length(q, (uint16_t)(q->last_used - 1)) == 0);
	EXPECT(fs_works());
	test_end("forget has no answer");
}

void guest_main(void)
{
	if (!EXPECT(device_find(&fs, WORLD_FS_DEVICE, VIRTIO_ID_FS))) {
		test_end("the device is there");
		return;
	}
	test_configuration();
	test_file();
	test_write();
	test_window();
	test_behind_the_end();
	test_layouts();
	test_out_of_order(FUSE_GETATTR, "a slow request of a kind that is mostly quick delays no other");
	test_out_of_order(FUSE_READ, "a slow read delays no other");
	test_batch();
	test_forget();
	EXPECT(fs_start_mounted() && fs_works());
	test_end("a second life");
}
