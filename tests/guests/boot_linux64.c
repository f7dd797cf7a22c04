/*
 * What a kernel finds when it is entered by the 64-bit boot protocol (Documentation/x86/boot.rst of the Linux kernel):
 * registers, page tables, boot_params, the command line, the memory map, setup_data and the tables that these lead to.
 */
#include "tests/guests/guest.h"

#include <asm/bootparam.h>

#define CR0_PE 1ull
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define EFER_LMA (1ull << 10)
#define FLAGS_IF (1ull << 9)
#define SETUP_RNG_SEED 9
#define HDRS 0x53726448u

static void check_registers(void)
{
	EXPECT(entry.protocol == ENTRY_LINUX64);
	EXPECT((entry.cr0 & (CR0_PE | CR0_PG)) == (CR0_PE | CR0_PG));
	EXPECT(entry.cr4 & CR4_PAE);
	EXPECT(entry.efer & EFER_LMA);
	EXPECT(!(entry.flags & FLAGS_IF));
	EXPECT(entry.cs == 0x10);
	EXPECT(entry.ds == 0x18 && entry.es == 0x18 && entry.ss == 0x18);
	EXPECT(entry.info && entry.info % 16 == 0 && entry.info < WORLD_MEMORY_BYTES);
	test_end("registers at the 64-bit entry");
}

/* Follows the tables as the processor does; large pages of 1 GiB or 2 MiB, or small ones. */
static uint64_t translate(uint64_t address)
{
	uint64_t table = entry.cr3 & ~0xfffull;
	for (unsigned shift = 39;; shift -= 9) {
		const uint64_t pte = *(const uint64_t *)(uintptr_t)(table + 8 * ((address >> shift) & 511));
		if ((pte & 3) != 3)
			return UINT64_MAX;
		const uint64_t mask = (1ull << shift) - 1;
		if (shift == 12 || (shift < 39 && (pte & 0x80)))
			return (pte & 0x000ffffffffff000ull & ~mask) | (address & mask);
		table = pte & 0x000ffffffffff000ull;
	}
}

static void check_page_tables(void)
{
	static const uint64_t addresses[] = { 0,          0x1000,     0x9fc00,    0x100000,   WORLD_MEMORY_BYTES - 1,
					      0x3fffffff, 0x40000000, 0xbfffffff, 0xd0000000, 0xfec00000,
					      0xfee00000, 0xffffffff };
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		EXPECT(translate(addresses[i]) == addresses[i]);
	EXPECT(translate(0x100000000ull) == UINT64_MAX);
	test_end("low 4 GiB mapped one to one, nothing above");
}

static void check_header(const struct boot_params *params)
{
	const struct setup_header *hdr = &params->hdr;
	EXPECT(hdr->boot_flag == 0xaa55);
	EXPECT(hdr->header == HDRS);
	EXPECT(hdr->version >= 0x20c);
	EXPECT(hdr->type_of_loader == 0xff);
	EXPECT(hdr->loadflags & LOADED_HIGH);
	EXPECT(hdr->ramdisk_image == 0 && hdr->ramdisk_size == 0);
	EXPECT(params->sentinel == 0); /* else the kernel takes boot_params for garbage */
	test_end("setup header");
}

static void check_seed(const struct boot_params *params)
{
	const struct setup_data *data = (const struct setup_data *)(uintptr_t)params->hdr.setup_data;
	if (EXPECT(data)) {
		uint8_t any = 0;
		EXPECT(data->type == SETUP_RNG_SEED && data->next == 0);
		EXPECT(data->len == 32);
		for (unsigned i = 0; i < data->len && i < 32; i++)
			any |= data->data[i];
		EXPECT(any);
	}
	test_end("a seed for the random number generator");
}

void guest_main(void)
{
	const struct boot_params *params = (const struct boot_params *)(uintptr_t)entry.info;
	struct memory_range map[8];

	check_registers();
	check_page_tables();
	bss_check();
	check_header(params);
	const char *cmdline = (const char *)(uintptr_t)params->hdr.cmd_line_ptr;
	EXPECT(params->ext_cmd_line_ptr == 0 && params->hdr.cmdline_size >= strlen(cmdline));
	const unsigned cpus = cmdline_check(cmdline);
	check_seed(params);
	const unsigned count = params->e820_entries < 8 ? params->e820_entries : 8;
	for (unsigned i = 0; i < count; i++)
		map[i] = (struct memory_range){ params->e820_table[i].addr, params->e820_table[i].addr + params->e820_table[i].size,
						params->e820_table[i].type };
	const void *const used[] = { params,
				     cmdline,
				     (const void *)(uintptr_t)params->hdr.setup_data,
				     (const void *)(uintptr_t)params->acpi_rsdp_addr,
				     (const void *)(uintptr_t)entry.cr3,
				     guest_end };
	memory_map_check(map, count, used, sizeof(used) / sizeof(used[0]));
	acpi_check(params->acpi_rsdp_addr, cpus);
	mptable_check(cpus);
}
