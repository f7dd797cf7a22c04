/* vmm/boot, mptable and acpi: what a kernel finds in memory and in its registers. */
#include <asm/bootparam.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/unit/fake_driver.h"
#include "tests/unit/fake_kernel.h"
#include "vmm/boot.h"
#include "vmm/layout.h"

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct guest_mem mem;
static struct kernel_image kernel;
static struct error err;
static struct boot_device devices[LAYOUT_DEVICES_MAX];
static struct boot_machine machine = { .cpus = 1, .ioapic_pins = 24, .pic = true, .devices = devices, .device_count = 2 };

static void describe(unsigned cpus, unsigned device_count)
{
	static const unsigned irqs[] = LAYOUT_DEVICE_IRQS;
	machine.cpus = cpus;
	machine.device_count = device_count;
	for (unsigned i = 0; i < LAYOUT_DEVICES_MAX; i++)
		devices[i] = (struct boot_device){ .mmio = LAYOUT_VIRTIO_MMIO + i * LAYOUT_VIRTIO_BYTES, .irq = irqs[i] };
}

static void make_memory(uint64_t bytes)
{
	const int result = guest_mem_create(&mem, bytes);
	if (result == -ENOMEM)
		cr_skip("the host refuses %llu MiB", (unsigned long long)(bytes / MIB));
	cr_assert_eq(result, 0);
}

static void open_elf(const struct fake_elf *elf)
{
	struct fake_file file;
	fake_file_make(&file, elf, sizeof(*elf));
	cr_assert_eq(kernel_image_open(file.path, NULL, &kernel, &err), 0, "%s", err.text);
	close(file.fd);
}

static void start(uint64_t bytes)
{
	struct fake_elf elf;
	fake_elf_init(&elf);
	make_memory(bytes);
	open_elf(&elf);
	describe(2, 2);
}

static void prepare(uint64_t bytes, enum boot_protocol protocol, const char *cmdline)
{
	start(bytes);
	cr_assert_eq(boot_prepare(&mem, &kernel, protocol, cmdline, &machine, &err), 0, "%s", err.text);
}

static void read_guest(gpa_t at, void *to, size_t length)
{
	cr_assert_eq(guest_read(&mem, at, to, length), 0, "0x%llx is no RAM", (unsigned long long)at);
}

static uint8_t sum_of(gpa_t at, size_t length)
{
	uint8_t *bytes = malloc(length), sum = 0;
	read_guest(at, bytes, length);
	for (size_t i = 0; i < length; i++)
		sum = (uint8_t)(sum + bytes[i]);
	free(bytes);
	return sum;
}

/* ---- the memory map --------------------------------------------------------------------------------------------------------- */

struct range {
	uint64_t start, bytes;
	uint32_t type;
};

static unsigned read_e820(struct range *ranges)
{
	struct boot_params params;
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	for (unsigned i = 0; i < params.e820_entries; i++)
		ranges[i] = (struct range){ params.e820_table[i].addr, params.e820_table[i].size, params.e820_table[i].type };
	return params.e820_entries;
}

static unsigned read_memmap(struct range *ranges)
{
	struct {
		uint32_t magic, version, flags, modules;
		uint64_t modlist, cmdline, rsdp, memmap;
		uint32_t entries, reserved;
	} info;
	struct {
		uint64_t addr, size;
		uint32_t type, reserved;
	} entry;
	read_guest(LAYOUT_PVH_INFO, &info, sizeof(info));
	cr_assert(info.entries <= 8);
	for (unsigned i = 0; i < info.entries; i++) {
		read_guest(info.memmap + i * sizeof(entry), &entry, sizeof(entry));
		cr_assert_eq(entry.reserved, 0);
		ranges[i] = (struct range){ entry.addr, entry.size, entry.type };
	}
	return info.entries;
}

