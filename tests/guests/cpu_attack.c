/*
 * Attacks by way of the processor: its ports, its MSRs, CPUID, both interrupt controllers, what the boot protocol left in memory, and the
 * ways in which a processor dies. For a KVM that has hardware virtualization, or an emulation of it, behind it: one that interprets
 * instructions ends the machine at many of these, which is its own affair. The last attack ends the machine; which one that is depends on
 * the runner's `--attack N`.
 */
#include "tests/guests/guest_vsock.h"

#define IOAPIC 0xfec00000ul
#define LAPIC 0xfee00000ul
#define LAPIC_ICR_LOW 0x300
#define LAPIC_ICR_HIGH 0x310

static struct device disk;
static uint32_t seed = 3;

static uint32_t any(uint32_t end)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)seed * end >> 32);
}

static bool works(void)
{
	static uint64_t data[WORLD_SECTOR_WORDS];
	data[0] = 0;
	return blk_start(&disk) && blk_read(&disk, 3, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, 3) && vsock_recovers();
}

/* ---- ports and pages ---- */

/* Ports that reset the machine, and those of the console, of which a test's result comes. */
static bool spared(unsigned port)
{
	return port == 0x64 || port == 0xcf9 || (port >= 0x3f8 && port < 0x400);
}

static void test_ports(void)
{
	for (unsigned port = 0; port < 0x10000; port++) {
		if (spared(port))
			continue;
		outb((uint16_t)port, (uint8_t)any(256));
		(void)inb((uint16_t)port);
		if (port % 16 == 0 && port != 0x60 && port != 0x3f0) {
			outw((uint16_t)port, (uint16_t)any(65536));
			(void)inl((uint16_t)port);
		}
	}
	/* The old interrupt controllers may have been set up by that. */
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	EXPECT(works());
	test_end("every I/O port, read and written");
}

/* The first 4 GiB are mapped; in the hole is a page in every 64 KiB, and all pages where something could be. */
static void test_pages(void)
{
	static const uintptr_t places[] = { 0xc0000000, 0xd0000000, 0xe0000000, 0xfd000000,
					    0xfec00000, 0xfed00000, 0xfef00000, 0xfffb0000 };
	for (uintptr_t at = 0xc0000000; at < 0xfec00000; at += 0x100000) {
		if (at == 0xd0000000)
			continue;
		(void)mmio_read32(at + 4 * any(1024));
		mmio_write32(at + 4 * any(1024), any(UINT32_MAX));
	}
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		for (unsigned page = 3; page < 64; page++) {
			const uintptr_t at = places[i] + 0x1000 * page;
			(void)mmio_read8(at + any(4096));
			(void)mmio_read64(at + any(4096 - 8));
			mmio_write8(at + any(4096), 0xff);
		}
	}
	EXPECT(works());
	test_end("pages outside RAM, read and written");
}

/* ---- MSRs and CPUID: a fault of the processor's is caught ---- */

static bool write_msr(uint32_t index, uint64_t value)
{
	return !guest_faults(GUEST_WRMSR, index, value, NULL);
}

static bool read_msr(uint32_t index, uint64_t *value)
{
	return !guest_faults(GUEST_RDMSR, index, 0, value);
}

/* Those by which this program runs itself: EFER, segment bases, the local APIC's place. */
static bool own_msr(uint32_t index)
{
	return index == 0xc0000080 || (index >= 0xc0000100 && index <= 0xc0000102) || index == 0x1b;
}

