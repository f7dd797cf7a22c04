/*
 * The driver's side of split virtqueues over a plain buffer as guest RAM, for tests of queues and devices: it writes exactly
 * what it is told, right or wrong. Also the random numbers of the property tests: a fixed sequence for each seed.
 */
#ifndef TRVMM_TESTS_FAKE_DRIVER_H
#define TRVMM_TESTS_FAKE_DRIVER_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/le.h"
#include "devices/virtio/virtq.h"

#define FAKE_RAM_BASE 0x10000u /* not 0: an offset taken for an address, or the reverse, misses RAM */

#define FAKE_NEXT 1
#define FAKE_WRITE 2
#define FAKE_INDIRECT 4

/* ---- random numbers (xorshift64*) ---- */

static inline uint64_t fake_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

/* A number below `end`, which is not 0. */
static inline uint32_t fake_below(uint64_t *state, uint32_t end)
{
	return (uint32_t)((fake_random(state) >> 32) % end);
}

static inline void fake_fill(uint64_t *state, void *to, size_t length)
{
	uint8_t *bytes = to;
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)(fake_random(state) >> 56);
}

/* ---- RAM, and shared memory of a device ---- */

struct fake_ram {
	struct guest_mem mem;
	uint8_t *bytes; /* a heap block of its own: the address sanitizer sees what goes past its end */
	uint32_t size_bytes;
};

static inline void fake_ram_init(struct fake_ram *ram, uint32_t size_bytes)
{
	ram->bytes = aligned_alloc(4096, size_bytes);
	assert(ram->bytes);
	memset(ram->bytes, 0, size_bytes);
	ram->size_bytes = size_bytes;
	guest_mem_from_buffer(&ram->mem, FAKE_RAM_BASE, ram->bytes, size_bytes);
}

#define FAKE_SHM_BASE 0x100000000ull
#define FAKE_SHM_BYTES (16u << 20) /* of which the first page can be touched */

/* Adds it to what the guest has. fake_shm_destroy() is due. */
static inline uint8_t *fake_shm_add(struct fake_ram *ram)
{
	uint8_t *shm = mmap(NULL, FAKE_SHM_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert(shm != MAP_FAILED);
	const int failed = mprotect(shm, 4096, PROT_READ | PROT_WRITE);
	assert(!failed);
	(void)failed;
	guest_mem_add_shm(&ram->mem, FAKE_SHM_BASE, shm, FAKE_SHM_BYTES);
	return shm;
}

static inline void fake_shm_destroy(uint8_t *shm)
{
	munmap(shm, FAKE_SHM_BYTES);
}

static inline void fake_ram_destroy(struct fake_ram *ram)
{
	free(ram->bytes);
	ram->bytes = NULL;
}

static inline gpa_t fake_ram_end(const struct fake_ram *ram)
{
	return FAKE_RAM_BASE + (gpa_t)ram->size_bytes;
}

static inline uint8_t *fake_at(const struct fake_ram *ram, gpa_t gpa)
{
	assert(gpa >= FAKE_RAM_BASE && gpa <= fake_ram_end(ram));
	return ram->bytes + (gpa - FAKE_RAM_BASE);
}

static inline void fake_put16(struct fake_ram *ram, gpa_t gpa, uint16_t value)
{
	const le16 raw = le16_make(value);
	memcpy(fake_at(ram, gpa), &raw, sizeof(raw));
}

static inline uint16_t fake_get16(const struct fake_ram *ram, gpa_t gpa)
{
	le16 raw;
	memcpy(&raw, fake_at(ram, gpa), sizeof(raw));
	return le16_get(raw);
}

static inline uint32_t fake_get32(const struct fake_ram *ram, gpa_t gpa)
{
	le32 raw;
	memcpy(&raw, fake_at(ram, gpa), sizeof(raw));
	return le32_get(raw);
}

/* What the device may look at meanwhile, on another thread: an even address. */
static inline void fake_store16(struct fake_ram *ram, gpa_t gpa, uint16_t value)
{
	__atomic_store_n((uint16_t *)(void *)fake_at(ram, gpa), htole16(value), __ATOMIC_RELEASE);
}

static inline uint16_t fake_load16(const struct fake_ram *ram, gpa_t gpa)
{
	return le16toh(__atomic_load_n((const uint16_t *)(const void *)fake_at(ram, gpa), __ATOMIC_ACQUIRE));
}

/* ---- a queue ---- */

struct fake_queue {
	struct fake_ram *ram;
	uint16_t size;
	gpa_t desc, avail, used;
	uint16_t avail_idx; /* what we published */
	uint16_t used_seen; /* what we took back */
};

/* Lays the rings out at `at`, which is a multiple of 16. Returns the first address behind them (a multiple of 16). */
static inline gpa_t fake_queue_init(struct fake_queue *q, struct fake_ram *ram, gpa_t at, uint16_t size)
{
	*q = (struct fake_queue){ .ram = ram, .size = size, .desc = at };
	q->avail = q->desc + 16u * size;
	q->used = (q->avail + 6 + 2u * size + 3) & ~3ull;
	const gpa_t end = (q->used + 6 + 8u * size + 15) & ~15ull;
	memset(fake_at(ram, at), 0, end - at);
	return end;
}

static inline struct virtq_config fake_queue_config(const struct fake_queue *q)
{
	return (struct virtq_config){ .size = q->size, .ready = true, .desc = q->desc, .avail = q->avail, .used = q->used };
}

/* Writes entry `index` of a table at `table`: the queue's own or an indirect one. */
static inline void fake_table_desc(struct fake_ram *ram, gpa_t table, unsigned index, uint64_t addr, uint32_t length,
				   unsigned flags, unsigned next)
{
	const struct {
		le64 addr;
		le32 len;
		le16 flags, next;
	} desc = { le64_make(addr), le32_make(length), le16_make((uint16_t)flags), le16_make((uint16_t)next) };
	memcpy(fake_at(ram, table + 16ull * index), &desc, sizeof(desc));
}

static inline void fake_desc(struct fake_queue *q, unsigned index, uint64_t addr, uint32_t length, unsigned flags, unsigned next)
{
	fake_table_desc(q->ram, q->desc, index, addr, length, flags, next);
}

static inline void fake_publish(struct fake_queue *q, uint16_t head)
{
	fake_store16(q->ram, q->avail + 4 + 2u * (q->avail_idx % q->size), head);
	q->avail_idx++;
	fake_store16(q->ram, q->avail + 2, q->avail_idx);
}

/* Takes the next element of the used ring. False: there is none. */
static inline bool fake_used(struct fake_queue *q, uint32_t *head, uint32_t *length)
{
	if (q->used_seen == fake_load16(q->ram, q->used + 2))
		return false;
	const gpa_t element = q->used + 4 + 8u * (q->used_seen % q->size);
	*head = fake_get32(q->ram, element);
	*length = fake_get32(q->ram, element + 4);
	q->used_seen++;
	return true;
}

static inline void fake_set_used_event(struct fake_queue *q, uint16_t index)
{
	fake_put16(q->ram, q->avail + 4 + 2u * q->size, index);
}

static inline uint16_t fake_avail_event(const struct fake_queue *q)
{
	return fake_get16(q->ram, q->used + 4 + 8u * q->size);
}

#endif
