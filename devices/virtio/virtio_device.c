/* What all virtio devices share beside their queues; see virtio_device.h. */
#include "devices/virtio/virtio_device.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>

#include "base/error.h"

/* Requests that one call of virtio_device_drain() takes before it lets the loop do something else. */
#define DRAIN_MAX 1024

void virtio_device_notify_driver(struct virtio_device *dev, unsigned index)
{
	if (!virtq_needs_interrupt(&dev->queues[index]))
		return;
	atomic_fetch_or(&dev->interrupt_status, VIRTIO_MMIO_INT_VRING);
	dev->interrupt(dev);
}

void virtio_device_fail(struct virtio_device *dev, const char *reason)
{
	if (!dev->active)
		return;
	dev->active = false;
	if (dev->complaints < VIRTIO_COMPLAINTS_MAX) {
		dev->complaints++;
		message("%s: %s; the device stops until the driver resets it%s", dev->ops->name, reason,
			dev->complaints == VIRTIO_COMPLAINTS_MAX ? "; this is not told again" : "");
	}
	atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_NEEDS_RESET);
	atomic_fetch_or(&dev->interrupt_status, VIRTIO_MMIO_INT_CONFIG);
	dev->interrupt(dev);
}

void virtio_device_drain(struct virtio_device *dev, unsigned index, struct virtq_chain *scratch,
			 bool (*handle)(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain))
{
	struct virtq *q = &dev->queues[index];
	unsigned taken = 0;
	bool stopped = false;

	do {
		int popped;
		virtq_want_kicks(q, false);
		while (taken < DRAIN_MAX && (popped = virtq_pop(q, scratch)) != 0) {
			if (popped < 0) {
				virtio_device_fail(dev, "the guest's virtqueue is malformed");
				return;
			}
			if (!handle(dev, q, scratch)) {
				virtq_unpop(q);
				stopped = true;
				break;
			}
			if (!dev->active)
				return;
			if (dev->kick)
				taken++;
		}
	} while (virtq_want_kicks(q, true) && !stopped && taken < DRAIN_MAX);
	virtio_device_notify_driver(dev, index);
	if (taken >= DRAIN_MAX)
		dev->kick(dev, index);
}
