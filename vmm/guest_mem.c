/* Guest RAM; see guest_mem.h. The only file that turns a guest physical address into a pointer. */
#include "vmm/guest_mem.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE_BYTES (2ull << 20)

/* Maps one region, aligned so that transparent huge pages can back both the host's and the guest's view of it. */
static int region_map(struct guest_region *region, gpa_t start, uint64_t size_bytes)
{
	const uint64_t reserve_bytes = size_bytes + HUGE_PAGE_BYTES;
	uint8_t *reserve = mmap(NULL, reserve_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reserve == MAP_FAILED)
		return -errno;
	const uintptr_t misaligned = (uintptr_t)reserve & (HUGE_PAGE_BYTES - 1);
	const uint64_t head = misaligned ? HUGE_PAGE_BYTES - misaligned : 0;
	uint8_t *host = reserve + head;
	if (head)
		munmap(reserve, head);
	if (reserve_bytes - head > size_bytes)
		munmap(host + size_bytes, reserve_bytes - head - size_bytes);
	if (mprotect(host, size_bytes, PROT_READ | PROT_WRITE) < 0) {
		const int error = -errno;
		munmap(host, size_bytes);
		return error;
	}
	/* Fewer faults at start and fewer TLB misses later; a host without huge pages goes on with small ones. */
	madvise(host, size_bytes, MADV_HUGEPAGE);
	/* A guest's memory has no business in a core file of ours. */
	madvise(host, size_bytes, MADV_DONTDUMP);
	*region = (struct guest_region){ .start = start, .size_bytes = size_bytes, .host = host };
	return 0;
}

int guest_mem_create(struct guest_mem *mem, uint64_t size_bytes)
{
	struct guest_mem made = { .size_bytes = size_bytes };
	const uint64_t low = size_bytes < GUEST_MEM_HOLE_START ? size_bytes : GUEST_MEM_HOLE_START;

	assert(size_bytes && size_bytes % 4096 == 0);
	int result = region_map(&made.regions[0], 0, low);
	if (result < 0)
		return result;
	made.count = 1;
	if (size_bytes > low) {
		result = region_map(&made.regions[1], GUEST_MEM_HIGH_START, size_bytes - low);
		if (result < 0) {
			guest_mem_destroy(&made);
			return result;
		}
		made.count = 2;
	}
	*mem = made;
	return 0;
}

void guest_mem_destroy(struct guest_mem *mem)
{
	for (unsigned i = 0; i < mem->count; i++)
		munmap(mem->regions[i].host, mem->regions[i].size_bytes);
	mem->count = 0;
}

void guest_mem_from_buffer(struct guest_mem *mem, gpa_t start, void *buffer, uint64_t size_bytes)
{
	*mem = (struct guest_mem){
		.regions = { { .start = start, .size_bytes = size_bytes, .host = buffer } },
		.count = 1,
		.size_bytes = size_bytes,
	};
}

static void *find(const struct guest_region *regions, unsigned count, gpa_t gpa, uint64_t length)
{
	for (unsigned i = 0; i < count; i++) {
		const struct guest_region *region = &regions[i];
		if (gpa < region->start)
			continue;
		const uint64_t offset = gpa - region->start;
		if (offset < region->size_bytes && length <= region->size_bytes - offset)
			return region->host + offset;
	}
	return NULL;
}

void *guest_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t length)
{
	return find(mem->regions, mem->count, gpa, length);
}

void guest_mem_add_shm(struct guest_mem *mem, gpa_t start, void *host, uint64_t size_bytes)
{
	assert(mem->shm_count < GUEST_MEM_MAX_SHM);
	mem->shm[mem->shm_count++] = (struct guest_region){ .start = start, .size_bytes = size_bytes, .host = host };
}

void *guest_shm_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t length)
{
	return find(mem->shm, mem->shm_count, gpa, length);
}

bool guest_is_shm(const struct guest_mem *mem, const void *host)
{
	for (unsigned i = 0; i < mem->shm_count; i++)
		if ((uintptr_t)host - (uintptr_t)mem->shm[i].host < mem->shm[i].size_bytes)
			return true;
	return false;
}

int guest_read(const struct guest_mem *mem, gpa_t gpa, void *to, uint64_t length)
{
	const void *from = guest_ptr(mem, gpa, length);
	if (!from)
		return -EFAULT;
	memcpy(to, from, length);
	return 0;
}

int guest_write(const struct guest_mem *mem, gpa_t gpa, const void *from, uint64_t length)
{
	void *to = guest_ptr(mem, gpa, length);
	if (!to)
		return -EFAULT;
	memcpy(to, from, length);
	return 0;
}
