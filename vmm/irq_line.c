/* Interrupt lines; see irq_line.h. */
#include "vmm/irq_line.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/ioapic.h"

int irq_line_init(struct irq_line *line, struct ioapic *ioapic, unsigned irq, struct error *err)
{
	*line = (struct irq_line){ .irq = irq, .ioapic = ioapic, .fd = -1 };
	if (ioapic)
		return 0;
	line->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return line->fd < 0 ? error_set(err, -errno, "eventfd: %s", strerror(errno)) : 0;
}

int irq_line_connect(const struct irq_line *line, int vm_fd, struct error *err)
{
	const struct kvm_irqfd irqfd = { .fd = (uint32_t)line->fd, .gsi = line->irq };
	if (line->ioapic || ioctl(vm_fd, KVM_IRQFD, &irqfd) >= 0)
		return 0;
	return error_set(err, -errno, "KVM_IRQFD: %s", strerror(errno));
}

void irq_line_raise(const struct irq_line *line)
{
	if (line->ioapic)
		ioapic_raise(line->ioapic, line->irq);
	else
		(void)!eventfd_write(line->fd, 1); /* fails only when the counter is at its end: the edge is pending anyway */
}

void irq_line_close(struct irq_line *line)
{
	if (line->fd >= 0)
		close(line->fd);
	line->fd = -1;
}
