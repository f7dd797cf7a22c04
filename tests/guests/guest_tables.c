/* The checks of memory maps, ACPI and MP tables that both boot protocols share; see guest.h. */
#include "tests/guests/guest.h"

#define MP_FLOATING 0x9fc00ul
#define DEVICES 3u
#define DEVICE_PIN 5u

static uint8_t sum(const uint8_t *bytes, size_t length)
{
	uint8_t total = 0;
	for (size_t i = 0; i < length; i++)
		total = (uint8_t)(total + bytes[i]);
	return total;
}

static uint32_t load32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static uint64_t load64(const uint8_t *at)
{
	uint64_t value;
	memcpy(&value, at, sizeof(value));
	return value;
}

static bool bytes_contain(const uint8_t *bytes, size_t length, const char *part)
{
	const size_t part_length = strlen(part);
	for (size_t i = 0; i + part_length <= length; i++)
		if (bytes[i] == (uint8_t)part[0] && !memcmp(bytes + i, part, part_length))
			return true;
	return false;
}

static bool bytes_contain32(const uint8_t *bytes, size_t length, uint32_t value)
{
	for (size_t i = 0; i + sizeof(value) <= length; i++)
		if (load32(bytes + i) == value)
			return true;
	return false;
}

void memory_map_check(const struct memory_range *map, unsigned count, const void *const used[], unsigned used_count)
{
	uint64_t ram = 0;
	EXPECT(count >= 2);
	for (unsigned i = 0; i < count; i++) {
		EXPECT(map[i].end > map[i].start);
		EXPECT(map[i].type == 1 || map[i].type == 2);
		if (i)
			EXPECT(map[i].start >= map[i - 1].end);
		if (map[i].type != 1)
			continue;
		ram += map[i].end - map[i].start;
		EXPECT(map[i].end <= WORLD_MEMORY_BYTES);
		/* What is called RAM holds what is written to it, up to its last byte. */
		volatile uint8_t *const last = (volatile uint8_t *)(uintptr_t)(map[i].end - 1);
		const uint8_t before = *last, other = before ^ 0xff;
		*last = other;
		EXPECT(*last == other);
		*last = before;
	}
	/* All but the reserved part under 1 MiB. */
	EXPECT(ram > WORLD_MEMORY_BYTES - (512u << 10) && ram <= WORLD_MEMORY_BYTES);
	for (unsigned i = 0; i < used_count; i++) {
		bool inside = false;
		for (unsigned j = 0; j < count; j++)
			inside |= (uint64_t)used[i] >= map[j].start && (uint64_t)used[i] < map[j].end;
		EXPECT(inside);
	}
	test_end("memory map");
}

static void check_madt(const uint8_t *madt, unsigned cpus)
{
	const uint32_t length = load32(madt + 4);
	unsigned lapics = 0, ioapics = 0;

	EXPECT(load32(madt + 36) == 0xfee00000u);
	for (uint32_t at = 44; at + 2 <= length && madt[at + 1] >= 2; at += madt[at + 1]) {
		if (madt[at] == 0 && (load32(madt + at + 4) & 1))
			lapics++;
		if (madt[at] == 1 && load32(madt + at + 4) == 0xfec00000u)
			ioapics++;
	}
	EXPECT(lapics == cpus);
	EXPECT(ioapics == 1);
}

static void check_fadt(const uint8_t *fadt)
{
	uint64_t dsdt = load64(fadt + 140);
	EXPECT(load32(fadt + 4) >= 244);
	if (!dsdt)
		dsdt = load32(fadt + 40);
	if (!EXPECT(dsdt))
		return;
	const uint8_t *table = (const uint8_t *)(uintptr_t)dsdt;
	const uint32_t length = load32(table + 4);
	EXPECT(!memcmp(table, "DSDT", 4));
	EXPECT(length > 36 && length < 65536 && sum(table, length) == 0);
	/* The devices by the name that Linux's virtio-mmio driver looks for, and their addresses. */
	EXPECT(bytes_contain(table, length, "LNRO0005"));
	for (unsigned i = 0; i < DEVICES; i++)
		EXPECT(bytes_contain32(table, length, 0xd0000000u + i * 0x1000u));
	EXPECT(!bytes_contain32(table, length, 0xd0000000u + DEVICES * 0x1000u));
}