static void test_msrs(void)
{
	static const uint32_t ranges[][2] = { { 0, 0x1200 },
					      { 0x40000000, 0x40000200 },
					      { 0x4b564d00, 0x4b564d10 },
					      { 0xc0000080, 0xc0000110 },
					      { 0xc0010000, 0xc0010200 },
					      { 0xc0011000, 0xc0011040 } };
	unsigned reads = 0;
	for (unsigned range = 0; range < sizeof(ranges) / sizeof(ranges[0]); range++) {
		for (uint32_t index = ranges[range][0]; index < ranges[range][1]; index++) {
			uint64_t value = 0;
			if (!read_msr(index, &value))
				continue;
			reads++;
			if (own_msr(index) || (index >= 0x4b564d00 && index < 0x4b564d10))
				continue;
			(void)write_msr(index, ~0ull);
			(void)write_msr(index, any(UINT32_MAX));
			(void)write_msr(index, value);
		}
	}
	EXPECT(reads > 0);
	/* KVM's own: places in memory that it writes to. Those outside RAM, and over the devices. */
	static const uint64_t places[] = { 0xd0000001, 0xfee00001, WORLD_MEMORY_BYTES | 1u, ~0ull, 1ull << 52 | 1, 0x3001 };
	for (uint32_t index = 0x4b564d00; index < 0x4b564d09; index++)
		for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++)
			(void)write_msr(index, places[i]);
	for (uint32_t index = 0x4b564d00; index < 0x4b564d09; index++)
		(void)write_msr(index, 0);
	EXPECT(works());
	test_end("every MSR, read and written");
}

static void test_cpuid(void)
{
	static const uint32_t bases[] = { 0, 0x40000000, 0x80000000, 0xc0000000, 0x7fffffff, 0xffffffe0 };
	uint32_t sum = 0;
	for (unsigned i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
		for (uint32_t leaf = 0; leaf < 0x24; leaf++) {
			for (uint32_t subleaf = 0; subleaf < 4; subleaf++) {
				uint32_t a = bases[i] + leaf, b, c = subleaf == 3 ? UINT32_MAX : subleaf, d;
				__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
				sum += a ^ b ^ c ^ d;
			}
		}
	}
	EXPECT(sum);
	test_end("every leaf of CPUID");
}

/* ---- interrupt controllers ---- */

static void ioapic_write(uint32_t index, uint32_t value)
{
	mmio_write32(IOAPIC, index);
	mmio_write32(IOAPIC + 0x10, value);
}

static void test_ioapic(void)
{
	/* Any register in any order and width, while a device interrupts. Vectors are those of pins, and delivery is fixed, lowest
	 * priority or reserved: others are meant to stop this very processor. */
	for (unsigned round = 0; round < 3000; round++) {
		const uintptr_t at = IOAPIC + any(0x1000 - 8);
		switch (any(6)) {
		case 0:
			(void)mmio_read8(at);
			(void)mmio_read64(at);
			break;
		case 1:
			mmio_write8(at, (uint8_t)any(256));
			mmio_write16(at, (uint16_t)any(65536));
			break;
		case 2:
			mmio_write32(IOAPIC, any(UINT32_MAX));
			(void)mmio_read32(IOAPIC + 0x10);
			break;
		case 3:
			ioapic_write(0x11 + 2 * any(24), any(UINT32_MAX));
			break;
		case 4:
			ioapic_write(any(16), any(UINT32_MAX));
			break;
		default:
			ioapic_write(0x10 + 2 * any(24), (any(UINT32_MAX) & 0xfffff000u) | (any(2) ? 0x10000 : 0) | (32 + any(24)));
			break;
		}
		if (round % 100 == 0)
			EXPECT(blk_start(&disk));
	}
	for (unsigned pin = 0; pin < 24; pin++)
		interrupt_disable(pin);
	EXPECT(works());
	test_end("I/O APIC registers in any order");
	/* Nothing is routed to a processor that is not there; interrupts still find this one. */
	interrupt_enable(disk.pin);
	const unsigned seen = interrupt_count(disk.pin);
	static uint64_t data[WORLD_SECTOR_WORDS];
	cpu_sti();
	EXPECT(blk_start(&disk) && blk_read(&disk, 4, data, 1) == VIRTIO_BLK_S_OK);
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while (interrupt_count(disk.pin) == seen && rdtsc() < deadline)
		pause();
	cpu_cli();
	EXPECT(interrupt_count(disk.pin) != seen);
	interrupt_disable(disk.pin);
	test_end("interrupts still come after that");
}

