/* The I/O APIC; see ioapic.h. Register and bit names as in Intel's data sheet 290566. */
#include "vmm/ioapic.h"

#include <assert.h>

#define IOREGSEL 0x00
#define IOWIN 0x10

#define IOAPICID 0x00
#define IOAPICVER 0x01
#define IOAPICARB 0x02
#define IOREDTBL 0x10 /* two registers for each pin */

#define VERSION 0x11

#define VECTOR 0xffull
#define DELIVERY_MODE (7ull << 8)
#define LOGICAL (1ull << 11)
#define DELIVERY_STATUS (1ull << 12)
#define REMOTE_IRR (1ull << 14)
#define MASKED (1ull << 16)
#define WRITABLE (0xff0000000001ffffull & ~(DELIVERY_STATUS | REMOTE_IRR))
#define DESTINATION_SHIFT 56

#define MSI_ADDRESS 0xfee00000u
#define MSI_DESTINATION_SHIFT 12
#define MSI_LOGICAL (1u << 2)

void ioapic_init(struct ioapic *ioapic, unsigned pins, void (*send)(void *data, uint32_t address, uint32_t message), void *data)
{
	assert(pins >= 1 && pins <= IOAPIC_PINS_MAX);
	*ioapic = (struct ioapic){ .send = send, .data = data, .pins = pins };
	pthread_mutex_init(&ioapic->lock, NULL);
	for (unsigned pin = 0; pin < pins; pin++)
		ioapic->entries[pin] = MASKED;
}

/* With the lock held. */
static void deliver(struct ioapic *ioapic, unsigned pin)
{
	const uint64_t entry = ioapic->entries[pin];
	if (entry & MASKED) {
		ioapic->pending |= 1u << pin;
		return;
	}
	ioapic->pending &= ~(1u << pin);
	const uint32_t destination = (uint32_t)(entry >> DESTINATION_SHIFT) << MSI_DESTINATION_SHIFT;
	ioapic->send(ioapic->data, MSI_ADDRESS | destination | (entry & LOGICAL ? MSI_LOGICAL : 0),
		     (uint32_t)(entry & (VECTOR | DELIVERY_MODE)));
}

void ioapic_raise(struct ioapic *ioapic, unsigned pin)
{
	assert(pin < ioapic->pins);
	pthread_mutex_lock(&ioapic->lock);
	deliver(ioapic, pin);
	pthread_mutex_unlock(&ioapic->lock);
}

/* The pin whose entry IOREGSEL selects; beyond the last for other registers. */
static unsigned selected_pin(const struct ioapic *ioapic)
{
	return ioapic->select < IOREDTBL ? IOAPIC_PINS_MAX : (ioapic->select - IOREDTBL) / 2u;
}

static uint32_t register_read(const struct ioapic *ioapic)
{
	const unsigned pin = selected_pin(ioapic);
	switch (ioapic->select) {
	case IOAPICID:
	case IOAPICARB:
		return (uint32_t)ioapic->id << 24;
	case IOAPICVER:
		return VERSION | (ioapic->pins - 1) << 16;
	default:
		if (pin >= ioapic->pins)
			return 0;
		return (uint32_t)(ioapic->entries[pin] >> (ioapic->select % 2 ? 32 : 0));
	}
}

static void register_write(struct ioapic *ioapic, uint32_t value)
{
	const unsigned pin = selected_pin(ioapic);
	if (ioapic->select == IOAPICID)
		ioapic->id = value >> 24 & 0xf;
	if (pin >= ioapic->pins)
		return;
	const unsigned shift = ioapic->select % 2 ? 32 : 0;
	const uint64_t kept = ioapic->entries[pin] & ~(0xffffffffull << shift);
	ioapic->entries[pin] = (kept | (uint64_t)value << shift) & WRITABLE;
	if (ioapic->pending & 1u << pin)
		deliver(ioapic, pin);
}

uint32_t ioapic_read(struct ioapic *ioapic, uint32_t offset)
{
	uint32_t value = 0;
	pthread_mutex_lock(&ioapic->lock);
	if (offset == IOREGSEL)
		value = ioapic->select;
	else if (offset == IOWIN)
		value = register_read(ioapic);
	pthread_mutex_unlock(&ioapic->lock);
	return value;
}

void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value)
{
	pthread_mutex_lock(&ioapic->lock);
	if (offset == IOREGSEL)
		ioapic->select = (uint8_t)value;
	else if (offset == IOWIN)
		register_write(ioapic, value);
	pthread_mutex_unlock(&ioapic->lock);
}
