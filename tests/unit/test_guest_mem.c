/* vmm/guest_mem: which guest addresses are RAM. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/fake_driver.h"
#include "vmm/guest_mem.h"

#define BASE 0x10000ull
#define BYTES 0x3000ull

static struct guest_mem mem;
static uint8_t *ram;

static void buffer_make(void)
{
	ram = calloc(1, BYTES);
	guest_mem_from_buffer(&mem, BASE, ram, BYTES);
}

static void buffer_free(void)
{
	free(ram);
}

TestSuite(guest_mem, .init = buffer_make, .fini = buffer_free);

Test(guest_mem, ptr_of_a_range_inside_the_region)
{
	cr_assert(guest_ptr(&mem, BASE, BYTES) == ram);
	cr_assert(guest_ptr(&mem, BASE, 1) == ram);
	cr_assert(guest_ptr(&mem, BASE + 5, BYTES - 5) == ram + 5);
	cr_assert(guest_ptr(&mem, BASE + BYTES - 1, 1) == ram + BYTES - 1);
}

Test(guest_mem, no_ptr_before_or_behind_the_region)
{
	cr_assert_null(guest_ptr(&mem, BASE - 1, 1));
	cr_assert_null(guest_ptr(&mem, BASE - 1, 2));
	cr_assert_null(guest_ptr(&mem, 0, BASE + BYTES));
	cr_assert_null(guest_ptr(&mem, BASE + BYTES, 1));
	cr_assert_null(guest_ptr(&mem, UINT64_MAX, 1));
}

Test(guest_mem, no_ptr_over_the_end)
{
	cr_assert_null(guest_ptr(&mem, BASE, BYTES + 1));
	cr_assert_null(guest_ptr(&mem, BASE + BYTES - 1, 2));
	cr_assert_null(guest_ptr(&mem, BASE + 1, BYTES));
}

Test(guest_mem, address_plus_length_that_wraps_is_no_range)
{
	cr_assert_null(guest_ptr(&mem, BASE, UINT64_MAX));
	cr_assert_null(guest_ptr(&mem, BASE + 1, UINT64_MAX));
	cr_assert_null(guest_ptr(&mem, BASE + 16, 0ull - 16));
	cr_assert_null(guest_ptr(&mem, BASE + 16, 0ull - BASE));
	cr_assert_null(guest_ptr(&mem, UINT64_MAX - 3, 8));
	cr_assert_null(guest_ptr(&mem, 0ull - BASE, 2 * BASE + 4));
}

Test(guest_mem, length_0_is_valid_inside_only)
{
	cr_assert(guest_ptr(&mem, BASE, 0) == ram);
	cr_assert(guest_ptr(&mem, BASE + BYTES - 1, 0) == ram + BYTES - 1);
	cr_assert_null(guest_ptr(&mem, BASE + BYTES, 0));
	cr_assert_null(guest_ptr(&mem, BASE - 1, 0));
	cr_assert_null(guest_ptr(&mem, 0, 0));
}

Test(guest_mem, without_regions_there_is_no_ram)
{
	const struct guest_mem none = { .count = 0 };
	cr_assert_null(guest_ptr(&none, 0, 0));
	cr_assert_null(guest_ptr(&none, 0, 1));
}

Test(guest_mem, region_at_the_end_of_the_address_space)
{
	guest_mem_from_buffer(&mem, 0ull - BYTES, ram, BYTES);
	cr_assert(guest_ptr(&mem, UINT64_MAX, 1) == ram + BYTES - 1);
	cr_assert(guest_ptr(&mem, 0ull - BYTES, BYTES) == ram);
	cr_assert_null(guest_ptr(&mem, UINT64_MAX, 2));
	cr_assert_null(guest_ptr(&mem, 0, 1));
}

Test(guest_mem, ptr_agrees_with_arithmetic_in_128_bits)
{
	uint64_t seed = 5;
	for (unsigned round = 0; round < 200000; round++) {
		/* Near a border, or anywhere. */
		const uint64_t near[] = { 0, BASE, BASE + BYTES, UINT64_MAX, fake_random(&seed) };
		const gpa_t gpa = near[fake_below(&seed, 5)] + fake_below(&seed, 9) - 4;
		const uint64_t ends[] = { 0, BYTES, 0ull - gpa, BASE + BYTES - gpa, fake_random(&seed) };
		const uint64_t length = ends[fake_below(&seed, 5)] + fake_below(&seed, 9) - 4;
		const bool inside =
		    gpa >= BASE && gpa < BASE + BYTES && (unsigned __int128)gpa + length <= (unsigned __int128)BASE + BYTES;
		cr_assert((guest_ptr(&mem, gpa, length) != NULL) == inside, "%llx + %llx", (unsigned long long)gpa,
			  (unsigned long long)length);
	}
}

