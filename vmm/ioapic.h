/*
 * The I/O APIC (Intel 82093AA), in this process: KVM has the local APICs only ("split irqchip").
 *
 * A kernel's start costs less this way, as the chip has only the pins that are used, and there are no 8259s and no 8254 to set up; an
 * interrupt costs one system call, without the detour through a kernel thread that an irqfd on a pin of KVM's own I/O APIC takes; and less
 * of the host's kernel is within a hostile guest's reach.
 *
 * All interrupts here are edges: a pin is raised, and that is one message to a local APIC, whatever trigger mode the guest has set. An edge
 * on a masked pin is kept until it is unmasked.
 */
#ifndef TRVMM_VMM_IOAPIC_H
#define TRVMM_VMM_IOAPIC_H

#include <pthread.h>
#include <stdint.h>

#define IOAPIC_PINS_MAX 24

struct ioapic {
	/* Sends a message-signalled interrupt, as a PCI device would write it (Intel SDM 3, 11.11). Any thread, with the lock held. */
	void (*send)(void *data, uint32_t address, uint32_t message);
	void *data; /* borrowed */
	unsigned pins; /* at most IOAPIC_PINS_MAX */
	pthread_mutex_t lock; /* of all below */
	uint64_t entries[IOAPIC_PINS_MAX]; /* the redirection table */
	uint32_t pending; /* pins raised while masked, a bit each */
	uint8_t select; /* IOREGSEL */
	uint8_t id;
};

/* All pins masked, as after a reset. */
void ioapic_init(struct ioapic *ioapic, unsigned pins, void (*send)(void *data, uint32_t address, uint32_t message), void *data);

/* The guest's access to the register page; only aligned double words do anything. `offset` is below 4096. Any thread. */
uint32_t ioapic_read(struct ioapic *ioapic, uint32_t offset);
void ioapic_write(struct ioapic *ioapic, uint32_t offset, uint32_t value);

/* A rising edge on `pin`, which is below `pins`. Any thread. */
void ioapic_raise(struct ioapic *ioapic, unsigned pin);

#endif
