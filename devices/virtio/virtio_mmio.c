/* The virtio-mmio transport, version 2 (virtio 1.2, 4.2); see virtio_mmio.h. */
#include "devices/virtio/virtio_mmio.h"

#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <string.h>

#include "base/le.h"

#define MAGIC 0x74726976u /* "virt" */
/* "TRVM": our guest kernel's driver knows by it that an interrupt comes whether the last one was acknowledged or not, and does without. */
#define VENDOR 0x4d565254u

/* Offered with every device. */
#define TRANSPORT_FEATURES (VIRTIO_FEATURE_VERSION_1 | VIRTIO_FEATURE_INDIRECT_DESC | VIRTIO_FEATURE_EVENT_IDX)

static uint64_t offered_features(const struct virtio_mmio *mmio)
{
	return mmio->dev->device_features | TRANSPORT_FEATURES;
}

void virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev)
{
	*mmio = (struct virtio_mmio){ .dev = dev };
	pthread_mutex_init(&mmio->lock, NULL);
}

/* The selected queue, or NULL when the device has no such queue. */
static struct virtq_config *selected_queue(struct virtio_mmio *mmio)
{
	return mmio->queue_sel < mmio->dev->ops->queue_count ? &mmio->queues[mmio->queue_sel] : NULL;
}

/* The selected shared memory region, or NULL when the device has no such one. */
static const struct virtio_shm *selected_shm(const struct virtio_mmio *mmio)
{
	return mmio->shm_sel == 0 && mmio->dev->shm.host ? &mmio->dev->shm : NULL;
}

static uint32_t register_read(struct virtio_mmio *mmio, uint64_t offset)
{
	const struct virtio_device *dev = mmio->dev;
	const struct virtq_config *queue = selected_queue(mmio);
	const struct virtio_shm *shm = selected_shm(mmio);
	const uint64_t no_shm = UINT64_MAX; /* as length and base (4.2.2) */

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MAGIC;
	case VIRTIO_MMIO_VERSION:
		return 2;
	case VIRTIO_MMIO_DEVICE_ID:
		return dev->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID:
		return VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		if (mmio->device_features_sel > 1)
			return 0;
		return (uint32_t)(offered_features(mmio) >> (32 * mmio->device_features_sel));
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return queue ? dev->ops->queue_size_max[mmio->queue_sel] : 0;
	case VIRTIO_MMIO_QUEUE_READY:
		return queue ? queue->ready : 0;
	case VIRTIO_MMIO_SHM_LEN_LOW:
		return (uint32_t)(shm ? shm->bytes : no_shm);
	case VIRTIO_MMIO_SHM_LEN_HIGH:
		return (uint32_t)((shm ? shm->bytes : no_shm) >> 32);
	case VIRTIO_MMIO_SHM_BASE_LOW:
		return (uint32_t)(shm ? shm->gpa : no_shm);
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return (uint32_t)((shm ? shm->gpa : no_shm) >> 32);
	default:
		return 0; /* VIRTIO_MMIO_CONFIG_GENERATION too: configuration space never changes */
	}
}

void virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, void *data, unsigned length)
{
	struct virtio_device *dev = mmio->dev;
	memset(data, 0, length);
	if (offset >= VIRTIO_MMIO_CONFIG) {
		const uint64_t at = offset - VIRTIO_MMIO_CONFIG;
		if (at < dev->config_bytes && length <= dev->config_bytes - at)
			memcpy(data, (const uint8_t *)dev->config + at, length);
		return;
	}
	/* 4.2.2.2: registers below the configuration space are 32 bits wide and aligned. */
	if (length != 4 || offset % 4)
		return;
	le32 value;
	if (offset == VIRTIO_MMIO_INTERRUPT_STATUS) {
		value = le32_make(atomic_load(&dev->interrupt_status));
	} else if (offset == VIRTIO_MMIO_STATUS) {
		value = le32_make(atomic_load(&dev->status));
	} else {
		pthread_mutex_lock(&mmio->lock);
		value = le32_make(register_read(mmio, offset));
		pthread_mutex_unlock(&mmio->lock);
	}
	memcpy(data, &value, sizeof(value));
}

/* On the device's loop. */
static void device_activate(void *arg)
{
	struct virtio_mmio *mmio = arg;
	struct virtio_device *dev = mmio->dev;
	const bool event_idx = dev->driver_features & VIRTIO_FEATURE_EVENT_IDX;

	dev->active = true;
	for (unsigned i = 0; i < dev->ops->queue_count; i++) {
		if (!mmio->queues[i].ready)
			continue;
		if (virtq_enable(&dev->queues[i], dev->mem, &mmio->queues[i], event_idx) < 0) {
			virtio_device_fail(dev, "a queue's size or addresses are invalid");
			return;
		}
		dev->queues[i].takes_shm = dev->ops->takes_shm;
	}
	if (dev->ops->activate(dev) < 0)
		virtio_device_fail(dev, "it could not be activated");
	/* The driver may have notified already, before we listened. */
	for (unsigned i = 0; dev->active && i < dev->ops->queue_count; i++)
		if (virtq_has_avail(&dev->queues[i]))
			dev->ops->notify(dev, i);
}

/* On the device's loop. */
static void device_reset(void *arg)
{
	struct virtio_mmio *mmio = arg;
	struct virtio_device *dev = mmio->dev;

	dev->active = false;
	dev->ops->reset(dev);
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		virtq_disable(&dev->queues[i]);
	dev->driver_features = 0;
	atomic_store(&dev->interrupt_status, 0);
	atomic_store(&dev->status, 0);
}