/* In order, apart, all RAM is RAM, the tables at the end of the first MiB are not given away. */
static void expect_sound(const struct range *ranges, unsigned count, uint64_t memory_bytes)
{
	uint64_t last = 0, ram = 0;
	cr_assert(count >= 3);
	for (unsigned i = 0; i < count; i++) {
		cr_assert(ranges[i].start >= last && ranges[i].bytes > 0 && ranges[i].start + ranges[i].bytes > ranges[i].start);
		last = ranges[i].start + ranges[i].bytes;
		if (ranges[i].type != 1)
			continue;
		ram += ranges[i].bytes;
		cr_assert_not_null(guest_ptr(&mem, ranges[i].start, ranges[i].bytes));
		cr_assert(last <= LAYOUT_EBDA || ranges[i].start >= LAYOUT_HIGH_RAM);
	}
	cr_assert_eq(ram, memory_bytes - (LAYOUT_HIGH_RAM - LAYOUT_EBDA));
}

static void expect_map(unsigned (*reader)(struct range *ranges), uint64_t memory_bytes)
{
	struct range ranges[16];
	const unsigned count = reader(ranges);
	expect_sound(ranges, count, memory_bytes);
	cr_assert(ranges[0].start == 0 && ranges[0].bytes == LAYOUT_EBDA && ranges[0].type == 1);
	cr_assert(ranges[1].start == LAYOUT_EBDA && ranges[1].type == 2);
	cr_assert(ranges[2].start == MIB && ranges[2].type == 1);
	if (memory_bytes <= GUEST_MEM_HOLE_START) {
		cr_assert(count == 3 && ranges[2].bytes == memory_bytes - MIB);
	} else {
		cr_assert(count == 4 && ranges[2].bytes == GUEST_MEM_HOLE_START - MIB);
		cr_assert(ranges[3].start == 4 * GIB && ranges[3].bytes == memory_bytes - GUEST_MEM_HOLE_START &&
			  ranges[3].type == 1);
	}
}

Test(boot, e820_of_64_mib)
{
	prepare(64 * MIB, BOOT_LINUX64, "");
	expect_map(read_e820, 64 * MIB);
}

Test(boot, e820_of_5_gib)
{
	prepare(5 * GIB, BOOT_LINUX64, "");
	expect_map(read_e820, 5 * GIB);
}

Test(boot, e820_up_to_the_hole)
{
	prepare(GUEST_MEM_HOLE_START, BOOT_LINUX64, "");
	expect_map(read_e820, GUEST_MEM_HOLE_START);
}

Test(boot, pvh_memory_map_of_64_mib)
{
	prepare(64 * MIB, BOOT_PVH, "");
	expect_map(read_memmap, 64 * MIB);
}

Test(boot, pvh_memory_map_of_5_gib)
{
	prepare(5 * GIB, BOOT_PVH, "");
	expect_map(read_memmap, 5 * GIB);
}

/* ---- boot_params ------------------------------------------------------------------------------------------------------------ */

static void expect_cmdline(uint64_t at, const char *want)
{
	const size_t length = strlen(want) + 1;
	char *got = malloc(length);
	read_guest(at, got, length);
	cr_assert(!memcmp(got, want, length));
	free(got);
}

Test(boot, boot_params_of_a_vmlinux)
{
	struct boot_params params;
	prepare(64 * MIB, BOOT_LINUX64, "console=ttyS0 root=/dev/vda");
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	cr_assert(params.hdr.boot_flag == 0xaa55 && params.hdr.header == 0x53726448 && params.hdr.version >= 0x20c);
	cr_assert_eq(params.hdr.type_of_loader, 0xff);
	cr_assert(params.hdr.loadflags & LOADED_HIGH);
	cr_assert(params.hdr.ramdisk_image == 0 && params.hdr.ramdisk_size == 0);
	cr_assert_eq(params.acpi_rsdp_addr, LAYOUT_ACPI);
	cr_assert_eq(params.ext_cmd_line_ptr, 0);
	expect_cmdline(params.hdr.cmd_line_ptr, "console=ttyS0 root=/dev/vda");
}

