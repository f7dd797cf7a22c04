/*
 * Hostile requests and rings for virtio-fs. Whatever is sent, the server answers with an error or does what it was asked for inside the
 * share; the device works on, at the latest after a reset. The runner looks at the share's neighbours afterwards.
 */
#include "tests/guests/guest_fs.h"

#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define END ((uint64_t)WORLD_MEMORY_BYTES)
#define OPCODES 60u /* all that there are, and some that are not */
#define BODY_MAX 128u

static uint8_t body[FS_BODY_BYTES];
static uint64_t random_state = 0x9e3779b97f4a7c15ull;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* An answer that makes sense: an error, or success with a well-formed header; nothing for what has no answer. */
static bool sane(uint32_t opcode, int result)
{
	if (opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT)
		return result == FS_EMPTY;
	return result <= 0 && result > -4096;
}

/* FUSE_DESTROY may have ended the mount. */
static bool works_again(void)
{
	return fs_works() || fs_start_mounted();
}

static void test_before_init(void)
{
	EXPECT(fs_start());
	for (uint32_t opcode = 0; opcode < OPCODES; opcode++) {
		if (opcode == FUSE_INIT)
			continue;
		memset(body, 0, BODY_MAX);
		const int result = fs_call(opcode, FUSE_ROOT_ID, body, 64);
		if (!EXPECT(sane(opcode, result) && result != 0))
			print_hex(opcode);
	}
	EXPECT(fs_init() == 0 && fs_works());
	test_end("requests before INIT");
	EXPECT(fs_init() < 0 && fs_works());
	test_end("INIT twice");
	struct fuse_init_in in = { .major = 7, .minor = 5 };
	EXPECT(fs_start() && fs_call(FUSE_INIT, 0, &in, sizeof(in)) < 0);
	EXPECT(fs_call(FUSE_INIT, 0, &in, 3) < 0);
	in.major = 8;
	EXPECT(fs_call(FUSE_INIT, 0, &in, sizeof(in)) == 0 && !fs_works());
	in.major = 6;
	EXPECT(fs_call(FUSE_INIT, 0, &in, sizeof(in)) < 0 && !fs_works());
	EXPECT(fs_init() == 0 && fs_works());
	test_end("INIT of other versions");
}

static void test_lengths(void)
{
	for (uint32_t opcode = 0; opcode < OPCODES; opcode++) {
		for (uint32_t length = 0; length <= BODY_MAX; length += length < 48 ? 1 : 8) {
			memset(body, length % 3 == 1 ? 0xff : 0, BODY_MAX);
			const int result = fs_call(opcode, FUSE_ROOT_ID, body, length);
			if (!EXPECT(sane(opcode, result)))
				print_hex(opcode << 16 | length);
		}
		EXPECT(works_again());
	}
	test_end("every operation with arguments of every length");

	EXPECT(fs_start_mounted());
	static const uint32_t lengths[] = { 0, 1, 39, 40, 41, 1023, 4096, 0x7fffffff, 0x80000000, UINT32_MAX };
	for (uint32_t opcode = 1; opcode < OPCODES; opcode++) {
		for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			struct queue *q = &fs.queues[FS_REQUEST];
			memset(body, 0, BODY_MAX);
			fs_prepare(0, opcode, FUSE_ROOT_ID, body, 40);
			fs_slots[0].header.len = lengths[i];
			fs_submit(0, 40, FS_ANSWER_BYTES);
			queue_notify(&fs, FS_REQUEST);
			EXPECT(queue_wait(&fs, FS_REQUEST, 1));
			const int result = fs_result(0, queue_used_length(q, (uint16_t)(q->last_used - 1)));
			if (!EXPECT(sane(opcode, result) && (result || lengths[i] == 40 || lengths[i] == 41)))
				print_hex((uint64_t)opcode << 32 | lengths[i]);
		}
		EXPECT(works_again());
	}
	test_end("every operation with a header that lies about its length");
}

