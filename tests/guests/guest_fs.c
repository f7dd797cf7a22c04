/* A driver of virtio-fs; see guest_fs.h. */
#include "tests/guests/guest_fs.h"

struct fs_slot fs_slots[FS_SLOTS] __attribute__((aligned(4096)));
struct device fs;

static uint64_t calls;

bool fs_start(void)
{
	return device_start(&fs, FEATURE_INDIRECT, 2, FS_QUEUE_SIZE);
}

int fs_init(void)
{
	const struct fuse_init_in in = { .major = FUSE_KERNEL_VERSION, .minor = 36, .max_readahead = 1 << 20, .flags = UINT32_MAX };
	return fs_call(FUSE_INIT, 0, &in, sizeof(in));
}

bool fs_start_mounted(void)
{
	return fs_start() && fs_init() == 0;
}

void fs_prepare(unsigned slot, uint32_t opcode, uint64_t node, const void *body, uint32_t body_bytes)
{
	struct fs_slot *s = &fs_slots[slot];
	s->header = (struct fuse_in_header){
		.len = (uint32_t)sizeof(s->header) + body_bytes, .opcode = opcode, .unique = (++calls << 8) | slot, .nodeid = node
	};
	if (body_bytes)
		memcpy(s->body, body, body_bytes);
	memset(&s->answer, 0xee, sizeof(s->answer));
}

void fs_submit(unsigned slot, uint32_t body_bytes, uint32_t out_bytes)
{
	struct fs_slot *s = &fs_slots[slot];
	struct queue *q = &fs.queues[FS_REQUEST];
	const unsigned first = 3 * slot;
	/* The header and what follows it lie side by side. */
	desc_set(q, first, &s->header, (uint32_t)sizeof(s->header) + body_bytes, VRING_DESC_F_NEXT, (uint16_t)(first + 1));
	desc_set(q, first + 1, &s->answer, (uint32_t)sizeof(s->answer) + out_bytes, VRING_DESC_F_WRITE, 0);
	queue_put(q, (uint16_t)first);
}

int fs_result(unsigned slot, uint32_t length)
{
	const struct fs_slot *s = &fs_slots[slot];
	if (length == 0)
		return FS_EMPTY;
	if (length < sizeof(s->answer) || s->answer.len != length || s->answer.unique != s->header.unique)
		return FS_BROKEN;
	if (s->answer.error > 0 || (s->answer.error && length != sizeof(s->answer)))
		return FS_BROKEN;
	return s->answer.error;
}

int fs_call(uint32_t opcode, uint64_t node, const void *body, uint32_t body_bytes)
{
	struct queue *q = &fs.queues[FS_REQUEST];
	fs_prepare(0, opcode, node, body, body_bytes);
	fs_submit(0, body_bytes, FS_ANSWER_BYTES);
	queue_notify(&fs, FS_REQUEST);
	if (!queue_wait(&fs, FS_REQUEST, 1))
		return FS_LOST;
	return fs_result(0, queue_used_length(q, (uint16_t)(q->last_used - 1)));
}

int fs_call_name(uint32_t opcode, uint64_t node, const void *arguments, uint32_t arguments_bytes, const char *name)
{
	uint8_t body[FS_BODY_BYTES];
	const uint32_t length = (uint32_t)strlen(name) + 1;
	if (arguments_bytes)
		memcpy(body, arguments, arguments_bytes);
	memcpy(body + arguments_bytes, name, length);
	return fs_call(opcode, node, body, arguments_bytes + length);
}

bool fs_works(void)
{
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	const struct fuse_attr_out *out = (const void *)fs_slots[0].out;
	return fs_call(FUSE_GETATTR, FUSE_ROOT_ID, &in, sizeof(in)) == 0 && (out->attr.mode & 0170000) == 0040000;
}

uint64_t fs_lookup(const char *name)
{
	const struct fuse_entry_out *out = (const void *)fs_slots[0].out;
	return fs_call_name(FUSE_LOOKUP, FUSE_ROOT_ID, NULL, 0, name) == 0 ? out->nodeid : 0;
}

static uint64_t shm_register(unsigned low)
{
	return mmio_read32(fs.base + low) | (uint64_t)mmio_read32(fs.base + low + 4) << 32;
}

uint64_t fs_window(uint64_t *bytes)
{
	mmio_write32(fs.base + VIRTIO_MMIO_SHM_SEL, 0);
	*bytes = shm_register(VIRTIO_MMIO_SHM_LEN_LOW);
	return *bytes == UINT64_MAX ? 0 : shm_register(VIRTIO_MMIO_SHM_BASE_LOW);
}

int fs_map(uint64_t node, uint64_t offset, uint64_t length, uint64_t flags, uint64_t at)
{
	const struct fuse_setupmapping_in in = {
		.fh = UINT64_MAX, .foffset = offset, .len = length, .flags = flags, .moffset = at
	};
	return fs_call(FUSE_SETUPMAPPING, node, &in, sizeof(in));
}

int fs_unmap(uint32_t count, uint64_t at, uint64_t length)
{
	const struct fuse_removemapping_one one = { .moffset = at, .len = length };
	uint8_t body[sizeof(count) + sizeof(one)];
	memcpy(body, &count, sizeof(count));
	memcpy(body + sizeof(count), &one, sizeof(one));
	return fs_call(FUSE_REMOVEMAPPING, FUSE_ROOT_ID, body, sizeof(body));
}