Test(boot, boot_params_of_a_bzimage_keep_its_header)
{
	struct boot_params params;
	start(64 * MIB);
	kernel.from_bzimage = true;
	for (size_t i = 0; i < sizeof(kernel.setup_header); i++)
		kernel.setup_header[i] = (uint8_t)(0x40 + i % 100);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "x", &machine, &err), 0);
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	struct setup_header before;
	memcpy(&before, kernel.setup_header, sizeof(before));
	cr_assert(params.hdr.version == before.version && params.hdr.init_size == before.init_size);
	cr_assert(params.hdr.pref_address == before.pref_address && params.hdr.kernel_alignment == before.kernel_alignment);
	/* What the loader has to fill in is ours. */
	cr_assert(params.hdr.type_of_loader == 0xff && params.hdr.ramdisk_size == 0 && params.hdr.setup_data == LAYOUT_SETUP_DATA);
	cr_assert_eq(params.hdr.cmd_line_ptr, LAYOUT_CMDLINE);
	/* Nothing but the header came from the file. */
	cr_assert(params.e820_entries == 3 && params.acpi_rsdp_addr == LAYOUT_ACPI);
	expect_map(read_e820, 64 * MIB);
}

Test(boot, rng_seed_is_fresh_each_time)
{
	struct {
		uint64_t next;
		uint32_t type, length;
		uint8_t seed[32];
	} first, second;
	prepare(64 * MIB, BOOT_LINUX64, "");
	read_guest(LAYOUT_SETUP_DATA, &first, sizeof(first));
	cr_assert(first.next == 0 && first.type == 9);
	if (first.length == 0)
		cr_skip("the host has no entropy yet");
	cr_assert_eq(first.length, 32);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), 0);
	read_guest(LAYOUT_SETUP_DATA, &second, sizeof(second));
	cr_assert(memcmp(first.seed, second.seed, 32));
}

Test(boot, longest_command_line)
{
	static char text[LAYOUT_CMDLINE_BYTES + 1];
	memset(text, 'c', LAYOUT_CMDLINE_BYTES - 1);
	prepare(64 * MIB, BOOT_LINUX64, text);
	expect_cmdline(LAYOUT_CMDLINE, text);
	text[LAYOUT_CMDLINE_BYTES - 1] = 'c';
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, text, &machine, &err), -E2BIG);
	cr_assert(strstr(err.text, "command line is too long"));
}

Test(boot, kernel_without_a_pvh_entry)
{
	start(64 * MIB);
	kernel.pvh_entry = 0;
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_PVH, "", &machine, &err), -ENOEXEC);
	cr_assert(strstr(err.text, "PVH"));
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), 0);
}

Test(boot, kernel_that_does_not_fit)
{
	start(2 * MIB);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), -ENOMEM);
	cr_assert(strstr(err.text, "--memory"));
}

Test(boot, kernel_is_in_its_place)
{
	struct fake_elf elf;
	uint8_t code[sizeof(elf.code)];
	fake_elf_init(&elf);
	prepare(64 * MIB, BOOT_LINUX64, "");
	read_guest(FAKE_KERNEL_START, code, sizeof(code));
	cr_assert(!memcmp(code, elf.code, sizeof(code)));
}

/* ---- an initial ramdisk ------------------------------------------------------------------------------------------------------ */

static uint8_t initrd[3 * 4096 + 7];

static void start_with_initrd(uint64_t bytes)
{
	start(bytes);
	for (size_t i = 0; i < sizeof(initrd); i++)
		initrd[i] = (uint8_t)(i * 7);
	kernel.initrd = initrd;
	kernel.initrd_bytes = sizeof(initrd);
}

static void expect_initrd(gpa_t at, uint64_t bytes, uint64_t below)
{
	uint8_t found[sizeof(initrd)];
	cr_assert_eq(bytes, sizeof(initrd));
	cr_expect_eq(at, (below - sizeof(initrd)) & ~4095ull, "at 0x%llx", (unsigned long long)at);
	read_guest(at, found, sizeof(found));
	cr_expect(!memcmp(found, initrd, sizeof(initrd)));
}