Test(guest_mem, read_and_write_copy_whole_ranges_or_nothing)
{
	uint8_t buffer[16] = "0123456789abcde";
	cr_assert_eq(guest_write(&mem, BASE + BYTES - 16, buffer, 16), 0);
	cr_assert(!memcmp(ram + BYTES - 16, buffer, 16));
	memset(buffer, 0, sizeof(buffer));
	cr_assert_eq(guest_read(&mem, BASE + BYTES - 16, buffer, 16), 0);
	cr_assert_str_eq((char *)buffer, "0123456789abcde");
	memset(ram, 0x11, BYTES);
	cr_assert_eq(guest_write(&mem, BASE + BYTES - 15, buffer, 16), -EFAULT);
	for (size_t i = 0; i < BYTES; i++)
		cr_assert_eq(ram[i], 0x11);
	cr_assert_eq(guest_read(&mem, BASE + BYTES - 15, buffer, 16), -EFAULT);
	cr_assert_str_eq((char *)buffer, "0123456789abcde");
	cr_assert_eq(guest_read(&mem, BASE, buffer, 0), 0);
	cr_assert_eq(guest_write(&mem, BASE + BYTES, buffer, 0), -EFAULT);
}

static void make(struct guest_mem *made, uint64_t bytes)
{
	const int result = guest_mem_create(made, bytes);
	if (result == -ENOMEM)
		cr_skip("the host refuses %llu MiB", (unsigned long long)(bytes >> 20));
	cr_assert_eq(result, 0);
}

Test(guest_mem_create, small_memory_is_one_zeroed_region_at_0)
{
	struct guest_mem made;
	make(&made, 64ull << 20);
	cr_assert(made.count == 1 && made.size_bytes == 64ull << 20);
	cr_assert(made.regions[0].start == 0 && made.regions[0].size_bytes == 64ull << 20);
	const uint8_t *first = guest_ptr(&made, 0, 1), *last = guest_ptr(&made, (64ull << 20) - 1, 1);
	cr_assert(first && last && *first == 0 && *last == 0);
	cr_assert_null(guest_ptr(&made, 64ull << 20, 1));
	cr_assert(((uintptr_t)first & 0x1fffff) == 0, "not aligned to a huge page");
	guest_mem_destroy(&made);
	cr_assert_null(guest_ptr(&made, 0, 1));
}

Test(guest_mem_create, one_page)
{
	struct guest_mem made;
	make(&made, 4096);
	memset(guest_ptr(&made, 0, 4096), 1, 4096);
	cr_assert_null(guest_ptr(&made, 0, 4097));
	guest_mem_destroy(&made);
}

Test(guest_mem_create, memory_up_to_the_hole_is_one_region)
{
	struct guest_mem made;
	make(&made, GUEST_MEM_HOLE_START);
	cr_assert_eq(made.count, 1);
	cr_assert_not_null(guest_ptr(&made, GUEST_MEM_HOLE_START - 1, 1));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HOLE_START, 1));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HIGH_START, 1));
	guest_mem_destroy(&made);
}

Test(guest_mem_create, one_page_more_lies_above_the_hole)
{
	struct guest_mem made;
	make(&made, GUEST_MEM_HOLE_START + 4096);
	cr_assert_eq(made.count, 2);
	cr_assert(made.regions[1].start == GUEST_MEM_HIGH_START && made.regions[1].size_bytes == 4096);
	cr_assert_not_null(guest_ptr(&made, GUEST_MEM_HIGH_START, 4096));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HIGH_START, 4097));
	guest_mem_destroy(&made);
}

Test(guest_mem_create, hole_is_no_ram_and_no_range_spans_it)
{
	struct guest_mem made;
	make(&made, 5ull << 30);
	const uint64_t high = (5ull << 30) - GUEST_MEM_HOLE_START;
	cr_assert(made.count == 2 && made.size_bytes == 5ull << 30);
	cr_assert(made.regions[0].size_bytes == GUEST_MEM_HOLE_START && made.regions[1].size_bytes == high);
	cr_assert_not_null(guest_ptr(&made, GUEST_MEM_HOLE_START - 8, 8));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HOLE_START - 8, 9));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HOLE_START, 0));
	cr_assert_null(guest_ptr(&made, 0xd0000000, 4));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HIGH_START - 1, 1));
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HOLE_START - 8, GUEST_MEM_HIGH_START - GUEST_MEM_HOLE_START + 16));
	uint8_t *at = guest_ptr(&made, GUEST_MEM_HIGH_START, high);
	cr_assert_not_null(at);
	at[0] = at[high - 1] = 0x5a;
	cr_assert_null(guest_ptr(&made, GUEST_MEM_HIGH_START + high, 0));
	guest_mem_destroy(&made);
}

Test(guest_mem_create, what_the_host_cannot_map_is_an_error_without_effect)
{
	struct guest_mem made = { .count = 0, .size_bytes = 77 };
	/* More than an address space, in both regions' ways. */
	cr_assert_eq(guest_mem_create(&made, 1ull << 62), -ENOMEM);
	cr_assert_eq(made.size_bytes, 77);
}
