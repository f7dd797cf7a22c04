/* A virtio-mmio driver that hides nothing; see guest.h. */
#include "tests/guests/guest.h"

#define MMIO_FIRST 0xd0000000ul
#define MMIO_BYTES 0x1000ul
#define PIN_FIRST 5u /* 5, 6, 7, 9 */
#define MAGIC 0x74726976u
#define DEVICES 4u

/* Rings at fixed places, each on pages of its own: desc 4 KiB, avail 1 KiB, used 3 KiB behind it. */
static uint8_t rings[DEVICES][DEVICE_QUEUES][8192] __attribute__((aligned(4096)));

bool device_find(struct device *dev, unsigned index, uint32_t device_id)
{
	*dev = (struct device){ .base = MMIO_FIRST + index * MMIO_BYTES, .pin = PIN_FIRST + index + (index > 2) };
	return reg_read(dev, VIRTIO_MMIO_MAGIC_VALUE) == MAGIC && reg_read(dev, VIRTIO_MMIO_VERSION) == 2 &&
	       reg_read(dev, VIRTIO_MMIO_DEVICE_ID) == device_id;
}

uint32_t device_status(const struct device *dev)
{
	return reg_read(dev, VIRTIO_MMIO_STATUS);
}

void device_reset(struct device *dev)
{
	const uint64_t deadline = deadline_us(PATIENCE_US);
	reg_write(dev, VIRTIO_MMIO_STATUS, 0);
	while (device_status(dev) && rdtsc() < deadline)
		pause();
	dev->features = 0;
}

uint64_t device_offered(const struct device *dev)
{
	reg_write(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	const uint64_t low = reg_read(dev, VIRTIO_MMIO_DEVICE_FEATURES);
	reg_write(dev, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	return (uint64_t)reg_read(dev, VIRTIO_MMIO_DEVICE_FEATURES) << 32 | low;
}

bool device_negotiate(struct device *dev, uint64_t wanted)
{
	device_reset(dev);
	reg_write(dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	reg_write(dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	const uint64_t features = (device_offered(dev) & wanted) | FEATURE_VERSION_1;
	reg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	reg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)features);
	reg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	reg_write(dev, VIRTIO_MMIO_DRIVER_FEATURES, (uint32_t)(features >> 32));
	reg_write(dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	dev->features = features;
	return device_status(dev) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void queue_set_address(struct device *dev, unsigned index, unsigned low_register, uint64_t address)
{
	reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, index);
	reg_write(dev, low_register, (uint32_t)address);
	reg_write(dev, low_register + 4, (uint32_t)(address >> 32));
}

void queue_place(struct device *dev, unsigned index, uint16_t size)
{
	uint8_t *ring = rings[(dev->base - MMIO_FIRST) / MMIO_BYTES][index];
	struct queue *q = &dev->queues[index];

	memset(ring, 0, sizeof(rings[0][0]));
	*q = (struct queue){
		.size = size,
		.desc = (volatile struct vring_desc *)(void *)ring,
		.avail = (volatile uint16_t *)(void *)(ring + 4096),
		.used = (volatile uint16_t *)(void *)(ring + 5120),
	};
	reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, index);
	reg_write(dev, VIRTIO_MMIO_QUEUE_NUM, size);
	queue_set_address(dev, index, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint64_t)q->desc);
	queue_set_address(dev, index, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint64_t)q->avail);
	queue_set_address(dev, index, VIRTIO_MMIO_QUEUE_USED_LOW, (uint64_t)q->used);
}

void queue_ready(struct device *dev, unsigned index)
{
	reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, index);
	reg_write(dev, VIRTIO_MMIO_QUEUE_READY, 1);
}

bool device_start(struct device *dev, uint64_t wanted, unsigned queue_count, uint16_t size)
{
	if (!device_negotiate(dev, wanted))
		return false;
	for (unsigned i = 0; i < queue_count; i++) {
		queue_place(dev, i, size);
		queue_ready(dev, i);
	}
	reg_write(dev, VIRTIO_MMIO_STATUS, device_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
	return device_status(dev) ==
	       (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

void desc_set_raw(volatile struct vring_desc *desc, uint64_t addr, uint32_t length, uint16_t flags, uint16_t next)
{
	desc->addr = addr;
	desc->len = length;
	desc->flags = flags;
	desc->next = next;
}

void desc_set(struct queue *q, unsigned index, const volatile void *addr, uint32_t length, uint16_t flags, uint16_t next)
{
	desc_set_raw(&q->desc[index], (uint64_t)addr, length, flags, next);
}

void queue_put(struct queue *q, uint16_t head)
{
	q->avail[2 + (q->next_avail & (q->size - 1u))] = head;
	barrier();
	q->avail[1] = ++q->next_avail;
	barrier();
}

void queue_notify(struct device *dev, unsigned index)
{
	reg_write(dev, VIRTIO_MMIO_QUEUE_NOTIFY, index);
}

uint16_t queue_used_index(const struct queue *q)
{
	return q->used[1];
}

static const volatile uint32_t *used_element(const struct queue *q, uint16_t at)
{
	return (const volatile uint32_t *)(const volatile void *)(q->used + 2) + 2u * (at & (q->size - 1u));
}

uint32_t queue_used_id(const struct queue *q, uint16_t at)
{
	return used_element(q, at)[0];
}

uint32_t queue_used_length(const struct queue *q, uint16_t at)
{
	return used_element(q, at)[1];
}

void queue_set_used_event(struct queue *q, uint16_t at)
{
	q->avail[2 + q->size] = at;
	barrier();
}

bool queue_wait(struct device *dev, unsigned index, uint16_t count)
{
	struct queue *q = &dev->queues[index];
	const uint64_t deadline = deadline_us(PATIENCE_US);

	while ((uint16_t)(queue_used_index(q) - q->last_used) < count) {
		if (rdtsc() > deadline || (device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET))
			return false;
		pause();
	}
	q->last_used = (uint16_t)(q->last_used + count);
	return true;
}

bool device_wait_failed(const struct device *dev)
{
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while (!(device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
		if (rdtsc() > deadline)
			return false;
		pause();
	}
	return true;
}