Test(boot, initrd_by_boot_params)
{
	struct boot_params params;
	start_with_initrd(64 * MIB);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), 0, "%s", err.text);
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	expect_initrd(params.hdr.ramdisk_image, params.hdr.ramdisk_size, 64 * MIB);
}

Test(boot, initrd_where_the_kernel_reaches_it)
{
	struct boot_params params;
	start_with_initrd(5 * GIB);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), 0, "%s", err.text);
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	expect_initrd(params.hdr.ramdisk_image, params.hdr.ramdisk_size, 2 * GIB);

	const struct setup_header header = { .initrd_addr_max = 0x37ffffff };
	memcpy(kernel.setup_header, &header, sizeof(header));
	kernel.from_bzimage = true;
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), 0, "%s", err.text);
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	expect_initrd(params.hdr.ramdisk_image, params.hdr.ramdisk_size, 0x38000000);
}

Test(boot, initrd_by_pvh)
{
	struct {
		uint32_t magic, version, flags, modules;
		uint64_t modlist;
	} info;
	struct {
		uint64_t paddr, size, cmdline, reserved;
	} entry;
	struct range ranges[8];
	start_with_initrd(64 * MIB);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_PVH, "", &machine, &err), 0, "%s", err.text);
	read_guest(LAYOUT_PVH_INFO, &info, sizeof(info));
	cr_assert_eq(info.modules, 1);
	read_guest(info.modlist, &entry, sizeof(entry));
	expect_initrd(entry.paddr, entry.size, 64 * MIB);
	cr_expect(entry.cmdline == 0 && entry.reserved == 0);
	expect_sound(ranges, read_memmap(ranges), 64 * MIB);
}

Test(boot, initrd_that_does_not_fit)
{
	start_with_initrd(4 * MIB);
	kernel.initrd_bytes = 2 * MIB;
	kernel.initrd = calloc(1, 2 * MIB);
	/* The kernel ends a little above 3 MiB. */
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "", &machine, &err), -ENOMEM);
	cr_expect(strstr(err.text, "--memory"), "%s", err.text);
	kernel.initrd_bytes = UINT64_MAX;
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_PVH, "", &machine, &err), -ENOMEM);
}

/* A file that claims our addresses harms only itself. */
Test(boot, kernel_that_claims_the_boot_structures)
{
	struct fake_elf elf;
	struct boot_params params;
	fake_elf_init(&elf);
	make_memory(64 * MIB);
	elf.text.p_paddr = LAYOUT_BOOT_PARAMS;
	elf.data.p_paddr = LAYOUT_ACPI;
	elf.header.e_entry = LAYOUT_BOOT_PARAMS;
	open_elf(&elf);
	describe(1, 1);
	cr_assert_eq(boot_prepare(&mem, &kernel, BOOT_LINUX64, "mine", &machine, &err), 0);
	read_guest(LAYOUT_BOOT_PARAMS, &params, sizeof(params));
	cr_assert(params.hdr.boot_flag == 0xaa55 && params.e820_entries == 3);
	cr_assert_eq(sum_of(LAYOUT_ACPI, 36), 0);
	expect_cmdline(LAYOUT_CMDLINE, "mine");
}

/* Walks the tables as a processor does. */
static uint64_t translate(uint64_t cr3, uint64_t address)
{
	uint64_t entry, table = cr3;
	for (int level = 3; level >= 2; level--) {
		read_guest(table + 8 * (address >> (12 + 9 * level) & 511), &entry, 8);
		cr_assert((entry & 0x83) == 3, "level %d for 0x%llx", level, (unsigned long long)address);
		table = entry & 0xffffffffff000ull;
	}
	read_guest(table + 8 * (address >> 21 & 511), &entry, 8);
	cr_assert((entry & 0x83) == 0x83);
	return (entry & 0xfffffffe00000ull) | (address & 0x1fffff);
}

