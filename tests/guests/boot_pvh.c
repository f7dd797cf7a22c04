/*
 * What a kernel finds when it is entered by PVH (Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h): 32-bit
 * registers, hvm_start_info, the memory map and the tables that these lead to. Run with `--boot pvh`.
 */
#include "tests/guests/guest.h"

#define CR0_PE 1ull
#define CR0_PG (1ull << 31)
#define EFER_LONG (1ull << 10 | 1ull << 8)
#define FLAGS_VM_IF (1ull << 17 | 1ull << 9)
#define START_MAGIC 0x336ec578u

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};

static void check_registers(void)
{
	EXPECT(entry.protocol == ENTRY_PVH);
	EXPECT((entry.cr0 & (CR0_PE | CR0_PG)) == CR0_PE);
	EXPECT(entry.cr4 == 0);
	EXPECT(!(entry.efer & EFER_LONG));
	EXPECT(!(entry.flags & FLAGS_VM_IF));
	/* Flat segments with any selector: that the 32-bit code came this far shows their bases and limits. */
	EXPECT(entry.cs && entry.ds == entry.es && entry.ds == entry.ss);
	test_end("registers at the PVH entry");
}

void guest_main(void)
{
	const struct start_info *info = (const struct start_info *)(uintptr_t)entry.info;
	struct memory_range map[8];

	check_registers();
	bss_check();
	EXPECT(info->magic == START_MAGIC && info->version == 1);
	EXPECT(info->flags == 0 && info->nr_modules == 0 && info->modlist == 0 && info->reserved == 0);
	test_end("hvm_start_info");
	const char *cmdline = (const char *)(uintptr_t)info->cmdline;
	const unsigned cpus = cmdline_check(cmdline);
	const struct memmap_entry *entries = (const struct memmap_entry *)(uintptr_t)info->memmap;
	const unsigned count = info->memmap_entries < 8 ? info->memmap_entries : 8;
	for (unsigned i = 0; i < count; i++) {
		EXPECT(entries[i].reserved == 0);
		map[i] = (struct memory_range){ entries[i].addr, entries[i].addr + entries[i].size, entries[i].type };
	}
	const void *const used[] = { info, cmdline, entries, (const void *)(uintptr_t)info->rsdp, guest_end };
	memory_map_check(map, count, used, sizeof(used) / sizeof(used[0]));
	acpi_check(info->rsdp, cpus);
	mptable_check(cpus);
}
