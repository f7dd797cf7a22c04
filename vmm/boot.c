/* Boot protocols; see boot.h. */
#include "vmm/boot.h"

#include <asm/bootparam.h>
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "vmm/layout.h"

#define SETUP_RNG_SEED 9 /* asm/setup_data.h; newer than Debian 12's headers */
#define RNG_SEED_BYTES 32

#define CR0_PE (1ull << 0)
#define CR0_ET (1ull << 4)
#define CR0_PG (1ull << 31)
#define CR4_PAE (1ull << 5)
#define EFER_LME (1ull << 8)
#define EFER_LMA (1ull << 10)

#define PTE_PRESENT (1ull << 0)
#define PTE_WRITABLE (1ull << 1)
#define PTE_LARGE (1ull << 7)

#define INITRD_ADDR_MAX 0x7fffffffu

#define E820_RAM 1
#define E820_RESERVED 2

/* Xen's public arch-x86/hvm/start_info.h, version 1. */
struct hvm_start_info {
	uint32_t magic;
	uint32_t version;
	uint32_t flags;
	uint32_t nr_modules;
	uint64_t modlist_paddr;
	uint64_t cmdline_paddr;
	uint64_t rsdp_paddr;
	uint64_t memmap_paddr;
	uint32_t memmap_entries;
	uint32_t reserved;
};
struct hvm_memmap_entry {
	uint64_t addr;
	uint64_t size;
	uint32_t type;
	uint32_t reserved;
};
struct hvm_modlist_entry {
	uint64_t paddr;
	uint64_t size;
	uint64_t cmdline_paddr;
	uint64_t reserved;
};
_Static_assert(sizeof(struct hvm_start_info) == 56 && sizeof(struct hvm_memmap_entry) == 24 && sizeof(struct hvm_modlist_entry) == 32,
	       "start_info.h");
#define HVM_START_MAGIC 0x336ec578u

/* A memory map in the form of boot_params; PVH's has the same types. */
struct memory_map {
	struct boot_e820_entry entries[GUEST_MEM_MAX_REGIONS + 2];
	unsigned count;
};

static void map_add(struct memory_map *map, uint64_t start, uint64_t end, uint32_t type)
{
	map->entries[map->count++] = (struct boot_e820_entry){ .addr = start, .size = end - start, .type = type };
}

static void build_memory_map(const struct guest_mem *mem, struct memory_map *map)
{
	map->count = 0;
	map_add(map, 0, LAYOUT_EBDA, E820_RAM);
	map_add(map, LAYOUT_EBDA, LAYOUT_HIGH_RAM, E820_RESERVED);
	map_add(map, LAYOUT_HIGH_RAM, mem->regions[0].size_bytes, E820_RAM);
	for (unsigned i = 1; i < mem->count; i++)
		map_add(map, mem->regions[i].start, mem->regions[i].start + mem->regions[i].size_bytes, E820_RAM);
}

uint8_t boot_checksum(const uint8_t *bytes, size_t length)
{
	uint8_t sum = 0;
	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + bytes[i]);
	return (uint8_t)-sum;
}

/* The structures below lie under 1 MiB, which guest_mem_create() made RAM for every size that main lets through. */
static void put(const struct guest_mem *mem, gpa_t at, const void *from, size_t length)
{
	const int result = guest_write(mem, at, from, length);
	assert(result == 0);
}

/* Fresh entropy for the guest's random number generator at its first use (struct setup_data with a seed). */
static void put_rng_seed(const struct guest_mem *mem)
{
	struct setup_data head = { .type = SETUP_RNG_SEED, .len = RNG_SEED_BYTES };
	uint8_t seed[RNG_SEED_BYTES] = { 0 };

	/* Without entropy on the host the guest goes by its own sources. */
	if (getrandom(seed, sizeof(seed), GRND_NONBLOCK) != (ssize_t)sizeof(seed))
		head.len = 0;
	put(mem, LAYOUT_SETUP_DATA, &head, sizeof(head));
	put(mem, LAYOUT_SETUP_DATA + sizeof(head), seed, sizeof(seed));
}