Test(boot, low_4_gib_are_mapped_one_to_one)
{
	uint64_t seed = 21;
	prepare(64 * MIB, BOOT_LINUX64, "");
	for (unsigned i = 0; i < 2048; i++) {
		const uint64_t address = (uint64_t)i * 2 * MIB + fake_below(&seed, 2 * MIB);
		cr_assert_eq(translate(LAYOUT_PAGE_TABLES, address), address);
	}
}

Test(boot, registers_of_the_64_bit_protocol)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	memset(&regs, 0xee, sizeof(regs));
	memset(&sregs, 0, sizeof(sregs));
	prepare(64 * MIB, BOOT_LINUX64, "");
	boot_set_registers(&kernel, BOOT_LINUX64, &regs, &sregs);
	cr_assert(regs.rip == kernel.entry && regs.rsi == LAYOUT_BOOT_PARAMS && regs.rflags == 2 && regs.rax == 0 && regs.r15 == 0);
	cr_assert(regs.rsp && guest_ptr(&mem, regs.rsp - 64, 64));
	cr_assert(sregs.efer == 0x500 && (sregs.cr0 & 0x80000001) == 0x80000001 && (sregs.cr4 & 0x20) &&
		  sregs.cr3 == LAYOUT_PAGE_TABLES);
	cr_assert(sregs.cs.selector == 0x10 && sregs.cs.l && !sregs.cs.db && sregs.ds.selector == 0x18 &&
		  sregs.ss.selector == 0x18);
	/* The table says what the hidden parts say. */
	uint64_t gdt[5];
	cr_assert_eq(sregs.gdt.limit, sizeof(gdt) - 1);
	read_guest(sregs.gdt.base, gdt, sizeof(gdt));
	cr_assert((gdt[2] >> 53 & 1) == 1 && (gdt[2] >> 54 & 1) == 0 && (gdt[2] >> 40 & 0xf) == sregs.cs.type);
	cr_assert((gdt[3] >> 40 & 0xf) == sregs.ds.type && (gdt[4] >> 40 & 0x1f) == 0xb);
}

/* Xen's docs/misc/pvh.pandoc. */
Test(boot, registers_of_pvh)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	memset(&sregs, 0xff, sizeof(sregs));
	prepare(64 * MIB, BOOT_PVH, "");
	boot_set_registers(&kernel, BOOT_PVH, &regs, &sregs);
	cr_assert(regs.rip == FAKE_KERNEL_PVH_ENTRY && regs.rbx == LAYOUT_PVH_INFO && regs.rflags == 2);
	cr_assert((sregs.cr0 & 0x80000001) == 1 && sregs.cr4 == 0 && sregs.efer == 0);
	cr_assert(sregs.cs.base == 0 && sregs.cs.limit == 0xffffffff && sregs.cs.db && !sregs.cs.l && sregs.cs.g);
	cr_assert(sregs.ds.base == 0 && sregs.ds.limit == 0xffffffff && sregs.ss.db && sregs.es.present);
	cr_assert(sregs.tr.base == 0 && sregs.tr.limit == 0x67 && sregs.tr.type == 0xb && !sregs.tr.s);
}

Test(boot, pvh_start_info)
{
	uint32_t words[4];
	uint64_t addresses[4];
	prepare(64 * MIB, BOOT_PVH, "pvh words");
	read_guest(LAYOUT_PVH_INFO, words, sizeof(words));
	read_guest(LAYOUT_PVH_INFO + 16, addresses, sizeof(addresses));
	cr_assert(words[0] == 0x336ec578 && words[1] == 1 && words[2] == 0 && words[3] == 0);
	cr_assert(addresses[0] == 0 && addresses[2] == LAYOUT_ACPI);
	expect_cmdline(addresses[1], "pvh words");
}

/* ---- the MP table (Intel MultiProcessor Specification 1.4) ------------------------------------------------------------------ */

static void start_tables(unsigned cpus, unsigned device_count)
{
	make_memory(4 * MIB);
	describe(cpus, device_count);
	mptable_write(&mem, &machine);
	acpi_write(&mem, &machine);
}