void acpi_check(uint64_t rsdp_address, unsigned cpus)
{
	const uint8_t *rsdp = (const uint8_t *)(uintptr_t)rsdp_address;
	bool fadt = false, madt = false;

	if (EXPECT(rsdp_address >= 0xe0000 && rsdp_address < 0x100000 && rsdp_address % 16 == 0)) {
		EXPECT(!memcmp(rsdp, "RSD PTR ", 8) && rsdp[15] >= 2);
		EXPECT(sum(rsdp, 20) == 0 && sum(rsdp, load32(rsdp + 20)) == 0);
		const uint8_t *xsdt = (const uint8_t *)(uintptr_t)load64(rsdp + 24);
		const uint32_t length = load32(xsdt + 4);
		EXPECT(!memcmp(xsdt, "XSDT", 4) && length >= 36 && length < 4096 && sum(xsdt, length) == 0);
		for (uint32_t at = 36; at + 8 <= length && at < 4096; at += 8) {
			const uint8_t *table = (const uint8_t *)(uintptr_t)load64(xsdt + at);
			EXPECT(sum(table, load32(table + 4)) == 0);
			if (!memcmp(table, "FACP", 4)) {
				fadt = true;
				check_fadt(table);
			} else if (!memcmp(table, "APIC", 4)) {
				madt = true;
				check_madt(table, cpus);
			}
		}
		EXPECT(fadt && madt);
	}
	test_end("ACPI tables");
}

void mptable_check(unsigned cpus)
{
	const uint8_t *floating = (const uint8_t *)MP_FLOATING;
	unsigned processors = 0, ioapics = 0, routes = 0;

	EXPECT(!memcmp(floating, "_MP_", 4) && floating[8] == 1 && sum(floating, 16) == 0);
	const uint8_t *table = (const uint8_t *)(uintptr_t)load32(floating + 4);
	const uint32_t length = table[4] | (uint32_t)table[5] << 8, entries = table[34] | (uint32_t)table[35] << 8;
	EXPECT(!memcmp(table, "PCMP", 4) && length >= 44 && length <= 1024 && sum(table, length) == 0);
	EXPECT(load32(table + 36) == 0xfee00000u);
	uint32_t at = 44, seen = 0;
	while (at < length && length <= 1024) {
		const uint8_t *entry_at = table + at;
		processors += entry_at[0] == 0 && (entry_at[3] & 1);
		ioapics += entry_at[0] == 2 && (entry_at[3] & 1) && load32(entry_at + 4) == 0xfec00000u;
		/* The devices' pins as interrupts of the bus. */
		routes += entry_at[0] == 3 && entry_at[7] >= DEVICE_PIN && entry_at[7] < DEVICE_PIN + DEVICES;
		at += entry_at[0] == 0 ? 20 : 8;
		seen++;
	}
	EXPECT(at == length && seen == entries);
	EXPECT(processors == cpus && ioapics == 1 && routes == DEVICES);
	test_end("MP table");
}

unsigned cmdline_check(const char *cmdline)
{
	unsigned cpus = 0;
	EXPECT(strlen(cmdline) < 4096);
	EXPECT(!memcmp(cmdline, WORLD_CMDLINE " ", sizeof(WORLD_CMDLINE)));
	EXPECT(contains(cmdline, " virtio_mmio.device=4K@0xd0000000:5"));
	EXPECT(contains(cmdline, " virtio_mmio.device=4K@0xd0001000:6"));
	EXPECT(contains(cmdline, " virtio_mmio.device=4K@0xd0002000:7"));
	EXPECT(!contains(cmdline, "0xd0003000"));
	for (const char *at = cmdline; *at; at++)
		if (!memcmp(at, " cpus=", 6))
			cpus = (unsigned)(at[6] - '0');
	EXPECT(cpus >= 1 && cpus <= 8);
	test_end("command line");
	return cpus;
}

void bss_check(void)
{
	static uint64_t nothing[512];
	bool zero = true;
	for (unsigned i = 0; i < 512; i++)
		zero &= nothing[i] == 0;
	EXPECT(zero);
	/* Nothing was loaded behind the image. */
	for (unsigned i = 0; i < 64; i++)
		EXPECT(guest_end[i] == 0);
	test_end("memory without content in the file is zero");
}