static void put_boot_params(const struct guest_mem *mem, const struct kernel_image *kernel, gpa_t initrd, size_t cmdline_length)
{
	struct boot_params params;
	struct memory_map map;

	memset(&params, 0, sizeof(params));
	if (kernel->from_bzimage)
		memcpy(&params.hdr, kernel->setup_header,
		       sizeof(kernel->setup_header) < sizeof(params.hdr) ? sizeof(kernel->setup_header) : sizeof(params.hdr));
	else
		params.hdr.version = 0x20f;
	params.hdr.boot_flag = 0xaa55;
	params.hdr.header = 0x53726448; /* "HdrS" */
	params.hdr.type_of_loader = 0xff;
	params.hdr.loadflags = LOADED_HIGH;
	params.hdr.cmd_line_ptr = (uint32_t)LAYOUT_CMDLINE;
	params.hdr.cmdline_size = (uint32_t)cmdline_length;
	params.hdr.ramdisk_image = (uint32_t)initrd;
	params.hdr.ramdisk_size = (uint32_t)kernel->initrd_bytes;
	params.hdr.setup_data = LAYOUT_SETUP_DATA;
	params.acpi_rsdp_addr = LAYOUT_ACPI;
	build_memory_map(mem, &map);
	memcpy(params.e820_table, map.entries, map.count * sizeof(map.entries[0]));
	params.e820_entries = (uint8_t)map.count;
	put(mem, LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	put_rng_seed(mem);
}

static void put_pvh_info(const struct guest_mem *mem, const struct kernel_image *kernel, gpa_t initrd)
{
	struct memory_map map;
	struct {
		struct hvm_start_info info;
		struct hvm_memmap_entry entries[GUEST_MEM_MAX_REGIONS + 2];
		struct hvm_modlist_entry initrd;
	} pvh = { .info = { .magic = HVM_START_MAGIC, .version = 1, .cmdline_paddr = LAYOUT_CMDLINE, .rsdp_paddr = LAYOUT_ACPI } };

	build_memory_map(mem, &map);
	for (unsigned i = 0; i < map.count; i++)
		pvh.entries[i] = (struct hvm_memmap_entry){
			.addr = map.entries[i].addr, .size = map.entries[i].size, .type = map.entries[i].type
		};
	if (kernel->initrd_bytes) {
		pvh.initrd = (struct hvm_modlist_entry){ .paddr = initrd, .size = kernel->initrd_bytes };
		pvh.info.nr_modules = 1;
		pvh.info.modlist_paddr = LAYOUT_PVH_INFO + sizeof(pvh.info) + sizeof(pvh.entries);
	}
	pvh.info.memmap_paddr = LAYOUT_PVH_INFO + sizeof(pvh.info);
	pvh.info.memmap_entries = map.count;
	put(mem, LAYOUT_PVH_INFO, &pvh, sizeof(pvh));
}

/* One to one for the low 4 GiB, in pages of 2 MiB. */
static void put_page_tables(const struct guest_mem *mem)
{
	uint64_t table[512] = { 0 };
	const gpa_t pml4 = LAYOUT_PAGE_TABLES, pdpt = pml4 + 0x1000, first_pd = pdpt + 0x1000;

	table[0] = pdpt | PTE_PRESENT | PTE_WRITABLE;
	put(mem, pml4, table, sizeof(table));
	for (unsigned i = 0; i < 4; i++)
		table[i] = (first_pd + i * 0x1000ull) | PTE_PRESENT | PTE_WRITABLE;
	put(mem, pdpt, table, sizeof(table));
	for (uint64_t pd = 0; pd < 4; pd++) {
		for (uint64_t i = 0; i < 512; i++)
			table[i] = (pd << 30 | i << 21) | PTE_PRESENT | PTE_WRITABLE | PTE_LARGE;
		put(mem, first_pd + pd * 0x1000, table, sizeof(table));
	}
}

/* Null, unused, code 0x10, data 0x18, TSS 0x20: __BOOT_CS and __BOOT_DS as the boot protocol wants them. */
static void put_gdt(const struct guest_mem *mem, bool long_mode)
{
	const uint64_t gdt[] = {
		0, 0, long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull, 0x00cf93000000ffffull, 0x00008b000000ffffull
	};
	put(mem, LAYOUT_GDT, gdt, sizeof(gdt));
}

/*
 * At the end of the RAM below 4 GiB, but not above where the kernel can reach it: in the first 2 GiB, or where a bzImage's header says
 * (initrd_addr_max, boot protocol 2.03). Returns 0, with the address in `at`, or -ENOMEM with one line.
 */
static int load_initrd(const struct guest_mem *mem, const struct kernel_image *kernel, gpa_t kernel_end, gpa_t *at, struct error *err)
{
	struct setup_header header;
	uint64_t end = INITRD_ADDR_MAX + 1ull;
	if (!kernel->initrd_bytes)
		return 0;
	memcpy(&header, kernel->setup_header, sizeof(header));
	if (kernel->from_bzimage && header.initrd_addr_max && header.initrd_addr_max < end)
		end = header.initrd_addr_max + 1ull;
	if (end > mem->regions[0].size_bytes)
		end = mem->regions[0].size_bytes;
	const uint64_t start = kernel->initrd_bytes < end ? (end - kernel->initrd_bytes) & ~4095ull : 0;
	if (start < kernel_end || guest_write(mem, start, kernel->initrd, kernel->initrd_bytes) < 0)
		return error_set(err, -ENOMEM, "the kernel and its modules do not fit into %llu MiB of memory; give more with --memory",
				 (unsigned long long)(mem->size_bytes >> 20));
	*at = start;
	return 0;
}

int boot_prepare(const struct guest_mem *mem, const struct kernel_image *kernel, enum boot_protocol protocol, const char *cmdline,
		 const struct boot_machine *machine, struct error *err)
{
	const size_t cmdline_length = strlen(cmdline);
	gpa_t kernel_end, initrd = 0;

	if (cmdline_length >= LAYOUT_CMDLINE_BYTES)
		return error_set(err, -E2BIG, "the kernel command line is too long (%zu bytes)", cmdline_length);
	if (protocol == BOOT_PVH && !kernel->pvh_entry)
		return error_set(err, -ENOEXEC, "the kernel has no PVH entry (CONFIG_PVH)");
	if (protocol == BOOT_LINUX64 && !kernel->entry_loaded)
		return error_set(err, -ENOEXEC, "the kernel's entry point lies in none of its segments");
	int result = kernel_image_load(kernel, mem, &kernel_end, err);
	if (result == 0)
		result = load_initrd(mem, kernel, kernel_end, &initrd, err);
	if (result < 0)
		return result;
	/* After the kernel, so that a file which claims these addresses harms only itself. */
	put(mem, LAYOUT_CMDLINE, cmdline, cmdline_length + 1);
	if (protocol == BOOT_PVH) {
		put_pvh_info(mem, kernel, initrd);
	} else {
		put_boot_params(mem, kernel, initrd, cmdline_length);
		put_page_tables(mem);
	}
	put_gdt(mem, protocol == BOOT_LINUX64);
	mptable_write(mem, machine);
	acpi_write(mem, machine);
	return 0;
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code64, bool code32)
{
	return (struct kvm_segment){
		.base = 0,
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.dpl = 0,
		.db = code32,
		.s = 1,
		.l = code64,
		.g = 1,
	};
}

void boot_set_registers(const struct kernel_image *kernel, enum boot_protocol protocol,
			struct kvm_regs *regs, struct kvm_sregs *sregs)
{
	const bool long_mode = protocol == BOOT_LINUX64;

	sregs->cs = segment(0x10, 0xb, long_mode, !long_mode);
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = segment(0x18, 0x3, false, true);
	sregs->tr = segment(0x20, 0xb, false, false);
	sregs->tr.s = 0;
	sregs->tr.g = 0;
	sregs->tr.limit = 0x67;
	sregs->gdt.base = LAYOUT_GDT;
	sregs->gdt.limit = 5 * 8 - 1;
	sregs->idt.base = 0;
	sregs->idt.limit = 0;
	sregs->cr0 = CR0_PE | CR0_ET;
	sregs->cr4 = 0;
	sregs->efer = 0;
	memset(regs, 0, sizeof(*regs));
	regs->rflags = 2;
	if (long_mode) {
		sregs->cr3 = LAYOUT_PAGE_TABLES;
		sregs->cr4 = CR4_PAE;
		sregs->cr0 |= CR0_PG;
		sregs->efer = EFER_LME | EFER_LMA;
		regs->rip = kernel->entry;
		regs->rsi = LAYOUT_BOOT_PARAMS;
		regs->rsp = regs->rbp = LAYOUT_BOOT_STACK;
	} else {
		regs->rip = kernel->pvh_entry;
		regs->rbx = LAYOUT_PVH_INFO;
	}
}
