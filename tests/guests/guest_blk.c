/* virtio-blk requests, one at a time; see guest.h. */
#include "tests/guests/guest.h"

#define BLK_QUEUE_SIZE 128

bool blk_start(struct device *dev)
{
	return device_start(dev, UINT64_MAX, 1, BLK_QUEUE_SIZE);
}

unsigned blk_request(struct device *dev, uint32_t type, uint64_t sector, volatile void *data, uint32_t length, bool data_writable)
{
	static struct blk_header header;
	static volatile uint8_t status;
	struct queue *q = &dev->queues[0];

	header = (struct blk_header){ .type = type, .sector = sector };
	status = 0xee;
	desc_set(q, 0, &header, sizeof(header), VRING_DESC_F_NEXT, length ? 1 : 2);
	desc_set(q, 1, data, length, data_writable ? VRING_DESC_F_NEXT | VRING_DESC_F_WRITE : VRING_DESC_F_NEXT, 2);
	desc_set(q, 2, &status, 1, VRING_DESC_F_WRITE, 0);
	queue_put(q, 0);
	queue_notify(dev, 0);
	if (!queue_wait(dev, 0, 1) || queue_used_id(q, (uint16_t)(q->last_used - 1)) != 0)
		return BLK_NO_ANSWER;
	return status;
}

unsigned blk_read(struct device *dev, uint64_t sector, volatile void *data, uint32_t sectors)
{
	return blk_request(dev, VIRTIO_BLK_T_IN, sector, data, sectors * WORLD_SECTOR_BYTES, true);
}

unsigned blk_write(struct device *dev, uint64_t sector, const volatile void *data, uint32_t sectors)
{
	return blk_request(dev, VIRTIO_BLK_T_OUT, sector, (volatile void *)(uintptr_t)data, sectors * WORLD_SECTOR_BYTES, false);
}

bool sector_is(const volatile void *data, uint64_t sector)
{
	const volatile uint64_t *words = data;
	for (unsigned i = 0; i < WORLD_SECTOR_WORDS; i++)
		if (words[i] != world_word(sector, i))
			return false;
	return true;
}

void sector_fill(volatile void *data, uint64_t as_sector)
{
	volatile uint64_t *words = data;
	for (unsigned i = 0; i < WORLD_SECTOR_WORDS; i++)
		words[i] = world_word(as_sector, i);
}

bool blk_recovers(struct device *dev)
{
	static uint64_t buffer[WORLD_SECTOR_WORDS];
	buffer[0] = 0;
	return blk_start(dev) && blk_read(dev, 5, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, 5);
}