static void test_room(void)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	EXPECT(fs_start_mounted());
	for (uint32_t opcode = 1; opcode < OPCODES; opcode++) {
		for (unsigned room = 0; room < 24; room += room < 15 ? 5 : 1) {
			memset(body, 0, BODY_MAX);
			memset(fs_slots[0].out, 0xee, 64);
			fs_prepare(0, opcode, FUSE_ROOT_ID, body, 48);
			desc_set(q, 0, &fs_slots[0].header, sizeof(struct fuse_in_header) + 48, room ? N : 0, 1);
			desc_set(q, 1, &fs_slots[0].answer, room, W, 0);
			queue_put(q, 0);
			queue_notify(&fs, FS_REQUEST);
			EXPECT(queue_wait(&fs, FS_REQUEST, 1));
			const uint32_t length = queue_used_length(q, (uint16_t)(q->last_used - 1));
			EXPECT(room < sizeof(struct fuse_out_header) ? length == 0 : length <= room);
			for (unsigned i = room > 16 ? room - 16 : 0; i < 64; i++)
				if (!EXPECT(fs_slots[0].out[i] == 0xee))
					break;
		}
		EXPECT(works_again());
	}
	test_end("no room, or too little, for the answer");
}

static void test_nodes(void)
{
	static const uint64_t nodes[] = { 0, 2, 3, 1000000, 1ull << 32, 1ull << 63, UINT64_MAX };
	EXPECT(fs_start_mounted());
	for (uint32_t opcode = 1; opcode < OPCODES; opcode++) {
		if (opcode == FUSE_INIT || opcode == FUSE_DESTROY)
			continue;
		for (unsigned i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
			memset(body, 0xff, BODY_MAX); /* file handles that were never given */
			memset(body + 40, 0, 8);
			EXPECT(sane(opcode, fs_call(opcode, nodes[i], body, 24)));
			EXPECT(sane(opcode, fs_call(opcode, nodes[i], body, 40)));
			EXPECT(sane(opcode, fs_call(opcode, nodes[i], body, 48)));
		}
	}
	EXPECT(fs_works());
	test_end("nodes and handles that are not there");

	struct {
		struct fuse_batch_forget_in head;
		struct fuse_forget_one ones[4];
	} batch = { .head = { .count = 4 }, .ones = { { 1, UINT64_MAX }, { 2, 1 }, { UINT64_MAX, UINT64_MAX }, { 0, 0 } } };
	EXPECT(fs_call(FUSE_BATCH_FORGET, 0, &batch, sizeof(batch)) == FS_EMPTY && fs_works());
	batch.head.count = UINT32_MAX;
	EXPECT(fs_call(FUSE_BATCH_FORGET, 0, &batch, sizeof(batch)) == FS_EMPTY && fs_works());
	const struct fuse_forget_in forget = { .nlookup = UINT64_MAX };
	EXPECT(fs_call(FUSE_FORGET, FUSE_ROOT_ID, &forget, sizeof(forget)) == FS_EMPTY && fs_works());
	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	EXPECT(fs_call(FUSE_FORGET, node, &forget, sizeof(forget)) == FS_EMPTY);
	EXPECT(fs_call(FUSE_FORGET, node, &forget, sizeof(forget)) == FS_EMPTY && fs_works());
	test_end("more is forgotten than was looked up");
}

