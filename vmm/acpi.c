/*
 * ACPI tables for kernels that go by them (ACPI 6.4, hardware-reduced profile): RSDP, XSDT, FADT, MADT, and a DSDT with one device
 * LNRO0005 for each virtio-mmio page.
 *
 *   LAYOUT_ACPI: | RSDP | XSDT | FADT | MADT | DSDT |   each 16-byte aligned
 */
#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/le.h"
#include "vmm/boot.h"
#include "vmm/layout.h"

#define ACPI_BYTES_MAX 4096

struct acpi_rsdp {
	char signature[8];
	uint8_t checksum; /* of the first 20 bytes */
	char oem[6];
	uint8_t revision;
	le32 rsdt;
	le32 length;
	le64 xsdt;
	uint8_t extended_checksum;
	uint8_t reserved[3];
};

struct acpi_header {
	char signature[4];
	le32 length;
	uint8_t revision;
	uint8_t checksum;
	char oem[6];
	char oem_table[8];
	le32 oem_revision;
	char creator[4];
	le32 creator_revision;
};

struct acpi_address {
	uint8_t space; /* 1: I/O ports */
	uint8_t bits, offset, access;
	le64 address;
};

struct acpi_fadt {
	struct acpi_header header;
	uint8_t unused1[109 - 36];
	le16 boot_arch;
	uint8_t reserved;
	le32 flags;
	struct acpi_address reset_register;
	uint8_t reset_value;
	le16 arm_boot_arch;
	uint8_t minor_version;
	le64 x_facs;
	le64 x_dsdt;
	uint8_t unused2[276 - 148];
};

struct acpi_madt {
	struct acpi_header header;
	le32 lapic;
	le32 flags; /* bit 0: an 8259 is there, too */
};

struct acpi_madt_lapic {
	uint8_t type, length; /* 0, 8 */
	uint8_t uid, apic_id;
	le32 flags; /* bit 0: enabled */
};

struct acpi_madt_ioapic {
	uint8_t type, length; /* 1, 12 */
	uint8_t id, reserved;
	le32 address;
	le32 gsi_base;
};

_Static_assert(sizeof(struct acpi_rsdp) == 36, "5.2.5.3");
_Static_assert(sizeof(struct acpi_header) == 36, "5.2.6");
_Static_assert(sizeof(struct acpi_fadt) == 276 && offsetof(struct acpi_fadt, reset_register) == 116, "5.2.9");
_Static_assert(sizeof(struct acpi_madt) == 44, "5.2.12");

#define FADT_RESET_REG_SUPPORTED (1u << 10)
#define FADT_HW_REDUCED (1u << 20)
#define BOOT_ARCH_LEGACY_DEVICES 1u /* the UART; bit 1, an 8042, is clear: nobody probes for a keyboard */
#define BOOT_ARCH_NO_VGA (1u << 2)
#define BOOT_ARCH_NO_RTC (1u << 5)

/* Bytes that grow, at a guest address. */
struct acpi_area {
	uint8_t bytes[ACPI_BYTES_MAX];
	size_t used;
};

static void put(struct acpi_area *area, const void *from, size_t length)
{
	assert(length <= sizeof(area->bytes) - area->used);
	memcpy(area->bytes + area->used, from, length);
	area->used += length;
}

static void put_byte(struct acpi_area *area, uint8_t byte)
{
	put(area, &byte, 1);
}

static size_t align_area(struct acpi_area *area)
{
	area->used = (area->used + 15) & ~(size_t)15;
	return area->used;
}

static struct acpi_header header_of(const char *signature, uint8_t revision)
{
	struct acpi_header header = {
		.revision = revision,
		.oem = { 'T', 'R', 'V', 'M', 'M', ' ' },
		.oem_table = { 'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ' },
		.oem_revision = le32_make(1),
		.creator = { 'T', 'R', 'V', 'M' },
		.creator_revision = le32_make(1),
	};
	memcpy(header.signature, signature, 4);
	return header;
}

/* Writes length and checksum of the table that began at `start` and ends here. */
static void finish_table(struct acpi_area *area, size_t start)
{
	struct acpi_header header;
	memcpy(&header, area->bytes + start, sizeof(header));
	header.length = le32_make((uint32_t)(area->used - start));
	header.checksum = 0;
	memcpy(area->bytes + start, &header, sizeof(header));
	header.checksum = boot_checksum(area->bytes + start, area->used - start);
	memcpy(area->bytes + start, &header, sizeof(header));
}

/* ---- AML (20.2): just what the DSDT needs ---- */

#define AML_NAME 0x08
#define AML_BYTE 0x0a
#define AML_STRING 0x0d
#define AML_SCOPE 0x10
#define AML_BUFFER 0x11
#define AML_EXT 0x5b
#define AML_EXT_DEVICE 0x82

/* A package length in its two-byte form, filled in by aml_end(). Returns where it stands. */
static size_t aml_begin(struct acpi_area *area)
{
	const size_t at = area->used;
	put(area, "\0\0", 2);
	return at;
}

static void aml_end(struct acpi_area *area, size_t at)
{
	const size_t length = area->used - at;
	assert(length < 4096);
	area->bytes[at] = (uint8_t)(0x40 | (length & 15));
	area->bytes[at + 1] = (uint8_t)(length >> 4);
}

static void aml_name(struct acpi_area *area, const char *name)
{
	put_byte(area, AML_NAME);
	put(area, name, 4);
}