static void expect_mptable(unsigned cpus)
{
	uint8_t floating[16], table[1024];
	start_tables(cpus, 2);
	/* Where a kernel looks: the last KiB of base memory, on 16 bytes. */
	read_guest(LAYOUT_EBDA, floating, sizeof(floating));
	cr_assert(LAYOUT_EBDA >= 639 * 1024 && LAYOUT_EBDA % 16 == 0);
	cr_assert(!memcmp(floating, "_MP_", 4) && floating[8] == 1 && floating[9] == 4 && floating[11] == 0);
	cr_assert_eq(sum_of(LAYOUT_EBDA, 16), 0);
	const uint32_t at =
	    (uint32_t)floating[4] | (uint32_t)floating[5] << 8 | (uint32_t)floating[6] << 16 | (uint32_t)floating[7] << 24;
	read_guest(at, table, 44);
	const size_t length = (size_t)table[4] | (size_t)table[5] << 8;
	const unsigned entries = (unsigned)table[34] | (unsigned)table[35] << 8;
	cr_assert(!memcmp(table, "PCMP", 4) && length <= sizeof(table) && at + length <= 640 * 1024);
	cr_assert_eq(sum_of(at, length), 0);
	cr_assert(!memcmp(table + 36, "\x00\x00\xe0\xfe", 4), "LAPIC address");
	read_guest(at, table, length);

	unsigned seen[5] = { 0 }, boot_cpus = 0, ioapic_id = 0;
	bool pins[24] = { false };
	size_t used = 44;
	for (unsigned i = 0; i < entries; i++) {
		const uint8_t *entry = table + used;
		cr_assert(used < length && entry[0] < 5);
		seen[entry[0]]++;
		used += entry[0] == 0 ? 20 : 8;
		switch (entry[0]) {
		case 0:
			cr_assert(entry[1] == seen[0] - 1 && (entry[3] & 1));
			boot_cpus += entry[3] >> 1 & 1;
			cr_assert(!(entry[3] & 2) || entry[1] == 0);
			break;
		case 1:
			cr_assert(!memcmp(entry + 2, "ISA   ", 6));
			break;
		case 2:
			ioapic_id = entry[1];
			cr_assert((entry[3] & 1) && !memcmp(entry + 4, "\x00\x00\xc0\xfe", 4));
			break;
		case 3:
			cr_assert(entry[6] == ioapic_id && entry[7] < 24 && entry[5] == entry[7] && !pins[entry[7]]);
			pins[entry[7]] = true;
			break;
		}
	}
	cr_assert_eq(used, length);
	cr_assert(seen[0] == cpus && boot_cpus == 1 && seen[1] == 1 && seen[2] == 1 && seen[3] == 24 && seen[4] == 2);
	cr_assert(ioapic_id >= cpus && ioapic_id < 15, "the I/O APIC's id is a processor's");
}

Test(mptable, one_cpu)
{
	expect_mptable(1);
}

Test(mptable, eight_cpus)
{
	expect_mptable(8);
}

/* ---- ACPI 6.4 --------------------------------------------------------------------------------------------------------------- */

static uint64_t get(gpa_t at, unsigned bytes)
{
	le64 raw = le64_make(0);
	read_guest(at, &raw, bytes);
	return le64_get(raw);
}

/* The table at `at` has this signature, a right checksum, and lies in the area that the memory map keeps. Returns its length. */
static size_t expect_table(gpa_t at, const char *signature)
{
	char name[4];
	read_guest(at, name, 4);
	cr_assert(!memcmp(name, signature, 4), "%.4s instead of %s", name, signature);
	const size_t length = get(at + 4, 4);
	cr_assert(length >= 36 && at >= 0xe0000 && at + length <= 0x100000);
	cr_assert_eq(sum_of(at, length), 0, "checksum of %s", signature);
	return length;
}

struct acpi {
	gpa_t xsdt, fadt, madt, dsdt;
};

