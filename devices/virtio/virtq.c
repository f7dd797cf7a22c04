/*
 * The device's side of a split virtqueue; see virtq.h.
 *
 * Offsets inside the rings (virtio 1.2, 2.7.6 and 2.7.8), each a little-endian 16-bit value but the used elements:
 *
 *   avail:  flags 0 | idx 2 | ring 4 ... | used_event 4 + 2 * size
 *   used:   flags 0 | idx 2 | ring 4 ... | avail_event 4 + 8 * size
 */
#include "devices/virtio/virtq.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/le.h"

struct virtq_desc {
	le64 addr;
	le32 len;
	le16 flags;
	le16 next;
};
_Static_assert(sizeof(struct virtq_desc) == 16, "descriptor");

#define DESC_F_NEXT 1
#define DESC_F_WRITE 2
#define DESC_F_INDIRECT 4

#define AVAIL_F_NO_INTERRUPT 1
#define USED_F_NO_NOTIFY 1

/* The rings are shared with running vCPUs: each field is read or written once, whole, in this order with the rest. */
static uint16_t ring_load(const uint8_t *at)
{
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_ACQUIRE));
}

static void ring_store(uint8_t *at, uint16_t value)
{
	__atomic_store_n((uint16_t *)(void *)at, htole16(value), __ATOMIC_RELEASE);
}

int virtq_enable(struct virtq *q, const struct guest_mem *mem, const struct virtq_config *config, bool event_idx)
{
	const uint16_t size = config->size;
	if (size == 0 || size > VIRTQ_MAX_SIZE || (size & (size - 1)))
		return -EINVAL;
	if (config->desc % 16 || config->avail % 2 || config->used % 4)
		return -EINVAL;
	uint8_t *desc = guest_ptr(mem, config->desc, 16ull * size);
	uint8_t *avail = guest_ptr(mem, config->avail, 6 + 2ull * size);
	uint8_t *used = guest_ptr(mem, config->used, 6 + 8ull * size);
	if (!desc || !avail || !used)
		return -EINVAL;
	*q = (struct virtq){ .mem = mem, .size = size, .event_idx = event_idx, .desc = desc, .avail = avail, .used = used };
	return 0;
}

void virtq_disable(struct virtq *q)
{
	*q = (struct virtq){ 0 };
}

static int virtq_break(struct virtq *q)
{
	q->broken = true;
	return -EINVAL;
}

/* A table of descriptors being walked: the queue's own, or an indirect one. */
struct desc_walk {
	const uint8_t *table;
	uint32_t entries;
	uint32_t next;
	bool indirect;
};

/* Adds one buffer to the chain. Returns false when it breaks a rule. */
static bool chain_add(struct virtq *q, struct virtq_chain *chain, uint64_t addr, uint32_t length, bool writable)
{
	uint32_t *total = writable ? &chain->writable_bytes : &chain->readable_bytes;
	if (!writable && chain->writable_count)
		return false;
	if (length == 0)
		return true;
	void *host = guest_ptr(q->mem, addr, length);
	if (!host && q->takes_shm)
		chain->shm |= (host = guest_shm_ptr(q->mem, addr, length)) != NULL;
	if (!host || __builtin_add_overflow(*total, length, total))
		return false;
	const unsigned used = chain->readable_count + chain->writable_count;
	chain->iov[used] = (struct iovec){ .iov_base = host, .iov_len = length };
	if (writable)
		chain->writable_count++;
	else
		chain->readable_count++;
	return true;
}

/* Continues the walk in the indirect table that `desc` describes (2.7.5.3); its write flag is to be ignored. Returns false when it breaks
 * a rule. */
