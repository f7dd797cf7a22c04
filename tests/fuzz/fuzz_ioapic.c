/*
 * libFuzzer target: the I/O APIC. The input is a list of the guest's accesses to its page, at any offset, and of the devices' edges.
 * Checked: a message is one that a local APIC may get, a masked pin sends nothing, an edge is sent once, and none is lost.
 */
#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/input.h"
#include "vmm/ioapic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MASKED (1ull << 16)

static struct ioapic chip;
static unsigned sent;

static void send(void *data, uint32_t address, uint32_t message)
{
	assert(data == &sent);
	assert((address & 0xfff00ff3) == 0xfee00000);
	assert((message & ~0x7ffu) == 0);
	sent++;
}

static void raise_pin(unsigned pin)
{
	const unsigned before = sent;
	const bool masked = chip.entries[pin] & MASKED;
	ioapic_raise(&chip, pin);
	assert(sent - before == !masked);
	assert(masked == ((chip.pending >> pin) & 1));
}

static void write_register(struct input *in)
{
	const uint32_t pending = chip.pending;
	const unsigned before = sent;
	const uint64_t how = take(in, 1);
	const uint32_t offset = how & 1 ? (uint32_t)take(in, 2) % 4096 : how & 2 ? 0x10 : 0;
	ioapic_write(&chip, offset, (uint32_t)take(in, how & 4 ? 4 : 1));
	/* What is not pending any more was sent. */
	assert(sent - before == (unsigned)__builtin_popcount(pending & ~chip.pending));
	assert((chip.pending & ~pending) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };
	const unsigned pins = 1 + (unsigned)take(&in, 1) % IOAPIC_PINS_MAX;

	sent = 0;
	ioapic_init(&chip, pins, send, &sent);
	while (in.left) {
		const uint64_t action = take(&in, 1);
		if (action % 4 == 0)
			raise_pin((unsigned)(action >> 2) % pins);
		else if (action % 4 == 1)
			(void)ioapic_read(&chip, action & 4 ? (uint32_t)take(&in, 2) % 4096 : 0x10);
		else
			write_register(&in);
		for (unsigned pin = 0; pin < IOAPIC_PINS_MAX; pin++)
			assert(pin < pins || (chip.entries[pin] == 0 && !(chip.pending >> pin & 1)));
	}
	return 0;
}