static void test_names(void)
{
	static const char *const names[] = { "", ".", "..", "/", "a/b", "../outside", "/etc", "..\\", "\n" };
	static const struct {
		uint32_t opcode, arguments_bytes;
	} operations[] = { { FUSE_LOOKUP, 0 },
			   { FUSE_MKDIR, sizeof(struct fuse_mkdir_in) },
			   { FUSE_MKNOD, sizeof(struct fuse_mknod_in) },
			   { FUSE_CREATE, sizeof(struct fuse_create_in) },
			   { FUSE_UNLINK, 0 },
			   { FUSE_RMDIR, 0 } };
	static char longest[400];
	EXPECT(fs_start_mounted());
	for (unsigned i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		memset(body, 0, 64);
		for (unsigned k = 0; k < 7; k++) {
			const int result =
			    fs_call_name(operations[i].opcode, FUSE_ROOT_ID, body, operations[i].arguments_bytes, names[k]);
			if (!EXPECT(result < 0))
				print_hex(operations[i].opcode << 8 | k);
		}
		for (unsigned length = 256; length < sizeof(longest) - 1; length += 100) {
			memset(longest, 'n', length);
			longest[length] = 0;
			EXPECT(fs_call_name(operations[i].opcode, FUSE_ROOT_ID, body, operations[i].arguments_bytes, longest) < 0);
		}
		/* Without the 0 byte. */
		memset(body + operations[i].arguments_bytes, 'x', 20);
		EXPECT(fs_call(operations[i].opcode, FUSE_ROOT_ID, body, operations[i].arguments_bytes + 20) < 0);
	}
	test_end("names that are no names");

	struct {
		struct fuse_rename_in in;
		char names[40];
	} rename = { .in = { .newdir = FUSE_ROOT_ID }, .names = WORLD_FS_FILE "\0../outside/x" };
	EXPECT(fs_call(FUSE_RENAME, FUSE_ROOT_ID, &rename, sizeof(rename.in) + sizeof(WORLD_FS_FILE) + 13) < 0);
	memcpy(rename.names, "..\0moved", 9);
	EXPECT(fs_call(FUSE_RENAME, FUSE_ROOT_ID, &rename, sizeof(rename.in) + 9) < 0);
	memcpy(rename.names, WORLD_FS_FILE, sizeof(WORLD_FS_FILE));
	EXPECT(fs_call(FUSE_RENAME, FUSE_ROOT_ID, &rename, sizeof(rename.in) + sizeof(WORLD_FS_FILE)) < 0);
	EXPECT(fs_lookup(WORLD_FS_FILE) != 0);
	test_end("renames out of the share");

	/* A symlink out of the share is data. */
	static const char link[] = "way-out\0../outside";
	EXPECT(fs_call(FUSE_SYMLINK, FUSE_ROOT_ID, link, sizeof(link)) == 0);
	const uint64_t node = ((const struct fuse_entry_out *)(const void *)fs_slots[0].out)->nodeid;
	const struct fuse_open_in open = { .flags = 0 };
	EXPECT(fs_call(FUSE_OPEN, node, &open, sizeof(open)) < 0);
	EXPECT(fs_call(FUSE_OPENDIR, node, &open, sizeof(open)) < 0);
	EXPECT(fs_call_name(FUSE_LOOKUP, node, NULL, 0, "secret") < 0);
	EXPECT(fs_call_name(FUSE_MKDIR, node, body, sizeof(struct fuse_mkdir_in), "made") < 0);
	EXPECT(fs_call_name(FUSE_UNLINK, FUSE_ROOT_ID, NULL, 0, "way-out") == 0);
	test_end("a symlink out of the share leads nowhere");
}

static void test_sizes(void)
{
	struct fuse_open_in open = { .flags = 0 };
	EXPECT(fs_start_mounted());
	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	EXPECT(fs_call(FUSE_OPEN, node, &open, sizeof(open)) == 0);
	const uint64_t fh = ((const struct fuse_open_out *)(const void *)fs_slots[0].out)->fh;
	static const uint32_t sizes[] = { 4097, 1 << 20, 0x7fffffff, 0x80000000, UINT32_MAX };
	static const uint64_t offsets[] = { 0, 1, 1ull << 40, INT64_MAX - 1, INT64_MAX, 1ull << 63, UINT64_MAX };
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 7; k++) {
			const struct fuse_read_in read = { .fh = fh, .size = sizes[i], .offset = offsets[k] };
			EXPECT(sane(FUSE_READ, fs_call(FUSE_READ, node, &read, sizeof(read))));
			EXPECT(sane(FUSE_READDIR, fs_call(FUSE_READDIR, FUSE_ROOT_ID, &read, sizeof(read))));
			const struct fuse_write_in write = { .fh = fh, .size = sizes[i], .offset = offsets[k] };
			EXPECT(fs_call(FUSE_WRITE, node, &write, sizeof(write)) < 0);
			const struct fuse_getxattr_in xattr = { .size = sizes[i] };
			EXPECT(sane(FUSE_LISTXATTR, fs_call(FUSE_LISTXATTR, node, &xattr, sizeof(xattr))));
		}
	}
	EXPECT(fs_works());
	test_end("sizes of 4 GiB, offsets at the ends");
}