static bool enter_indirect(struct virtq *q, struct desc_walk *walk, const struct virtq_desc *desc)
{
	const uint32_t length = le32_get(desc->len);
	const uint16_t flags = le16_get(desc->flags);
	if (walk->indirect || (flags & DESC_F_NEXT) || length == 0 || length % sizeof(*desc))
		return false;
	const uint8_t *table = guest_ptr(q->mem, le64_get(desc->addr), length);
	if (!table)
		return false;
	*walk = (struct desc_walk){ .table = table, .entries = length / (uint32_t)sizeof(*desc), .indirect = true };
	return true;
}

static bool chain_walk(struct virtq *q, struct virtq_chain *chain)
{
	struct desc_walk walk = { .table = q->desc, .entries = q->size, .next = chain->head };

	/* A chain is never longer than the queue (2.7.5.2), so a cycle ends here. The entry that leads to a table is not counted. */
	for (unsigned steps = 0; steps < q->size;) {
		if (walk.next >= walk.entries)
			return false;
		struct virtq_desc desc;
		memcpy(&desc, walk.table + walk.next * sizeof(desc), sizeof(desc));
		const uint16_t flags = le16_get(desc.flags);
		if (flags & DESC_F_INDIRECT) {
			if (!enter_indirect(q, &walk, &desc))
				return false;
			continue;
		}
		if (!chain_add(q, chain, le64_get(desc.addr), le32_get(desc.len), flags & DESC_F_WRITE))
			return false;
		if (!(flags & DESC_F_NEXT))
			return true;
		walk.next = le16_get(desc.next);
		steps++;
	}
	return false;
}

int virtq_pop(struct virtq *q, struct virtq_chain *chain)
{
	if (!q->mem)
		return 0;
	if (q->broken)
		return -EINVAL;
	const uint16_t waiting = (uint16_t)(ring_load(q->avail + 2) - q->next_avail);
	if (waiting == 0)
		return 0;
	if (waiting > q->size)
		return virtq_break(q);
	const uint16_t head = ring_load(q->avail + 4 + 2u * (q->next_avail & (q->size - 1u)));
	chain->head = head;
	chain->readable_count = chain->writable_count = 0;
	chain->readable_bytes = chain->writable_bytes = 0;
	chain->shm = false;
	if (!chain_walk(q, chain))
		return virtq_break(q);
	q->next_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->next_avail--;
}

bool virtq_has_avail(const struct virtq *q)
{
	return q->mem && !q->broken && ring_load(q->avail + 2) != q->next_avail;
}

void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes)
{
	if (!q->mem)
		return;
	const struct {
		le32 id, len;
	} element = { le32_make(head), le32_make(written_bytes) };
	memcpy(q->used + 4 + 8u * (q->next_used & (q->size - 1u)), &element, sizeof(element));
	q->next_used++;
	/* Release: the driver that sees the index sees the element and the data. */
	ring_store(q->used + 2, q->next_used);
}

bool virtq_needs_interrupt(struct virtq *q)
{
	if (!q->mem || q->signalled_used == q->next_used)
		return false;
	const uint16_t before = q->signalled_used;
	q->signalled_used = q->next_used;
	/* The index must be visible before the driver's wish is read, or both sides wait for each other. */
	atomic_thread_fence(memory_order_seq_cst);
	if (!q->event_idx)
		return !(ring_load(q->avail) & AVAIL_F_NO_INTERRUPT);
	const uint16_t used_event = ring_load(q->avail + 4 + 2u * q->size);
	return (uint16_t)(q->next_used - used_event - 1) < (uint16_t)(q->next_used - before);
}

bool virtq_want_kicks(struct virtq *q, bool wanted)
{
	if (!q->mem || q->broken)
		return false;
	if (!q->event_idx)
		ring_store(q->used, wanted ? 0 : USED_F_NO_NOTIFY);
	else if (wanted)
		ring_store(q->used + 4 + 8u * q->size, q->next_avail);
	/* With EVENT_IDX the old avail_event stays behind the driver's index: that is "do not bother" already. */
	if (!wanted)
		return false;
	atomic_thread_fence(memory_order_seq_cst);
	return virtq_has_avail(q);
}
