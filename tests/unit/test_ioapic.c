/* The I/O APIC: its registers, and which edges become which messages. */
#include <criterion/criterion.h>

#include "vmm/ioapic.h"

static struct {
	unsigned count;
	uint32_t address, message;
} sent;

static void send(void *data, uint32_t address, uint32_t message)
{
	cr_assert_eq(data, &sent);
	sent.count++;
	sent.address = address;
	sent.message = message;
}

static struct ioapic chip;

static void set_up(void)
{
	sent.count = 0;
	ioapic_init(&chip, 8, send, &sent);
}

TestSuite(ioapic, .init = set_up);

static uint32_t get(uint32_t index)
{
	ioapic_write(&chip, 0x00, index);
	return ioapic_read(&chip, 0x10);
}

static void set(uint32_t index, uint32_t value)
{
	ioapic_write(&chip, 0x00, index);
	ioapic_write(&chip, 0x10, value);
}

Test(ioapic, says_how_many_pins_it_has)
{
	cr_expect_eq(get(1), 0x00070011u);
}

Test(ioapic, keeps_its_id)
{
	set(0, 0xff000000);
	cr_expect_eq(get(0), 0x0f000000u);
	cr_expect_eq(get(2), 0x0f000000u);
}

Test(ioapic, pins_are_masked_after_reset)
{
	for (unsigned pin = 0; pin < 8; pin++) {
		cr_expect_eq(get(0x10 + 2 * pin), 0x10000u);
		cr_expect_eq(get(0x11 + 2 * pin), 0u);
		ioapic_raise(&chip, pin);
	}
	cr_expect_eq(sent.count, 0u);
}

Test(ioapic, an_edge_is_one_message)
{
	set(0x11 + 2 * 5, 0x03000000);
	set(0x10 + 2 * 5, 0x00000931); /* vector 0x31, lowest priority, logical */
	ioapic_raise(&chip, 5);
	cr_expect_eq(sent.count, 1u);
	cr_expect_eq(sent.address, 0xfee03004u);
	cr_expect_eq(sent.message, 0x131u);
	ioapic_raise(&chip, 5);
	cr_expect_eq(sent.count, 2u);
}

Test(ioapic, level_triggered_pins_send_edges_too)
{
	set(0x10 + 2 * 3, 0x0000a040); /* level, active low */
	cr_expect_eq(get(0x10 + 2 * 3), 0x0000a040u);
	ioapic_raise(&chip, 3);
	cr_expect_eq(sent.count, 1u);
	cr_expect_eq(sent.address, 0xfee00000u);
	cr_expect_eq(sent.message, 0x40u);
}

Test(ioapic, an_edge_on_a_masked_pin_waits)
{
	ioapic_raise(&chip, 4);
	ioapic_raise(&chip, 4);
	set(0x11 + 2 * 4, 0x01000000);
	cr_expect_eq(sent.count, 0u);
	set(0x10 + 2 * 4, 0x00000033);
	cr_expect_eq(sent.count, 1u);
	cr_expect_eq(sent.address, 0xfee01000u);
	set(0x10 + 2 * 4, 0x00010033);
	set(0x10 + 2 * 4, 0x00000033);
	cr_expect_eq(sent.count, 1u);
}

Test(ioapic, read_only_bits_stay)
{
	set(0x10, 0xffffffff);
	set(0x11, 0xffffffff);
	cr_expect_eq(get(0x10), 0x0001afffu);
	cr_expect_eq(get(0x11), 0xff000000u);
}

Test(ioapic, what_is_not_there_does_nothing)
{
	for (uint32_t index = 3; index < 0x100; index++) {
		if (index >= 0x10 && index < 0x20)
			continue;
		set(index, 0x41);
		cr_expect_eq(get(index), 0u, "register 0x%x", index);
	}
	cr_expect_eq(get(0x100), get(0)); /* the index is a byte */
	for (uint32_t offset = 4; offset < 4096; offset += 4) {
		if (offset == 0x10)
			continue;
		ioapic_write(&chip, offset, 0x41);
		cr_expect_eq(ioapic_read(&chip, offset), 0u);
	}
	cr_expect_eq(sent.count, 0u);
}