static void aml_device(struct acpi_area *area, unsigned index, const struct boot_device *device)
{
	const char name[] = { 'V', 'R', (char)('0' + index / 10), (char)('0' + index % 10) };

	put(area, (const uint8_t[]){ AML_EXT, AML_EXT_DEVICE }, 2);
	const size_t length_at = aml_begin(area);
	put(area, name, sizeof(name));
	aml_name(area, "_HID");
	put_byte(area, AML_STRING);
	put(area, "LNRO0005", 9);
	aml_name(area, "_UID");
	put(area, (const uint8_t[]){ AML_BYTE, (uint8_t)index }, 2);
	aml_name(area, "_CRS");
	put_byte(area, AML_BUFFER);
	const size_t buffer_at = aml_begin(area);
	put(area, (const uint8_t[]){ AML_BYTE, 23 }, 2);
	/* 32-bit fixed memory (6.4.3.4), writable. */
	put(area, (const uint8_t[]){ 0x86, 9, 0, 1 }, 4);
	put(area, (const le32[]){ le32_make((uint32_t)device->mmio), le32_make((uint32_t)LAYOUT_VIRTIO_BYTES) }, 8);
	/* Extended interrupt (6.4.3.6): consumer, edge, active high, exclusive; one. */
	put(area, (const uint8_t[]){ 0x89, 6, 0, 3, 1 }, 5);
	put(area, (const le32[]){ le32_make(device->irq) }, 4);
	put(area, (const uint8_t[]){ 0x79, 0 }, 2);
	aml_end(area, buffer_at);
	aml_end(area, length_at);
}

static size_t put_dsdt(struct acpi_area *area, const struct boot_machine *machine)
{
	const size_t start = align_area(area);
	const struct acpi_header header = header_of("DSDT", 2);
	put(area, &header, sizeof(header));
	put_byte(area, AML_SCOPE);
	const size_t length_at = aml_begin(area);
	put(area, "\\_SB_", 5);
	for (unsigned i = 0; i < machine->device_count; i++)
		aml_device(area, i, &machine->devices[i]);
	aml_end(area, length_at);
	finish_table(area, start);
	return start;
}

static size_t put_madt(struct acpi_area *area, const struct boot_machine *machine)
{
	const size_t start = align_area(area);
	const struct acpi_madt madt = {
		.header = header_of("APIC", 5), .lapic = le32_make((uint32_t)LAYOUT_LAPIC), .flags = le32_make(machine->pic)
	};
	put(area, &madt, sizeof(madt));
	for (unsigned cpu = 0; cpu < machine->cpus; cpu++) {
		const struct acpi_madt_lapic lapic = {
			.type = 0, .length = 8, .uid = (uint8_t)cpu, .apic_id = (uint8_t)cpu, .flags = le32_make(1)
		};
		put(area, &lapic, sizeof(lapic));
	}
	const struct acpi_madt_ioapic ioapic = {
		.type = 1, .length = 12, .id = (uint8_t)machine->cpus, .address = le32_make((uint32_t)LAYOUT_IOAPIC)
	};
	put(area, &ioapic, sizeof(ioapic));
	finish_table(area, start);
	return start;
}

static size_t put_fadt(struct acpi_area *area, uint64_t dsdt)
{
	const size_t start = align_area(area);
	const struct acpi_fadt fadt = {
		.header = header_of("FACP", 6),
		.boot_arch = le16_make(BOOT_ARCH_LEGACY_DEVICES | BOOT_ARCH_NO_VGA | BOOT_ARCH_NO_RTC),
		.flags = le32_make(FADT_HW_REDUCED | FADT_RESET_REG_SUPPORTED),
		.reset_register = { .space = 1, .bits = 8, .access = 1, .address = le64_make(0x64) },
		.reset_value = 0xfe,
		.minor_version = 4,
		.x_dsdt = le64_make(dsdt),
	};
	put(area, &fadt, sizeof(fadt));
	finish_table(area, start);
	return start;
}

void acpi_write(const struct guest_mem *mem, const struct boot_machine *machine)
{
	struct acpi_area area = { .used = sizeof(struct acpi_rsdp) };

	const size_t madt = put_madt(&area, machine);
	const size_t dsdt = put_dsdt(&area, machine);
	const size_t fadt = put_fadt(&area, LAYOUT_ACPI + dsdt);
	const size_t xsdt = align_area(&area);
	const struct acpi_header header = header_of("XSDT", 1);
	put(&area, &header, sizeof(header));
	put(&area, (const le64[]){ le64_make(LAYOUT_ACPI + fadt), le64_make(LAYOUT_ACPI + madt) }, 16);
	finish_table(&area, xsdt);

	struct acpi_rsdp rsdp = {
		.signature = { 'R', 'S', 'D', ' ', 'P', 'T', 'R', ' ' },
		.oem = { 'T', 'R', 'V', 'M', 'M', ' ' },
		.revision = 2,
		.length = le32_make(sizeof(rsdp)),
		.xsdt = le64_make(LAYOUT_ACPI + xsdt),
	};
	memcpy(area.bytes, &rsdp, sizeof(rsdp));
	rsdp.checksum = boot_checksum(area.bytes, 20);
	memcpy(area.bytes, &rsdp, sizeof(rsdp));
	rsdp.extended_checksum = boot_checksum(area.bytes, sizeof(rsdp));
	memcpy(area.bytes, &rsdp, sizeof(rsdp));

	const int result = guest_write(mem, LAYOUT_ACPI, area.bytes, area.used);
	assert(result == 0);
}
