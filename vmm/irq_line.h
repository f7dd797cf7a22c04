/*
 * An interrupt line of the machine: what a device raises, an edge each time. It ends at a pin of our own I/O APIC, or, where the interrupt
 * controllers are KVM's, at an eventfd that KVM listens to (KVM_IRQFD).
 */
#ifndef TRVMM_VMM_IRQ_LINE_H
#define TRVMM_VMM_IRQ_LINE_H

#include "base/error.h"

struct ioapic;

struct irq_line {
	unsigned irq;
	struct ioapic *ioapic; /* borrowed; NULL: KVM's */
	int fd; /* owned; -1: ours */
};

/* A line to pin `irq` of `ioapic`, or of KVM's controllers when that is NULL. Returns 0, or -errno with one line. */
int irq_line_init(struct irq_line *line, struct ioapic *ioapic, unsigned irq, struct error *err);

/* Joins it with the VM. Returns 0, or -errno with one line. */
int irq_line_connect(const struct irq_line *line, int vm_fd, struct error *err);

/* From any thread, after irq_line_connect(). */
void irq_line_raise(const struct irq_line *line);

/* For a line that irq_line_init() was called for, or one that is all zeroes but for fd -1. */
void irq_line_close(struct irq_line *line);

#endif