static struct acpi walk_acpi(void)
{
	struct acpi acpi;
	char signature[8];
	/* A kernel scans from 0xe0000 on, on 16 bytes. */
	read_guest(LAYOUT_ACPI, signature, 8);
	cr_assert(!memcmp(signature, "RSD PTR ", 8) && LAYOUT_ACPI % 16 == 0);
	cr_assert(sum_of(LAYOUT_ACPI, 20) == 0 && sum_of(LAYOUT_ACPI, 36) == 0);
	cr_assert(get(LAYOUT_ACPI + 15, 1) == 2 && get(LAYOUT_ACPI + 20, 4) == 36);
	acpi.xsdt = get(LAYOUT_ACPI + 24, 8);
	cr_assert_eq(expect_table(acpi.xsdt, "XSDT"), 36 + 2 * 8);
	acpi.fadt = get(acpi.xsdt + 36, 8);
	acpi.madt = get(acpi.xsdt + 44, 8);
	cr_assert_eq(expect_table(acpi.fadt, "FACP"), 276);
	expect_table(acpi.madt, "APIC");
	acpi.dsdt = get(acpi.fadt + 140, 8);
	expect_table(acpi.dsdt, "DSDT");
	return acpi;
}

Test(acpi, tables_are_found_and_their_checksums_right)
{
	for (unsigned cpus = 1; cpus <= 8; cpus++) {
		for (unsigned count = 0; count <= LAYOUT_DEVICES_MAX; count++) {
			start_tables(cpus, count);
			walk_acpi();
			guest_mem_destroy(&mem);
		}
	}
}

Test(acpi, fadt_is_hardware_reduced)
{
	start_tables(1, 1);
	const struct acpi acpi = walk_acpi();
	const uint32_t flags = (uint32_t)get(acpi.fadt + 112, 4);
	cr_assert((flags & 1u << 20) && (flags & 1u << 10));
	cr_assert(get(acpi.fadt + 116, 1) == 1 && get(acpi.fadt + 120, 8) == 0x64 && get(acpi.fadt + 128, 1) == 0xfe);
	cr_assert_eq(get(acpi.fadt + 109, 2) & 2, 0, "no 8042");
}

Test(acpi, madt_lists_processors_and_the_io_apic)
{
	for (unsigned cpus = 1; cpus <= 8; cpus++) {
		start_tables(cpus, 2);
		const struct acpi acpi = walk_acpi();
		const gpa_t end = acpi.madt + get(acpi.madt + 4, 4);
		unsigned lapics = 0, ioapics = 0;
		cr_assert_eq(get(acpi.madt + 36, 4), LAYOUT_LAPIC);
		for (gpa_t at = acpi.madt + 44; at < end; at += get(at + 1, 1)) {
			cr_assert(get(at + 1, 1) >= 8);
			if (get(at, 1) == 0) {
				cr_assert(get(at + 2, 1) == lapics && get(at + 3, 1) == lapics && get(at + 4, 4) == 1);
				lapics++;
			} else {
				cr_assert(get(at, 1) == 1 && get(at + 2, 1) == cpus && get(at + 4, 4) == LAYOUT_IOAPIC &&
					  get(at + 8, 4) == 0);
				ioapics++;
			}
		}
		cr_assert(lapics == cpus && ioapics == 1);
		guest_mem_destroy(&mem);
	}
}

/* ---- the reference: Intel's compiler and disassembler ----------------------------------------------------------------------- */

static char directory[] = "/tmp/trvmm-acpi-XXXXXX";

static void write_table(gpa_t at, const char *name)
{
	char path[64];
	const size_t length = get(at + 4, 4);
	uint8_t *bytes = malloc(length);
	snprintf(path, sizeof(path), "%s/%s.dat", directory, name);
	FILE *file = fopen(path, "we");
	cr_assert(file);
	read_guest(at, bytes, length);
	cr_assert_eq(fwrite(bytes, 1, length, file), length);
	cr_assert_eq(fclose(file), 0);
	free(bytes);
}