static void test_mappings(void)
{
	static const uint64_t numbers[] = { 0,          1,          4096,       2u << 20,  4u << 20,      256u << 20,
					    258u << 20, 1ull << 40, 1ull << 63, INT64_MAX, -(2ull << 20), UINT64_MAX };
	const unsigned count = sizeof(numbers) / sizeof(numbers[0]);
	const uint64_t read = FUSE_SETUPMAPPING_FLAG_READ, range = 2u << 20;

	EXPECT(fs_start_mounted());
	const uint64_t node = fs_lookup(WORLD_FS_FILE);
	for (unsigned i = 0; i < count; i++)
		for (unsigned k = 0; k < count; k++) {
			EXPECT(sane(FUSE_SETUPMAPPING, fs_map(node, numbers[i], range, read, numbers[k])));
			EXPECT(sane(FUSE_SETUPMAPPING, fs_map(node, 0, numbers[i], read | 1, numbers[k])));
			EXPECT(sane(FUSE_REMOVEMAPPING, fs_unmap(1, numbers[i], numbers[k])));
		}
	EXPECT(fs_map(node, 0, range, read, 256u << 20) < 0 && fs_map(node, 0, range, UINT64_MAX, 0) < 0);
	EXPECT(fs_map(FUSE_ROOT_ID, 0, range, read, 0) < 0 && fs_map(77, 0, range, read, 0) < 0);
	EXPECT(fs_unmap(0, 0, range) < 0 && fs_unmap(2, 0, range) < 0 && fs_unmap(UINT32_MAX, 0, range) < 0);
	EXPECT(fs_works());
	test_end("files mapped where there is no window");
}

static void expect_failed(const char *name)
{
	queue_notify(&fs, FS_REQUEST);
	EXPECT(device_wait_failed(&fs));
	EXPECT(fs_start_mounted() && fs_works());
	test_end(name);
}

static void test_rings(void)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	EXPECT(fs_start_mounted());
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[1], END - 8, 120, W, 0);
	expect_failed("an answer over the end of RAM");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[0], 0xd0000000, 56, N, 1);
	expect_failed("a request in a device's registers");
	uint64_t bytes;
	const uint64_t window = fs_window(&bytes);
	EXPECT(fs_map(fs_lookup(WORLD_FS_FILE), 0, 2u << 20, FUSE_SETUPMAPPING_FLAG_READ | FUSE_SETUPMAPPING_FLAG_WRITE, 0) == 0);
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[1], window, 120, W, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && queue_used_length(q, (uint16_t)(q->last_used - 1)) > 16 && fs_works());
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[1], window + (2u << 20) - 4096, 120, W, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && fs_works());
	test_end("an answer in the window, and behind the end of the file there");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[0], window + bytes - 56, 56, N, 1);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && fs_works());
	test_end("a request in the window, where nothing is");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[1], window, (uint32_t)bytes, W, 0);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 1) && queue_used_length(q, (uint16_t)(q->last_used - 1)) == 0 && fs_works());
	test_end("more of the window than is taken");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	desc_set_raw(&q->desc[1], window + bytes - 8, 120, W, 0);
	expect_failed("an answer over the end of the window");
	fs_prepare(0, FUSE_GETATTR, FUSE_ROOT_ID, body, 16);
	fs_submit(0, 16, 100);
	q->desc[1].flags = W | N;
	q->desc[1].next = 1;
	expect_failed("a cycle");
	fs_submit(0, 16, 100);
	q->desc[1].flags = N;
	q->desc[1].next = 2;
	desc_set(q, 2, &fs_slots[0].answer, 16, W | N, 0);
	expect_failed("readable behind writable");
	queue_put(q, FS_QUEUE_SIZE);
	expect_failed("a head outside the table");

	/* Chains without a request. */
	desc_set(q, 0, &fs_slots[0].answer, 100, W, 0);
	queue_put(q, 0);
	desc_set(q, 1, &fs_slots[0].header, 39, N, 2);
	desc_set(q, 2, &fs_slots[0].answer, 100, W, 0);
	queue_put(q, 1);
	desc_set(q, 3, &fs_slots[0].header, 0, 0, 0);
	queue_put(q, 3);
	queue_notify(&fs, FS_REQUEST);
	EXPECT(queue_wait(&fs, FS_REQUEST, 3));
	for (uint16_t i = 1; i <= 3; i++)
		EXPECT(queue_used_length(q, (uint16_t)(q->last_used - i)) == 0);
	EXPECT(fs_works());
	test_end("chains that hold no request go back empty");
}