static void test_lapic(void)
{
	const uint32_t spurious = mmio_read32(LAPIC + 0xf0), id = mmio_read32(LAPIC + 0x20);
	for (unsigned offset = 0; offset < 0x400; offset += 16)
		(void)mmio_read32(LAPIC + offset);
	for (unsigned offset = 0x400; offset < 0x1000; offset += 16) {
		(void)mmio_read32(LAPIC + offset);
		mmio_write32(LAPIC + offset, any(UINT32_MAX));
	}
	/* All registers but the command register, which comes next. */
	for (unsigned round = 0; round < 500; round++) {
		const unsigned offset = 16 * any(64);
		if (offset == LAPIC_ICR_LOW || offset == LAPIC_ICR_HIGH)
			continue;
		mmio_write32(LAPIC + offset, any(UINT32_MAX));
		(void)mmio_read8(LAPIC + any(0x400));
	}
	for (unsigned offset = 0x320; offset <= 0x370; offset += 16)
		mmio_write32(LAPIC + offset, 0x10000); /* all local vectors masked */
	mmio_write32(LAPIC + 0x380, 0); /* no timer */
	mmio_write32(LAPIC + 0x20, id);
	mmio_write32(LAPIC + 0xd0, 0);
	mmio_write32(LAPIC + 0xe0, UINT32_MAX);
	mmio_write32(LAPIC + 0x80, 0);
	mmio_write32(LAPIC + 0xf0, spurious);
	EXPECT(works());
	test_end("local APIC registers in any order");

	/* Interrupts to everybody: to nobody, to all but this one (which waits for its start), to this one. */
	for (unsigned round = 0; round < 2000; round++) {
		mmio_write32(LAPIC + LAPIC_ICR_HIGH, any(UINT32_MAX));
		mmio_write32(LAPIC + LAPIC_ICR_LOW, (any(2) ? 0xc0000 : 0x40000) | (32 + any(24)));
	}
	cpu_sti();
	delay_us(1000);
	cpu_cli();
	EXPECT(works());
	test_end("a storm of interrupts between processors");
}

/* ---- what the boot protocol left ---- */

static void test_boot_structures(void)
{
	/* GDT, start info, boot_params, command line, tables: all below the EBDA that is not ours. Page tables are in use: they stay. */
	for (uintptr_t at = 0x500; at < 0x9000; at += 8)
		mmio_write64(at, (uint64_t)any(UINT32_MAX) << 32 | any(UINT32_MAX));
	for (uintptr_t at = 0x10000; at < 0xa0000; at += 64)
		mmio_write64(at, ~0ull);
	for (uintptr_t at = 0xe0000; at < 0x100000; at += 8)
		mmio_write64(at, 0x5555555555555555);
	EXPECT(works());
	test_end("boot structures overwritten");
}

/* ---- ends ---- */

static void run_for_ever(void)
{
	for (;;)
		pause();
}

/* Each ends the machine, or hangs it with interrupts off; the runner knows which. */
static void end(unsigned attack)
{
	static const struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) nothing = { 0, 0 };

	print("done\n");
	switch (attack) {
	case 0: /* a triple fault */
		__asm__ volatile("lidt %0; ud2" : : "m"(nothing));
		break;
	case 1: /* no stack either */
		__asm__ volatile("lidt %0; xorl %%esp, %%esp; pushq %%rax" : : "m"(nothing));
		break;
	case 2: /* page tables that lead outside RAM */
		__asm__ volatile("lidt %0; movq %1, %%cr3; movq (%%rax), %%rax" : : "m"(nothing), "r"(0xd0000000ull) : "rax");
		break;
	case 3: /* all processors asleep with interrupts off */
		__asm__ volatile("cli; hlt");
		break;
	default: /* interrupts off, and busy */
		cpu_cli();
		run_for_ever();
	}
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	const unsigned attack = guest_attack();
	if (attack == 0) {
		test_ports();
		test_pages();
		test_cpuid();
		test_ioapic();
		test_lapic();
		test_boot_structures();
		test_msrs();
	}
	end(attack);
}