/* Runs a shell command in the directory; its status. */
static int run(const char *command)
{
	char line[512];
	snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1", directory, command);
	return system(line);
}

static char *read_text(const char *name)
{
	static char text[1 << 18];
	char path[64];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	FILE *file = fopen(path, "re");
	cr_assert(file, "no %s", name);
	text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
	fclose(file);
	return text;
}

static unsigned occurrences(const char *text, const char *word)
{
	unsigned count = 0;
	for (const char *at = text; (at = strstr(at, word)); at++)
		count++;
	return count;
}

static void start_iasl(unsigned device_count)
{
	if (system("command -v iasl >/dev/null 2>&1") != 0)
		cr_skip("no iasl; install acpica-tools");
	start_tables(8, device_count);
	const struct acpi acpi = walk_acpi();
	cr_assert(mkdtemp(directory));
	write_table(acpi.dsdt, "dsdt");
	write_table(acpi.fadt, "fadt");
	write_table(acpi.madt, "madt");
	write_table(acpi.xsdt, "xsdt");
}

static void stop_iasl(void)
{
	if (!strcmp(directory + strlen(directory) - 6, "XXXXXX"))
		return;
	char line[64];
	snprintf(line, sizeof(line), "rm -rf %s", directory);
	(void)!system(line);
}

static void expect_disassembles(const char *name)
{
	char line[64];
	snprintf(line, sizeof(line), "iasl -d %s.dat", name);
	cr_assert_eq(run(line), 0, "%s: %s", name, read_text("log"));
	const char *log = read_text("log");
	cr_assert(!strstr(log, "Error") && !strstr(log, "Warning") && !strstr(log, "ncorrect checksum"), "%s", log);
}

static void expect_devices(unsigned count)
{
	start_iasl(count);
	expect_disassembles("dsdt");
	char *text = read_text("dsdt.dsl");
	cr_assert_eq(occurrences(text, "\"LNRO0005\""), count);
	cr_assert_eq(occurrences(text, "Device (VR"), count);
	cr_assert_eq(occurrences(text, "Memory32Fixed (ReadWrite"), count);
	cr_assert_eq(occurrences(text, "Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive"), count);
	for (unsigned i = 0; i < count; i++) {
		char word[32];
		snprintf(word, sizeof(word), "0x%08X,", (unsigned)devices[i].mmio);
		cr_assert(strstr(text, word), "%s", word);
		/* The numbers of an interrupt list stand alone on their line. */
		snprintf(word, sizeof(word), " 0x%08X,\n", devices[i].irq);
		cr_assert(strstr(text, word), "%s", word);
	}
	/* And it is a source that compiles. */
	cr_assert_eq(run("iasl -p again dsdt.dsl"), 0, "%s", read_text("log"));
	cr_assert(strstr(read_text("log"), " 0 Errors"), "%s", read_text("log"));
	guest_mem_destroy(&mem);
}

TestSuite(acpi_iasl, .fini = stop_iasl);

Test(acpi_iasl, dsdt_of_no_device)
{
	expect_devices(0);
}

Test(acpi_iasl, dsdt_of_one_device)
{
	expect_devices(1);
}

Test(acpi_iasl, dsdt_of_as_many_devices_as_there_are_interrupts)
{
	expect_devices(LAYOUT_DEVICES_MAX);
}

Test(acpi_iasl, other_tables)
{
	start_iasl(3);
	expect_disassembles("fadt");
	const char *text = read_text("fadt.dsl");
	cr_assert(strstr(text, "Hardware Reduced (V5) : 1"), "%s", text);
	cr_assert_eq(occurrences(text, "Invalid"), 0);
	expect_disassembles("madt");
	text = read_text("madt.dsl");
	cr_assert_eq(occurrences(text, "[Processor Local APIC]"), 8);
	cr_assert_eq(occurrences(text, "[I/O APIC]"), 1);
	expect_disassembles("xsdt");
}
