/*
 * The MP table (Intel MultiProcessor Specification 1.4): processors, one ISA bus, one I/O APIC, and each of its pins as the ISA
 * interrupt of the same number, edge-triggered and active high, which is how the devices here signal.
 *
 *   LAYOUT_EBDA: | floating pointer 16 | header 44 | processors 20 each | bus 8 | I/O APIC 8 | interrupts 8 each |
 */
#include <assert.h>
#include <string.h>

#include "base/le.h"
#include "vmm/boot.h"
#include "vmm/layout.h"

struct mp_floating {
	char signature[4]; /* "_MP_" */
	le32 table;
	uint8_t length; /* in 16 bytes */
	uint8_t revision;
	uint8_t checksum;
	uint8_t features[5];
};

struct mp_header {
	char signature[4]; /* "PCMP" */
	le16 length;
	uint8_t revision;
	uint8_t checksum;
	char oem[8];
	char product[12];
	le32 oem_table;
	le16 oem_bytes;
	le16 entries;
	le32 lapic;
	le16 extended_length;
	uint8_t extended_checksum;
	uint8_t reserved;
};

struct mp_processor {
	uint8_t type; /* 0 */
	uint8_t apic_id;
	uint8_t apic_version;
	uint8_t flags; /* bit 0 enabled, bit 1 boot processor */
	le32 signature;
	le32 features;
	le32 reserved[2];
};

struct mp_bus {
	uint8_t type; /* 1 */
	uint8_t id;
	char name[6];
};

struct mp_ioapic {
	uint8_t type; /* 2 */
	uint8_t id;
	uint8_t version;
	uint8_t flags; /* bit 0 usable */
	le32 address;
};

struct mp_interrupt {
	uint8_t type; /* 3: I/O interrupt, 4: local interrupt */
	uint8_t kind; /* 0 INT, 1 NMI, 3 ExtINT */
	le16 flags; /* 0: as the bus has it */
	uint8_t bus, bus_irq;
	uint8_t apic, pin;
};

_Static_assert(sizeof(struct mp_floating) == 16, "MP 4.1");
_Static_assert(sizeof(struct mp_header) == 44, "MP 4.2");
_Static_assert(sizeof(struct mp_processor) == 20, "MP 4.3.1");
_Static_assert(sizeof(struct mp_bus) == 8, "MP 4.3.2");
_Static_assert(sizeof(struct mp_ioapic) == 8, "MP 4.3.3");
_Static_assert(sizeof(struct mp_interrupt) == 8, "MP 4.3.4");

#define APIC_VERSION 0x14
#define IOAPIC_VERSION 0x11

struct mp_table {
	uint8_t bytes[1024]; /* up to the end of base memory at 640 KiB */
	size_t used;
	uint16_t entries;
};

static void append(struct mp_table *table, const void *entry, size_t length)
{
	assert(length <= sizeof(table->bytes) - table->used);
	memcpy(table->bytes + table->used, entry, length);
	table->used += length;
	table->entries++;
}

static void append_interrupts(struct mp_table *table, const struct boot_machine *machine, uint8_t ioapic_id)
{
	for (uint8_t pin = 0; pin < machine->ioapic_pins; pin++) {
		const struct mp_interrupt interrupt = { .type = 3, .bus_irq = pin, .apic = ioapic_id, .pin = pin };
		append(table, &interrupt, sizeof(interrupt));
	}
	/* LINT0 takes the 8259's interrupts, LINT1 NMIs, on all processors. */
	const struct mp_interrupt extint = { .type = 4, .kind = 3, .apic = 0xff, .pin = 0 };
	const struct mp_interrupt nmi = { .type = 4, .kind = 1, .apic = 0xff, .pin = 1 };
	if (machine->pic)
		append(table, &extint, sizeof(extint));
	append(table, &nmi, sizeof(nmi));
}

void mptable_write(const struct guest_mem *mem, const struct boot_machine *machine)
{
	struct mp_table table = { .used = sizeof(struct mp_floating) + sizeof(struct mp_header) };
	const uint8_t ioapic_id = (uint8_t)machine->cpus;

	for (unsigned cpu = 0; cpu < machine->cpus; cpu++) {
		const struct mp_processor processor = {
			.apic_id = (uint8_t)cpu,
			.apic_version = APIC_VERSION,
			.flags = cpu == 0 ? 3 : 1,
			.signature = le32_make(0x600),
			.features = le32_make(0x201), /* FPU and APIC */
		};
		append(&table, &processor, sizeof(processor));
	}
	const struct mp_bus bus = { .type = 1, .id = 0, .name = { 'I', 'S', 'A', ' ', ' ', ' ' } };
	append(&table, &bus, sizeof(bus));
	const struct mp_ioapic ioapic = {
		.type = 2, .id = ioapic_id, .version = IOAPIC_VERSION, .flags = 1, .address = le32_make((uint32_t)LAYOUT_IOAPIC)
	};
	append(&table, &ioapic, sizeof(ioapic));
	append_interrupts(&table, machine, ioapic_id);

	const size_t header_at = sizeof(struct mp_floating);
	struct mp_header header = {
		.signature = { 'P', 'C', 'M', 'P' },
		.length = le16_make((uint16_t)(table.used - header_at)),
		.revision = 4,
		.oem = { 'T', 'R', 'V', 'M', 'M', ' ', ' ', ' ' },
		.product = { 'M', 'I', 'C', 'R', 'O', 'V', 'M', ' ', ' ', ' ', ' ', ' ' },
		.entries = le16_make(table.entries),
		.lapic = le32_make((uint32_t)LAYOUT_LAPIC),
	};
	memcpy(table.bytes + header_at, &header, sizeof(header));
	header.checksum = boot_checksum(table.bytes + header_at, table.used - header_at);
	memcpy(table.bytes + header_at, &header, sizeof(header));

	struct mp_floating floating = {
		.signature = { '_', 'M', 'P', '_' },
		.table = le32_make((uint32_t)(LAYOUT_EBDA + header_at)),
		.length = 1,
		.revision = 4,
	};
	memcpy(table.bytes, &floating, sizeof(floating));
	floating.checksum = boot_checksum(table.bytes, sizeof(floating));
	memcpy(table.bytes, &floating, sizeof(floating));

	const int result = guest_write(mem, LAYOUT_EBDA, table.bytes, table.used);
	assert(result == 0);
}