struct queue_stop {
	struct virtio_device *dev;
	unsigned index;
};

/* On the device's loop: QueueReady was cleared while the device runs. */
static void device_stop_queue(void *arg)
{
	const struct queue_stop *stop = arg;
	if (stop->dev->ops->settle)
		stop->dev->ops->settle(stop->dev);
	virtq_disable(&stop->dev->queues[stop->index]);
}

/* 3.1.1: bits are set in order and cleared only by a reset; what is out of order is ignored. */
static void status_write(struct virtio_mmio *mmio, uint32_t value)
{
	struct virtio_device *dev = mmio->dev;
	const uint32_t before = atomic_load(&dev->status);

	if (value == 0) {
		loop_call(dev->loop, device_reset, mmio);
		mmio->device_features_sel = mmio->driver_features_sel = mmio->queue_sel = mmio->shm_sel = 0;
		mmio->driver_features = 0;
		memset(mmio->queues, 0, sizeof(mmio->queues));
		return;
	}
	const uint32_t added = value & ~before;
	if (added & VIRTIO_CONFIG_S_FAILED)
		atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_FAILED);
	if ((before & (VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)) || (added & VIRTIO_CONFIG_S_FAILED))
		return;
	if (added & VIRTIO_CONFIG_S_ACKNOWLEDGE)
		atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	if ((added & VIRTIO_CONFIG_S_DRIVER) && (atomic_load(&dev->status) & VIRTIO_CONFIG_S_ACKNOWLEDGE))
		atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_DRIVER);
	if ((added & VIRTIO_CONFIG_S_FEATURES_OK) && (atomic_load(&dev->status) & VIRTIO_CONFIG_S_DRIVER) &&
	    (mmio->driver_features & VIRTIO_FEATURE_VERSION_1) && !(mmio->driver_features & ~offered_features(mmio))) {
		dev->driver_features = mmio->driver_features;
		atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_FEATURES_OK);
	}
	if ((added & VIRTIO_CONFIG_S_DRIVER_OK) && (atomic_load(&dev->status) & VIRTIO_CONFIG_S_FEATURES_OK)) {
		atomic_fetch_or(&dev->status, VIRTIO_CONFIG_S_DRIVER_OK);
		loop_call(dev->loop, device_activate, mmio);
	}
}

static void set_low(gpa_t *address, uint32_t value)
{
	*address = (*address & ~0xffffffffull) | value;
}

static void set_high(gpa_t *address, uint32_t value)
{
	*address = (*address & 0xffffffffull) | (uint64_t)value << 32;
}

/* Queue registers. A queue that is ready, or whose device runs, cannot be moved or resized. */
static void queue_write(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	struct virtio_device *dev = mmio->dev;
	struct virtq_config *queue = selected_queue(mmio);
	const bool running = atomic_load(&dev->status) & VIRTIO_CONFIG_S_DRIVER_OK;

	if (!queue)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		if (value == 0 && queue->ready && running) {
			struct queue_stop stop = { .dev = dev, .index = mmio->queue_sel };
			loop_call(dev->loop, device_stop_queue, &stop);
		}
		if (value == 0)
			queue->ready = false;
		else if (value == 1 && !running)
			queue->ready = true;
		return;
	}
	if (queue->ready || running)
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM:
		if (value <= dev->ops->queue_size_max[mmio->queue_sel])
			queue->size = (uint16_t)value;
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
		set_low(&queue->desc, value);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		set_high(&queue->desc, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
		set_low(&queue->avail, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		set_high(&queue->avail, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
		set_low(&queue->used, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		set_high(&queue->used, value);
		break;
	}
}

static void register_write(struct virtio_mmio *mmio, uint64_t offset, uint32_t value)
{
	struct virtio_device *dev = mmio->dev;

	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		mmio->device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		mmio->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		if (atomic_load(&dev->status) & VIRTIO_CONFIG_S_FEATURES_OK)
			break;
		if (mmio->driver_features_sel == 0)
			set_low(&mmio->driver_features, value);
		else if (mmio->driver_features_sel == 1)
			set_high(&mmio->driver_features, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		mmio->queue_sel = value;
		break;
	case VIRTIO_MMIO_SHM_SEL:
		mmio->shm_sel = value;
		break;
	case VIRTIO_MMIO_STATUS:
		status_write(mmio, value);
		break;
	default:
		queue_write(mmio, offset, value);
		break;
	}
}

void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, const void *data, unsigned length)
{
	struct virtio_device *dev = mmio->dev;
	/* No device here has configuration that the driver may write. */
	if (offset >= VIRTIO_MMIO_CONFIG || length != 4 || offset % 4)
		return;
	le32 raw;
	memcpy(&raw, data, sizeof(raw));
	const uint32_t value = le32_get(raw);
	if (offset == VIRTIO_MMIO_INTERRUPT_ACK) {
		atomic_fetch_and(&dev->interrupt_status, ~value);
		return;
	}
	if (offset == VIRTIO_MMIO_QUEUE_NOTIFY) {
		/* Reached only where no ioeventfd stands in front: hand it over as that would. */
		if (value < dev->ops->queue_count && dev->kick)
			dev->kick(dev, value);
		return;
	}
	pthread_mutex_lock(&mmio->lock);
	register_write(mmio, offset, value);
	pthread_mutex_unlock(&mmio->lock);
}

void virtio_mmio_notified(struct virtio_mmio *mmio, unsigned queue)
{
	struct virtio_device *dev = mmio->dev;
	if (dev->active && queue < dev->ops->queue_count && dev->queues[queue].mem)
		dev->ops->notify(dev, queue);
}