/* Slow requests under way when the device is reset: nothing is written afterwards. */
static void test_reset(void)
{
	static uint8_t before[sizeof(fs_slots[0].out)];
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	memset(before, 0x5a, sizeof(before));
	for (unsigned round = 0; round < 4; round++) {
		EXPECT(fs_start_mounted());
		for (unsigned slot = 0; slot < 24; slot++) {
			fs_prepare(slot, round % 2 ? FUSE_GETATTR : FUSE_STATFS, FUSE_ROOT_ID, &in, round % 2 ? sizeof(in) : 0);
			fs_slots[slot].header.unique = WORLD_FS_SLOW;
			fs_submit(slot, round % 2 ? sizeof(in) : 0, FS_ANSWER_BYTES);
		}
		queue_notify(&fs, FS_REQUEST);
		delay_us(5000);
		device_reset(&fs);
		for (unsigned slot = 0; slot < 24; slot++) {
			memcpy(&fs_slots[slot].answer, before, sizeof(struct fuse_out_header));
			memcpy(fs_slots[slot].out, before, 128);
		}
		delay_us(round ? 1000 : WORLD_FS_SLOW_US * 3);
		for (unsigned slot = 0; slot < 24; slot++)
			EXPECT(!memcmp(&fs_slots[slot].answer, before, sizeof(struct fuse_out_header)) &&
			       !memcmp(fs_slots[slot].out, before, 128));
	}
	EXPECT(fs_start_mounted() && fs_works());
	test_end("reset with requests under way");
}

static void test_noise(void)
{
	EXPECT(fs_start_mounted());
	for (unsigned i = 0; i < 1500; i++) {
		const uint32_t opcode = (uint32_t)(next_random() % OPCODES);
		const uint32_t length = (uint32_t)(next_random() % 80);
		if (opcode == FUSE_DESTROY)
			continue;
		for (uint32_t k = 0; k < length; k += 8) {
			const uint64_t word = next_random() & (next_random() % 4 ? 0xff : UINT64_MAX);
			memcpy(body + k, &word, sizeof(word));
		}
		const int result = fs_call(opcode, next_random() % 6, body, length);
		if (!EXPECT(sane(opcode, result))) {
			print_hex(opcode);
			break;
		}
	}
	EXPECT(fs_works() && fs_lookup(WORLD_FS_FILE) != 0);
	test_end("1500 random requests");
}

void guest_main(void)
{
	if (!EXPECT(device_find(&fs, WORLD_FS_DEVICE, VIRTIO_ID_FS))) {
		test_end("the device is there");
		return;
	}
	test_before_init();
	test_lengths();
	test_room();
	test_nodes();
	test_names();
	test_sizes();
	test_mappings();
	test_rings();
	test_reset();
	test_noise();
}
